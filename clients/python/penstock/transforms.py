"""Transforms with the names, arguments and meaning of ``torchvision.transforms.v2``.

They are descriptions: the daemon carries them out, on RGB images as Pillow gives them
(``convert("RGB")``), resizing with antialias. A list of them, or :class:`Compose`, goes to
``DataLoader(transforms=...)``. Sizes are pixels, (height, width).
"""

from __future__ import annotations

import enum
import math
import numbers
from collections.abc import Sequence
from typing import Any

from ._dtypes import dtype_name
from .errors import ArgumentTypeError, UsageError

__all__ = [
    "CenterCrop",
    "Compose",
    "ConvertImageDtype",
    "InterpolationMode",
    "Normalize",
    "PILToTensor",
    "Pad",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomVerticalFlip",
    "Resize",
    "ToDtype",
    "ToImage",
    "ToPureTensor",
    "ToTensor",
    "Transform",
]

PADDING_MODES = ("constant", "edge", "reflect", "symmetric")


class InterpolationMode(enum.Enum):
    """How pixels between pixels are made. BOX, HAMMING and LANCZOS are not supported."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


Interpolation = str | InterpolationMode | int


class Transform:
    """Base class: holds arguments, shows them, and compares by them."""

    def __call__(self, *inputs: Any) -> Any:
        raise UsageError(
            f"{self!r} is a description that the daemon carries out; give it to "
            "DataLoader(transforms=[...]), or use torchvision's to call it on one image"
        )

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        shown = (bool, int, float, str, tuple, list, enum.Enum)
        arguments = ", ".join(
            f"{name}={value}"
            for name, value in self.__dict__.items()
            if not name.startswith("_") and isinstance(value, shown)
        )
        return f"{type(self).__name__}({arguments})"


class Compose(Transform):
    """Several transforms, one after another."""

    def __init__(self, transforms: Sequence[Any]) -> None:
        if not isinstance(transforms, Sequence):
            raise ArgumentTypeError(f"Compose of {transforms!r}: give a list of transforms")
        if not transforms:
            raise UsageError("Compose of nothing: give at least one transform")
        self.transforms = list(transforms)

    def __repr__(self) -> str:
        lines = "".join(f"      {transform!r}\n" for transform in self.transforms)
        return f"Compose(\n{lines})"


class RandomResizedCrop(Transform):
    """A random part of the image, `scale` of its area and `ratio` wide/high, resized to `size`."""

    def __init__(
        self,
        size: int | Sequence[int],
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3.0 / 4.0, 4.0 / 3.0),
        interpolation: Interpolation = "bilinear",
        antialias: bool | None = True,
    ) -> None:
        self.size = _size_pair(size)
        self.scale = _range(scale, "Scale")
        self.ratio = _range(ratio, "Ratio")
        if self.scale[1] <= 0 or self.ratio[0] <= 0:
            raise UsageError(f"scale {scale} and ratio {ratio}: give numbers above 0")
        self.interpolation = _interpolation(interpolation)
        self.antialias = antialias


class Resize(Transform):
    """The shorter edge to `size` (int), or both edges to `size` (height, width)."""

    def __init__(
        self,
        size: int | Sequence[int] | None,
        interpolation: Interpolation = "bilinear",
        max_size: int | None = None,
        antialias: bool | None = True,
    ) -> None:
        self.size: list[int] | None
        if size is None:
            if not isinstance(max_size, int):
                raise UsageError(f"max_size {max_size!r}: give an int when size is None")
            self.size = None
        elif isinstance(size, int):
            self.size = [size]
        elif isinstance(size, Sequence) and len(size) in (1, 2):
            self.size = list(size)
        else:
            raise UsageError(f"size {size!r}: give an int, a pair (height, width), or None")
        for edge in self.size or ():
            _check_edge(edge)
        if max_size is not None:
            _check_edge(max_size)
            if self.size is not None and len(self.size) == 2:
                raise UsageError(f"max_size {max_size} with size {size}: give one of them only")
            if self.size is not None and max_size <= self.size[0]:
                raise UsageError(
                    f"max_size {max_size} is not above size {self.size[0]}; raise it or drop it"
                )
        self.interpolation = _interpolation(interpolation)
        self.max_size = max_size
        self.antialias = antialias


class CenterCrop(Transform):
    """The middle of the image; smaller images are padded with 0 first."""

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = _size_pair(size)


class RandomCrop(Transform):
    """A part of the image at a random place, after padding."""

    def __init__(
        self,
        size: int | Sequence[int],
        padding: int | Sequence[int] | None = None,
        pad_if_needed: bool = False,
        fill: float | Sequence[float] = 0,
        padding_mode: str = "constant",
    ) -> None:
        self.size = _size_pair(size)
        self.padding = None if padding is None else _padding(padding)
        self.pad_if_needed = bool(pad_if_needed)
        self.fill = _fill(fill)
        self.padding_mode = _padding_mode(padding_mode)


class Pad(Transform):
    """Borders around the image: one width, (left/right, top/bottom), or (left, top, right,
    bottom)."""

    def __init__(
        self,
        padding: int | Sequence[int],
        fill: float | Sequence[float] = 0,
        padding_mode: str = "constant",
    ) -> None:
        self.padding = _padding(padding)
        self.fill = _fill(fill)
        self.padding_mode = _padding_mode(padding_mode)


class RandomHorizontalFlip(Transform):
    """Left and right swapped with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = _probability(p)


