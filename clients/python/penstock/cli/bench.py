"""bench: how fast a data set loads here, and what it costs."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from .. import __version__
from .._client import Client
from .._platform import require_linux
from ..dataset import Dataset
from ..errors import UsageError
from . import _bench_torch
from ._cpu import cpu_seconds
from ._index_request import Indexed, request_index
from ._measure import Plan, measure
from ._output import print_json, printable
from ._own_daemon import own_daemon
from ._parser import add_command, number, whole
from ._presets import TRANSFORMS, transforms_for

_SLOTS = 4
_AGAINST_SECONDS_MAX = 15.0  # each, so that both are done within a minute
_KEEPS_UP_BELOW = 0.05  # share of the time that a loop waits
_SAME_WITHIN = 1.1


def add_commands(commands: Any) -> None:
    bench = add_command(
        commands,
        "bench",
        _bench,
        "measure how fast a data set loads, with a daemon of its own",
        "penstock bench /data/train --batch-size 256 --threads 8\n"
        "penstock bench /data/train --against torch --step-ms 180\n"
        "penstock bench /data/train --transform eval --seconds 30 --json",
        details="Batches are uint8 images, shuffled, as a training loop would take them. CPU "
        "counts the daemon and the client, user and system.",
    )
    bench.add_argument("dataset", nargs="+", metavar="DATASET", help="a folder or tar shards")
    bench.add_argument(
        "--batch-size", type=whole(1, 1 << 20), default=256, metavar="N", help="default: 256"
    )
    bench.add_argument(
        "--size", type=whole(1, 16384), default=224, metavar="N", help="pixels (default: 224)"
    )
    bench.add_argument(
        "--threads",
        type=whole(1, 512),
        metavar="T",
        help="decode threads (default: one per CPU that may be used)",
    )
    bench.add_argument(
        "--seconds",
        type=number(0.1, 86400),
        default=10.0,
        metavar="S",
        help="to measure, after a warm-up (default: 10; with --against at most 15 each)",
    )
    bench.add_argument(
        "--transform",
        choices=TRANSFORMS,
        default="train",
        help="train: RandomResizedCrop and flip (default); eval: Resize and CenterCrop",
    )
    bench.add_argument(
        "--step-ms",
        type=number(0, 3_600_000),
        default=0.0,
        metavar="X",
        help="pretend that a training step takes so long (default: 0)",
    )
    bench.add_argument(
        "--against", choices=("torch",), help="also run PyTorch's DataLoader with Pillow"
    )
    bench.add_argument("--quality", choices=("exact", "fast"), default="exact")
    bench.add_argument("--prepared", action="store_true", help=argparse.SUPPRESS)


def _bench(arguments: argparse.Namespace) -> int:
    require_linux()
    if arguments.quality == "fast":
        raise UsageError("--quality fast: this version always decodes exactly; leave it out")
    if arguments.prepared:
        raise UsageError("--prepared: this version cannot prepare data sets; leave it out")
    if arguments.against:
        _bench_torch.check_installed()
        arguments.seconds = min(arguments.seconds, _AGAINST_SECONDS_MAX)
    if arguments.threads is None:
        arguments.threads = len(os.sched_getaffinity(0))
    with own_daemon() as client:
        indexed = request_index(client, arguments.dataset)  # its time is not the loader's
    report = _run_penstock(arguments, indexed)
    if arguments.against:
        other = _bench_torch.run(arguments, indexed)
        report["against"] = other
        report["ratio"] = report["images_per_second"] / other["images_per_second"]
        report["verdict"] = _verdict(report, other)
    if arguments.json:
        print_json(report)
    else:
        print("\n".join(_lines(arguments, report, indexed)))
    return 0


def _run_penstock(arguments: argparse.Namespace, indexed: Indexed) -> dict[str, Any]:
    began = time.perf_counter()
    with own_daemon(["--threads", str(arguments.threads)]) as client:
        daemon_pid = client.hello["pid"]
        loader = _loader(arguments, indexed, client)
        with loader:
            iterator = iter(loader)
            next(iterator)
            first_batch_seconds = time.perf_counter() - began
            measured = measure(
                loader,
                iterator,
                Plan(arguments.seconds, arguments.step_ms / 1000, _SLOTS + 2),
                lambda batch: (len(batch.valid), int((~batch.valid).sum())),
                lambda: time.process_time() + cpu_seconds(daemon_pid),
            )
            stats = loader.stats()
        doctor = client.request("doctor")
    return {
        **measured.figures(),
        "first_batch_seconds": first_batch_seconds,
        "limited_by": stats["limited_by"],
        "dataset": indexed.source["urls"],
        "dataset_samples": indexed.index.sample_count,
        "batch_size": arguments.batch_size,
        "size": arguments.size,
        "threads": arguments.threads,
        "transform": arguments.transform,
        "quality": arguments.quality,
        "step_ms": arguments.step_ms,
        "engine": doctor["engine"],
        "kernels": doctor["kernels"],
        "version": __version__,
    }


def _loader(arguments: argparse.Namespace, indexed: Indexed, client: Client) -> Any:
    from ..loader import DataLoader

    return DataLoader(
        Dataset(indexed.source["urls"]),
        batch_size=arguments.batch_size,
        shuffle=True,
        seed=0,
        transforms=transforms_for(arguments.transform, arguments.size),
        prefetch_factor=_SLOTS,
        on_error="zero",
        rank=0,
        world_size=1,
        output="numpy",
        address=client.address,
        job="bench",
    )


# ---- The report ----------------------------------------------------------------------------------


def _verdict(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Is it worth it? One sentence."""
    ratio = ours["images_per_second"] / theirs["images_per_second"]
    cpu = ours["cpu_seconds_per_image"] / theirs["cpu_seconds_per_image"]
    cost = f"at {cpu:.2f} times the CPU per image"
    if max(ours["wait_ratio"], theirs["wait_ratio"]) < _KEEPS_UP_BELOW:
        return f"not worth it for speed: with this step both keep up ({cost})"
    if ratio >= _SAME_WITHIN:
        return f"worth it: {ratio:.1f} times the images per second of PyTorch's loader, {cost}"
    if ratio > 1 / _SAME_WITHIN:
        return f"about as fast as PyTorch's loader, {cost}"
    return f"not worth it here: {ratio:.2f} times the images per second of PyTorch's loader"


def _lines(arguments: argparse.Namespace, report: dict[str, Any], indexed: Indexed) -> list[str]:
    step = f", step {arguments.step_ms:g} ms" if arguments.step_ms else ""
    lines = [
        f"{printable(indexed.shown)}: {report['dataset_samples']:,} samples, batches of "
        f"{report['batch_size']}, {report['transform']} {report['size']} px, "
        f"{report['threads']} threads{step}",
        _line("penstock", report),
    ]
    if "against" not in report:
        return [*lines, f"limited by {report['limited_by']}"]
    other = report["against"]
    lines += [_line("torch", other), report["verdict"]]
    if not arguments.step_ms:
        lines.append("whether your loop would notice: give its step's time with --step-ms")
    return lines


def _line(name: str, report: dict[str, Any]) -> str:
    return (
        f"{name:<9} {report['images_per_second']:>8,.0f} images/s, "
        f"{1000 * report['cpu_seconds_per_image']:.2f} ms CPU per image, "
        f"waits {report['wait_ratio']:.1%} "
        f"(p50 {1000 * report['wait_p50_seconds']:.1f} ms, "
        f"p99 {1000 * report['wait_p99_seconds']:.1f} ms), "
        f"first batch {report['first_batch_seconds']:.2f} s, {report['bad_samples']} bad"
    )
