"""The other side of ``bench --against torch``: PyTorch's DataLoader with Pillow, same data.

It runs in a process of its own (``python -m penstock.cli._bench_torch``), so that its memory, its
workers and torch itself are not in ours. Transforms are torchvision's if it can be imported, else
the same in Pillow's words.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import io
import json
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .._index import IndexFile
from ..dataset import IMAGE_PATTERN
from ..errors import DependencyError, Error
from ._cpu import tree_cpu_seconds
from ._index_request import Indexed
from ._measure import Plan, measure
from ._presets import resize_edge

_PREFETCH = 2  # torch's default
_GRACE_SECONDS = 60.0
_SCALE, _RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def check_installed() -> None:
    for module, package in (("torch", "torch"), ("PIL", "pillow")):
        if importlib.util.find_spec(module) is None:
            raise DependencyError(
                f"--against torch needs {package}; install it with 'pip install {package}', or "
                "leave --against out"
            )


def run(arguments: argparse.Namespace, indexed: Indexed) -> dict[str, Any]:
    """Measure in a process of its own; the figures of `Measured`, and name and version."""
    options = {
        "batch_size": arguments.batch_size,
        "size": arguments.size,
        "threads": arguments.threads,
        "transform": arguments.transform,
        "seconds": arguments.seconds,
        "step_seconds": arguments.step_ms / 1000,
        "index_fd": indexed.fd,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, json.dumps(options)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[indexed.fd],
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=2 * arguments.seconds + _GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        raise Error("PyTorch's loader took too long; try a smaller --batch-size") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # it and its workers: a session of their own
            process.wait()
    if process.returncode != 0:
        last = (errors.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        raise Error(
            f"PyTorch's loader failed: {last}; if shared memory is short, enlarge /dev/shm "
            "(docker run --shm-size 8g), or try a smaller --batch-size"
        )
    return json.loads(output.splitlines()[-1])


# ---- In the process of its own -------------------------------------------------------------------


class _Pictures:
    """A torch data set: the picture of each sample, transformed, as a uint8 tensor."""

    def __init__(self, index: IndexFile, transform: Callable[[Any], Any], size: int) -> None:
        self._index = index
        self._transform = transform
        self._size = size
        self._labels = index.labels()

    def __len__(self) -> int:
        return self._index.sample_count

    def __getitem__(self, position: int) -> tuple[Any, int, bool]:
        import torch
        from PIL import Image

        try:
            member = self._index.member(position, IMAGE_PATTERN)
            data = member.read() if member is not None else b""
            with Image.open(io.BytesIO(data)) as image:
                picture = self._transform(image.convert("RGB"))
            pixels = np.array(picture)
            is_good = True
        except (OSError, SyntaxError, Error, Image.DecompressionBombError):
            pixels = np.zeros((self._size, self._size, 3), np.uint8)
            is_good = False
        tensor = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        return tensor, int(self._labels[position]), is_good


def _transform_for(name: str, size: int) -> tuple[Callable[[Any], Any], str]:
    try:
        from torchvision import transforms
    except Exception:  # absent, or built for another torch: many kinds of errors
        return (_train(size), "Pillow") if name == "train" else (_evaluate(size), "Pillow")
    if name == "train":
        steps = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
    else:
        steps = [transforms.Resize(resize_edge(size)), transforms.CenterCrop(size)]
    return transforms.Compose(steps), "torchvision"


def _train(size: int) -> Callable[[Any], Any]:
    from PIL import Image

    def transform(image: Any) -> Any:
        left, top, width, height = _random_box(*image.size)
        box = (left, top, left + width, top + height)
        image = image.crop(box).resize((size, size), Image.Resampling.BILINEAR)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image

    return transform


def _random_box(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, width, height: ten tries, then the middle, as RandomResizedCrop does it."""
    for _ in range(10):
        area = width * height * random.uniform(*_SCALE)
        ratio = math.exp(random.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, width - w), random.randint(0, height - h), w, h
    ratio = min(max(width / height, _RATIO[0]), _RATIO[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    return (width - w) // 2, (height - h) // 2, w, h


def _evaluate(size: int) -> Callable[[Any], Any]:
    from PIL import Image

    def transform(image: Any) -> Any:
        edge = resize_edge(size)
        scale = edge / min(image.size)
        width, height = (max(edge, int(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - size) / 2), round((height - size) / 2)
        return image.crop((left, top, left + size, top + size))

    return transform


def _measure_torch(options: dict[str, Any]) -> dict[str, Any]:
    import torch
    from torch.utils.data import DataLoader

    transform, transforms_by = _transform_for(options["transform"], options["size"])
    torch.set_num_threads(1)
    pictures = _Pictures(IndexFile(options["index_fd"]), transform, options["size"])
    began = time.perf_counter()
    loader: DataLoader[Any] = DataLoader(
        pictures,  # type: ignore[arg-type]
        batch_size=options["batch_size"],
        shuffle=True,
        num_workers=options["threads"],
        prefetch_factor=_PREFETCH,
        persistent_workers=True,
    )
    iterator = iter(loader)
    next(iterator)
    first_batch_seconds = time.perf_counter() - began
    measured = measure(
        loader,
        iterator,
        Plan(options["seconds"], options["step_seconds"], _PREFETCH * options["threads"]),
        lambda batch: (len(batch[1]), int((~batch[2]).sum())),
        tree_cpu_seconds,
    )
    return {
        "name": "torch",
        "version": importlib.metadata.version("torch"),
        "transforms_by": transforms_by,
        "workers": options["threads"],
        **measured.figures(),
        "first_batch_seconds": first_batch_seconds,
    }


if __name__ == "__main__":
    print(json.dumps(_measure_torch(json.loads(sys.argv[1]))), flush=True)
    for worker in multiprocessing.active_children():
        worker.kill()  # joining busy ones takes seconds that nobody needs
    os._exit(0)
