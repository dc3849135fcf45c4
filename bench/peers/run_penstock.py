"""Penstock: the public contract, with the private daemon that a user without one gets.

The daemon detaches itself; the harness has made this process the parent of its orphans, so the
daemon's CPU time and memory count, and its start is part of the first batch's time.
"""

import os

import harness
import penstock
import torch  # noqa: F401 (a training script has it: its import is not the loader's time)
from harness import RESIZE_PX, SIZE_PX
from penstock import transforms as T


def _transforms(spec):
    if spec["transform"] == "train":
        steps = [T.RandomResizedCrop(SIZE_PX), T.RandomHorizontalFlip()]
    else:
        steps = [T.Resize(RESIZE_PX), T.CenterCrop(SIZE_PX)]
    if spec["dtype"] == "float32":
        steps.append(T.Normalize(penstock.IMAGENET_MEAN, penstock.IMAGENET_STD))
    return steps


def _batches(loader, as_bytes):
    while True:
        for images, _ in loader:
            yield images.permute(0, 2, 3, 1) if as_bytes else images  # a view: N,H,W,C


def open_stream(spec):
    os.environ["XDG_RUNTIME_DIR"] = spec["scratch"]  # a daemon of this run's own
    os.environ["PENSTOCK_CACHE"] = spec["cache"]  # where the index is, from the run before
    as_bytes = spec["dtype"] == "uint8"
    loader = penstock.DataLoader(
        spec["images"],
        batch_size=spec["batch_size"],
        shuffle=True,
        seed=0,
        drop_last=True,
        num_workers=spec["workers"],
        transforms=_transforms(spec),
        memory_format="channels_last" if as_bytes else None,
    )
    return harness.Stream(_batches(loader, as_bytes))


if __name__ == "__main__":
    harness.main(open_stream, ["penstock", "torch", "numpy"])
