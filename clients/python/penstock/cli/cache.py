"""preload, stat: the cache of remote data."""

from __future__ import annotations

import argparse
from typing import Any

from .._client import connect
from ..dataset import Dataset
from ._output import human_bytes, print_json, printable
from ._parser import add_address, add_command
from ._progress import ProgressBar


def add_commands(commands: Any) -> None:
    preload = add_command(
        commands,
        "preload",
        _preload,
        "fetch a remote data set into the cache",
        "penstock preload 's3://bucket/train-{000..146}.tar'",
        details="What is there already is not fetched again, so it can be interrupted and started "
        "anew; training may run meanwhile. Exit status 1 when something could not be fetched.",
    )
    preload.add_argument("dataset", nargs="+", metavar="URL", help="shards, patterns or a prefix")
    add_address(preload)
    stat = add_command(
        commands, "stat", _stat, "figures of the cache of remote data", "penstock stat --json"
    )
    add_address(stat)


def _preload(arguments: argparse.Namespace) -> int:
    source = Dataset(arguments.dataset).source
    progress = ProgressBar()
    with connect(arguments.address) as client:
        try:
            answer, _fds = client.request_fds("preload", progress=progress, source=source)
        finally:
            progress.finish()
    is_whole = answer["missing_bytes"] == 0
    if arguments.json:
        print_json(answer)
    elif is_whole:
        print(f"{human_bytes(answer['bytes'])} are in the cache")
    else:
        why = answer["error"] or "the cache takes no more; give the daemon a higher limit"
        print(
            f"{human_bytes(answer['missing_bytes'])} of {human_bytes(answer['bytes'])} are not in "
            f"the cache: {printable(why)}"
        )
    return 0 if is_whole else 1


def _stat(arguments: argparse.Namespace) -> int:
    with connect(arguments.address) as client:
        answer = client.request("cache")
    if arguments.json:
        print_json(answer)
        return 0
    disk = (
        f"{human_bytes(answer['disk_used_bytes'])} of {human_bytes(answer['disk_limit_bytes'])} on "
        f"disk in {answer['disk_chunks']:,} chunks"
    )
    hits = answer["memory_hit_bytes"] + answer["disk_hit_bytes"]
    print(
        f"{disk if answer['has_disk'] else 'no disk'}, "
        f"{human_bytes(answer['memory_used_bytes'])} of "
        f"{human_bytes(answer['memory_limit_bytes'])} in memory; since the daemon's start "
        f"{human_bytes(answer['fetched_bytes'])} fetched, {human_bytes(hits)} read from it, "
        f"{answer['evicted_chunks']:,} chunks evicted, {answer['corrupt_chunks']:,} found damaged"
    )
    return 0
