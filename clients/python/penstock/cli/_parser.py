"""Options that all commands share, and argparse in the way of this tool."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; keeps the examples as they are written."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"penstock: {message}; see '{self.prog} --help'\n")


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    examples: str,
    *,
    details: str = "",
) -> Parser:
    """A sub-command with --json and --help. `run` returns the exit status."""
    parser: Parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.{details and ' ' + details}",
        epilog="examples:\n" + "".join(f"  {line}\n" for line in examples.strip().splitlines()),
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--address",
        metavar="PATH",
        help="socket of the daemon (default: $PENSTOCK_ADDRESS, else that of 'penstock serve', "
        "else your private daemon)",
    )


def whole(minimum: int, maximum: int = 2**63 - 1) -> Callable[[str], int]:
    """An argument's type: a whole number of a range."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if not minimum <= value <= maximum:
            above = f" to {maximum}" if maximum < 2**63 - 1 else ""
            raise argparse.ArgumentTypeError(
                f"{text!r}: give a whole number, {minimum}{above or ' or more'}"
            )
        return value

    return parse


def number(minimum: float, maximum: float) -> Callable[[str], float]:
    """An argument's type: a number of a range."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(
                f"{text!r}: give a number from {minimum:g} to {maximum:g}"
            )
        return value

    return parse
