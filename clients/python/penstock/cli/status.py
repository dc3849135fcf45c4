"""status and top: what each rank of each job gets."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from typing import Any

from .._client import SilentDaemonError
from .._wire import Disconnected
from ..errors import DaemonError
from . import _targets
from ._output import human_bytes, human_seconds, one_line, print_json, printable, table
from ._parser import Parser, add_address, add_command, number

_HEADER = ("JOB", "RANK", "EPOCH/STEP", "IMAGES/S", "WAIT%", "RING", "BAD", "VERDICT")
_CLEAR_SCREEN = "\x1b[2J"
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def add_commands(commands: Any) -> None:
    status = add_command(
        commands,
        "status",
        _status,
        "print a line per job and rank: epoch/step, images/s, wait, ring, bad samples, verdict",
        "penstock status\npenstock status --watch --interval 5\npenstock status --json",
        details="WAIT% is the share of time in which the trainer could take a batch and none was "
        "ready; RING is batches ready, of slots.",
    )
    status.add_argument("--watch", action="store_true", help="again and again, until Ctrl-C")
    _add_common(status)
    top = add_command(
        commands,
        "top",
        _top,
        "the same as 'status --watch', redrawn in place",
        "penstock top\npenstock top --interval 0.5",
    )
    _add_common(top)


def _add_common(parser: Parser) -> None:
    add_address(parser)
    parser.add_argument(
        "--interval",
        type=number(0.1, 3600),
        default=1.0,
        metavar="SECONDS",
        help="between two looks (default: 1)",
    )


def _status(arguments: argparse.Namespace) -> int:
    if arguments.watch:
        return _watch(arguments, redraw=False)
    daemons, silent = _look(arguments.address)
    if not daemons and not silent:
        raise DaemonError(
            "no daemon is running; start one with 'penstock serve', or make a DataLoader"
        )
    if arguments.json:
        print_json(_as_json(daemons))
    elif daemons:
        print("\n".join(_lines(daemons)))
    if silent:
        raise silent[0]
    return 0


def _top(arguments: argparse.Namespace) -> int:
    return _watch(arguments, redraw=sys.stdout.isatty() and not arguments.json)


def _watch(arguments: argparse.Namespace, redraw: bool) -> int:
    if redraw:
        print(_CLEAR_SCREEN, end="")
    while True:
        try:
            daemons, silent = _look(arguments.address)
        except SilentDaemonError as error:
            daemons, silent = [], [error]
        except (DaemonError, Disconnected):
            daemons, silent = [], []  # it may come back
        if arguments.json:
            print_json({"time": time.time(), **_as_json(daemons)})
        else:
            seen = _lines(daemons) + [one_line(str(error)) for error in silent]
            lines = [time.strftime("%H:%M:%S"), *(seen or ["no daemon is running"])]
            if redraw:
                # A line that wraps would shift all others at the next drawing.
                columns = shutil.get_terminal_size().columns
                text = "".join(f"{line[:columns]}{_CLEAR_LINE}\n" for line in lines)
                print(f"{_HOME}{text}{_CLEAR_BELOW}", end="", flush=True)
            else:
                print("\n".join(lines), flush=True)
        time.sleep(arguments.interval)


def _look(address: str | None) -> tuple[list[dict[str, Any]], list[SilentDaemonError]]:
    """What every daemon answers to "status", its jobs in order of rank; and who does not answer."""
    answers = []
    clients, silent = _targets.running(address)
    for client in clients:
        with client:
            try:
                answer = client.request("status")
            except SilentDaemonError as error:
                silent.append(error)
                continue
            except Disconnected:
                continue
        jobs = sorted(answer["jobs"], key=lambda job: (job["job"], job["rank"], job["pid"]))
        answers.append({**answer["daemon"], "jobs": jobs})
    return answers, silent


def _as_json(daemons: list[dict[str, Any]]) -> dict[str, Any]:
    """Daemons and jobs apart; a job's daemon is the one with the same socket."""
    jobs = [{**job, "socket": one["socket"]} for one in daemons for job in one["jobs"]]
    bare = [{name: value for name, value in one.items() if name != "jobs"} for one in daemons]
    return {"daemons": bare, "jobs": jobs}


def _lines(daemons: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for daemon in daemons:
        if lines:
            lines.append("")
        lines.append(_daemon_line(daemon))
        if daemon["jobs"]:
            rows = [_row(job) for job in daemon["jobs"]]
            lines += table(_HEADER, rows, left=("JOB", "VERDICT"))
        else:
            lines.append("no trainer is attached")
    return lines


def _daemon_line(daemon: dict[str, Any]) -> str:
    return (
        f"penstockd {daemon['version']}{' (private)' if daemon['private'] else ''}, "
        f"pid {daemon['pid']}, up {human_seconds(daemon['uptime_seconds'])}, "
        f"{daemon['threads']} threads {daemon['busy_ratio']:.0%} busy, {daemon['engine']}, "
        f"{human_bytes(daemon['resident_bytes'])}, {daemon['socket']}"
    )


def _row(job: dict[str, Any]) -> tuple[str, ...]:
    return (
        printable(job["job"] or job["name"] or f"pid {job['pid']}"),
        f"{job['rank']}/{job['world']}",
        f"{job['epoch']}: {job['step']:,}/{job['batches_per_epoch']:,}",
        f"{job['images_per_second']:,.0f}",
        f"{100 * job['wait_ratio']:.1f}",
        f"{job['ring_ready']}/{job['ring_slots']}",
        f"{job['bad_samples']:,}",
        job["verdict"],
    )
