"""The two transforms of ImageNet training, by name."""

from __future__ import annotations

from typing import Any

from .. import transforms as T

TRANSFORMS = ("train", "eval")


def transforms_for(name: str, size: int) -> list[Any]:
    """For "train" RandomResizedCrop and flip; for "eval" Resize to size * 256 / 224, CenterCrop."""
    if name == "train":
        return [T.RandomResizedCrop(size), T.RandomHorizontalFlip()]
    return [T.Resize(resize_edge(size)), T.CenterCrop(size)]


def resize_edge(size: int) -> int:
    """The shorter edge before the central crop: 256 for 224."""
    return round(size * 256 / 224)
