"""doctor: what is right and wrong here; each FIX comes with the one command that mends it."""

from __future__ import annotations

import argparse
from typing import Any

from . import _checks
from ._output import one_line, print_json
from ._parser import add_address, add_command


def add_commands(commands: Any) -> None:
    doctor = add_command(
        commands,
        "doctor",
        _doctor,
        "check this machine and installation: lines OK or FIX",
        "penstock doctor\npenstock doctor --json",
        details="Each FIX names the one command that mends it. Exit status 1 when there is one.",
    )
    add_address(doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    found = _checks.all_checks(arguments.address)
    is_well = all(check.fix is None for check in found)
    if arguments.json:
        print_json({"ok": is_well, "checks": [check.as_json() for check in found]})
        return 0 if is_well else 1
    width = max(len(check.name) for check in found)
    for check in found:
        print(f"{'OK ' if check.fix is None else 'FIX'} {check.name:<{width}}  ", end="")
        print(one_line(check.text), end="\n" if check.fix is None else f": {check.fix}\n")
    return 0 if is_well else 1
