"""What every runner shares: read the spec, time the stream of batches, print one line of JSON.

A runner (run_<peer>.py) imports its loader, then calls `main(open_stream)`. `open_stream(spec)`
constructs the loader and returns a Stream; that call and the wait for the first batch are the
"first batch" time. The last line on standard output is the result; the rest is the peer's own.

Standard library only: this file is imported in the environment of every peer.

The spec, a JSON object in the first argument:
    images          folder of JPEGs, one folder per class
    shards          list of tar shards with the same files (WebDataset)
    beton           FFCV's file made from the same files
    batch_size      images a batch
    cores           cores that this process is pinned to
    workers         threads or processes for the loader
    transform       "train": RandomResizedCrop(224) and flip; "eval": Resize(256), CenterCrop(224)
    dtype           "uint8": N,H,W,C as decoded; "float32": N,C,H,W, scaled and normalised
    antialias       whether shrinking filters first; a peer without the choice ignores it
    seconds         least length of the timed part
    warmup_batches, warmup_seconds   both must be over before the timed part starts
    cache           a folder that stays from run to run, for a loader's index
    scratch         a folder of this run's own
"""

import dataclasses
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import process_tree

SIZE_PX = 224
RESIZE_PX = 256
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
MEMORY_BATCHES = 6  # batches after the timed part between which memory is looked at


@dataclasses.dataclass
class Stream:
    """An endless stream of batches of images, each with .shape and .dtype."""

    batches: Iterator[Any]
    # Batches come in bursts of this many when each worker makes whole batches; the timed part
    # ends on a multiple of it, so that it holds no part of a burst.
    burst: int = 1
    close: Callable[[], None] = lambda: None
    # Where the peer can't do what the spec asks to the letter: said in the results.
    note: str = ""


def expected_shape(spec):
    count = spec["batch_size"]
    if spec["dtype"] == "uint8":
        return (count, SIZE_PX, SIZE_PX, 3)
    return (count, 3, SIZE_PX, SIZE_PX)


def _check(batch, spec):
    """Refuse a batch that is not what the spec asks for, and touch its last value."""
    shape = tuple(batch.shape)
    if shape != expected_shape(spec):
        raise SystemExit(f"batch of shape {shape}, expected {expected_shape(spec)}")
    if not str(batch.dtype).endswith(spec["dtype"]):
        raise SystemExit(f"batch of {batch.dtype}, expected {spec['dtype']}")
    return float(batch[-1, -1, -1, -1])


class _Memory:
    def __init__(self):
        self.start = self.peak = process_tree.pss_bytes(os.getpid())

    def look(self):
        self.peak = max(self.peak, process_tree.pss_bytes(os.getpid()))


def _warm_up(stream, spec, memory):
    began, count, looked = time.monotonic(), 0, 0.0
    while count < spec["warmup_batches"] or time.monotonic() - began < spec["warmup_seconds"]:
        _check(next(stream.batches), spec)
        count += 1
        if time.monotonic() - looked > 0.5:
            memory.look()
            looked = time.monotonic()
    for _ in range(2 * stream.burst):  # looking has held the stream up: let it settle
        _check(next(stream.batches), spec)


def _timed_part(stream, spec):
    pid = os.getpid()
    cpu_before, count = process_tree.cpu_seconds(pid), 0
    began = time.monotonic()
    while time.monotonic() - began < spec["seconds"] or count % stream.burst != 0:
        _check(next(stream.batches), spec)
        count += 1
    wall = time.monotonic() - began
    images = count * spec["batch_size"]
    return {
        "images_per_second": images / wall,
        "cpu_seconds_per_image": (process_tree.cpu_seconds(pid) - cpu_before) / images,
        "timed_seconds": wall,
        "timed_images": images,
    }


def _versions(packages):
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def main(open_stream, packages):
    spec = json.loads(sys.argv[1])
    process_tree.adopt_orphans()
    memory = _Memory()
    opened = time.monotonic()
    stream = open_stream(spec)
    first = next(stream.batches)
    first_batch_s = time.monotonic() - opened
    result = {
        "first_batch_seconds": first_batch_s,
        "first_batch_seconds_from_start": process_tree.seconds_since_start(os.getpid()),
        "mean_value": _mean(first, spec),
        "versions": _versions(packages),
        "note": stream.note,
    }
    del first
    _warm_up(stream, spec, memory)
    result.update(_timed_part(stream, spec))
    for _ in range(MEMORY_BATCHES):
        _check(next(stream.batches), spec)
        memory.look()
    result["pss_peak_bytes"] = memory.peak
    result["pss_growth_bytes"] = memory.peak - memory.start
    result["processes"] = len(process_tree.members(os.getpid()))
    print("\n" + json.dumps(result), flush=True)
    # Leave without running the peers' destructors, some of which hang or complain at exit.
    try:
        stream.close()
    finally:
        sys.stdout.flush()
        process_tree.end_descendants()
        os._exit(0)


def _mean(batch, spec):
    """Mean of the first batch: the same for all peers but for the random crops."""
    _check(batch, spec)
    if hasattr(batch, "float"):  # torch
        return float(batch.float().mean())
    return float(batch.mean(dtype="float64"))