class RandomVerticalFlip(Transform):
    """Top and bottom swapped with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = _probability(p)


class ToDtype(Transform):
    """Convert to `dtype`; with `scale`, 0..255 becomes 0..1.

    `dtype`: uint8, float32, float16 or bfloat16, as a torch or NumPy type or by name.
    """

    def __init__(self, dtype: Any, scale: bool = False) -> None:
        self._dtype = dtype_name(dtype)
        self.dtype = dtype
        self.scale = bool(scale)

    def __eq__(self, other: object) -> bool:
        return (
            type(self) is type(other) and self._dtype == other._dtype and self.scale == other.scale
        )

    __hash__ = Transform.__hash__

    def __repr__(self) -> str:
        return f"ToDtype(dtype={self._dtype}, scale={self.scale})"


class ConvertImageDtype(Transform):
    """``ToDtype(dtype, scale=True)`` under its older name; float32 by default."""

    def __init__(self, dtype: Any = "float32") -> None:
        self._dtype = dtype_name(dtype)
        self.dtype = dtype

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._dtype == other._dtype

    __hash__ = Transform.__hash__

    def __repr__(self) -> str:
        return f"ConvertImageDtype(dtype={self._dtype})"


class Normalize(Transform):
    """``(value - mean) / std`` per channel; uint8 images become float32 in 0..1 first."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> None:
        self.mean = [float(value) for value in mean]
        self.std = [float(value) for value in std]
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
                raise UsageError(f"{name} {values}: give 1 or 3 finite numbers")
        if 0.0 in self.std:
            raise UsageError(f"std {self.std} has a 0; give numbers above 0")
        self.inplace = inplace


class ToTensor(Transform):
    """``ToDtype(float32, scale=True)``, as torchvision's first version had it."""


class PILToTensor(Transform):
    """Nothing to do: batches are tensors."""


class ToImage(Transform):
    """Nothing to do: batches are tensors."""


class ToPureTensor(Transform):
    """Nothing to do: batches are tensors."""


def _check_edge(edge: Any) -> None:
    if isinstance(edge, bool) or not isinstance(edge, numbers.Integral) or edge < 1:
        raise UsageError(f"size {edge!r}: give a whole number of pixels, at least 1")


def _size_pair(size: Any) -> tuple[int, int]:
    if isinstance(size, numbers.Number):
        size = (size, size)
    elif not isinstance(size, Sequence) or isinstance(size, str):
        raise ArgumentTypeError(f"size {size!r}: give an int or a pair (height, width)")
    elif len(size) == 1:
        size = (size[0], size[0])
    elif len(size) != 2:
        raise UsageError(f"size {size!r}: give an int or a pair (height, width)")
    for edge in size:
        _check_edge(edge)
    return (int(size[0]), int(size[1]))


def _range(pair: Any, name: str) -> tuple[float, float]:
    if (
        not isinstance(pair, Sequence)
        or len(pair) != 2
        or not all(isinstance(value, numbers.Real) and math.isfinite(value) for value in pair)
    ):
        raise ArgumentTypeError(f"{name} {pair!r}: give two numbers (lowest, highest)")
    if pair[0] > pair[1] or pair[0] < 0:
        raise UsageError(f"{name} {pair!r}: give (lowest, highest) with 0 <= lowest <= highest")
    return (pair[0], pair[1])


_PILLOW_FILTERS = {0: "nearest", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming", 1: "lanczos"}


def interpolation_name(interpolation: Any) -> str:
    """The name of an interpolation given as a name, an enum member or Pillow's number."""
    value = getattr(interpolation, "value", interpolation)
    if isinstance(value, int) and not isinstance(value, bool):
        return _PILLOW_FILTERS.get(value, str(value))
    return str(value)


def _interpolation(interpolation: Any) -> Any:
    name = interpolation_name(interpolation)
    if name not in {mode.value for mode in InterpolationMode}:
        raise UsageError(
            f"interpolation {interpolation!r} is unknown; use 'nearest', 'bilinear' or 'bicubic'"
        )
    return interpolation


def _padding(padding: Any) -> Any:
    edges = [padding] if isinstance(padding, int) else padding
    if (
        not isinstance(edges, (tuple, list))
        or len(edges) not in (1, 2, 4)
        or not all(isinstance(edge, int) for edge in edges)
    ):
        raise UsageError(f"padding {padding!r}: give an int, or a list of 1, 2 or 4 ints")
    if min(edges) < 0:
        raise UsageError(f"padding {padding!r} is negative; use a crop to make images smaller")
    return padding if isinstance(padding, int) else list(edges)


def padding_edges(padding: Any) -> list[int]:
    """[left, top, right, bottom] of a padding given in any of its forms."""
    edges = [padding] if isinstance(padding, int) else list(padding)
    if len(edges) == 1:
        return edges * 4
    return edges * 2 if len(edges) == 2 else edges


def _padding_mode(mode: Any) -> str:
    if mode not in PADDING_MODES:
        raise UsageError(f"padding_mode {mode!r} is unknown; use one of {PADDING_MODES}")
    return mode


def _fill(fill: Any) -> Any:
    if fill is None:
        return 0
    if not isinstance(fill, (numbers.Number, tuple, list)):
        raise ArgumentTypeError(f"fill {fill!r}: give a number or three, 0 to 255")
    values = [fill] if isinstance(fill, numbers.Number) else fill
    if len(values) not in (1, 3) or not all(0 <= value <= 255 for value in values):
        raise UsageError(f"fill {fill!r}: give a number or three, 0 to 255")
    return fill


def _probability(p: Any) -> float:
    if not isinstance(p, numbers.Real) or not 0.0 <= p <= 1.0:
        raise UsageError(f"p {p!r}: give a probability, 0 to 1")
    return p
