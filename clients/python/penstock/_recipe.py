"""From transforms (ours or torchvision's) to the list that the daemon takes.

Also checks what can be known without an image: that every image ends in one shape, and that
geometry comes before the conversion to floats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import transforms as T
from ._dtypes import image_dtype_name
from .errors import UnsupportedTransformError, UsageError

Recipe = list[dict[str, Any]]

_SUPPORTED = [
    name for name in T.__all__ if name not in ("Transform", "InterpolationMode", "Compose")
]


def recipe_from(transforms: Any, fields: Sequence[str] = ("image",)) -> Recipe:
    """Translate what ``DataLoader(transforms=)`` was given.

    `transforms`: None, one transform, a list, a Compose, or ``{image field: any of these}``.
    Raises UnsupportedTransformError that names what is not known, UsageError where the images
    would not all have one shape.
    """
    if isinstance(transforms, Mapping):
        unknown = [name for name in transforms if name not in fields]
        if unknown:
            raise UsageError(
                f"transforms for {unknown}: only the image field {list(fields)} has transforms; "
                "use batch_map= for the others"
            )
        transforms = next(iter(transforms.values()), None)
    singles = _flatten(transforms)
    recipe = [step for one in singles for step in _translate(one)]
    _check_antialias(singles)
    _check_types(recipe)
    _check_shape(recipe)
    return recipe


def _flatten(transforms: Any) -> list[Any]:
    if transforms is None:
        return []
    if isinstance(transforms, (list, tuple)):
        return [single for one in transforms for single in _flatten(one)]
    if type(transforms).__name__ in ("Compose", "Sequential"):
        inner = getattr(transforms, "transforms", transforms)
        return [single for one in inner for single in _flatten(one)]
    return [transforms]


def _translate(transform: Any) -> Recipe:
    kind = type(transform)
    translate = _TRANSLATORS.get(kind.__name__)
    ours = isinstance(transform, T.Transform)
    if translate is None or not (ours or kind.__module__.startswith("torchvision.transforms")):
        name = kind.__name__ if kind.__name__ != "function" else getattr(transform, "__name__", "")
        raise UnsupportedTransformError(
            f"transform {name} ({kind.__module__}) is not supported: {transform!r}; supported are "
            f"{', '.join(_SUPPORTED)}; do the rest on the batch with batch_map="
        )
    return translate(transform)


def _size(transform: Any) -> list[int]:
    size = transform.size
    if isinstance(size, int):
        return [size, size]
    size = [int(edge) for edge in size]
    return size * 2 if len(size) == 1 else size


def _interpolation(transform: Any) -> str:
    name = T.interpolation_name(transform.interpolation)
    if name == "nearest-exact":
        name = "nearest"  # one and the same on Pillow images
    if name not in ("nearest", "bilinear", "bicubic"):
        raise UnsupportedTransformError(
            f"{transform!r}: interpolation {name} is not supported; "
            "use nearest, bilinear or bicubic"
        )
    return name


def _fill(transform: Any) -> list[int]:
    fill = transform.fill
    if isinstance(fill, Mapping):
        raise UnsupportedTransformError(f"{transform!r}: fill by type; give one number or three")
    values = [fill or 0] if not isinstance(fill, (list, tuple)) else list(fill)
    values = [int(value) for value in values]
    return values * 3 if len(values) == 1 else values


def _resized_crop(transform: Any) -> Recipe:
    return [
        {
            "op": "RandomResizedCrop",
            "size": _size(transform),
            "scale": [float(value) for value in transform.scale],
            "ratio": [float(value) for value in transform.ratio],
            "interpolation": _interpolation(transform),
        }
    ]


def _resize(transform: Any) -> Recipe:
    size = transform.size
    if size is None:
        raise UnsupportedTransformError(
            f"{transform!r}: size=None is not supported; give the shorter edge, Resize(256)"
        )
    size = [size] if isinstance(size, int) else [int(edge) for edge in size]
    step: dict[str, Any] = {"op": "Resize", "size": size}
    if transform.max_size is not None:
        step["max_size"] = int(transform.max_size)
    step["interpolation"] = _interpolation(transform)
    return [step]


def _random_crop(transform: Any) -> Recipe:
    padding = transform.padding
    if padding is None:
        edges = [0, 0, 0, 0]
    elif type(transform).__module__.startswith("torchvision.transforms.v2"):
        left, right, top, bottom = padding  # this one class stores them in its own order
        edges = [left, top, right, bottom]
    else:
        edges = T.padding_edges(padding)
    return [
        {
            "op": "RandomCrop",
            "size": _size(transform),
            "padding": [int(edge) for edge in edges],
            "pad_if_needed": bool(transform.pad_if_needed),
            "fill": _fill(transform),
            "padding_mode": str(transform.padding_mode),
        }
    ]


def _pad(transform: Any) -> Recipe:
    return [
        {
            "op": "Pad",
            "padding": [int(edge) for edge in T.padding_edges(transform.padding)],
            "fill": _fill(transform),
            "padding_mode": str(transform.padding_mode),
        }
    ]


def _flip(transform: Any) -> Recipe:
    return [{"op": type(transform).__name__, "p": float(transform.p)}]


def _to_dtype(transform: Any) -> Recipe:
    if isinstance(transform.dtype, Mapping):
        raise UnsupportedTransformError(
            f"{transform!r}: a type per kind of tensor is not supported; give one type"
        )
    scale = bool(getattr(transform, "scale", True))  # ConvertImageDtype always scales
    dtype = image_dtype_name(transform.dtype, type(transform).__name__)
    return [{"op": "ToDtype", "dtype": dtype, "scale": scale}]


def _normalize(transform: Any) -> Recipe:
    def three(values: Any) -> list[float]:
        values = [float(value) for value in values]
        if len(values) not in (1, 3):
            raise UnsupportedTransformError(f"{transform!r}: give one number per channel (3)")
        return values * 3 if len(values) == 1 else values

    return [{"op": "Normalize", "mean": three(transform.mean), "std": three(transform.std)}]


def _nothing(transform: Any) -> Recipe:
    return []


_TRANSLATORS: dict[str, Callable[[Any], Recipe]] = {
    "RandomResizedCrop": _resized_crop,
    "Resize": _resize,
    "CenterCrop": lambda transform: [{"op": "CenterCrop", "size": _size(transform)}],
    "RandomCrop": _random_crop,
    "Pad": _pad,
    "RandomHorizontalFlip": _flip,
    "RandomVerticalFlip": _flip,
    "ToDtype": _to_dtype,
    "ConvertImageDtype": _to_dtype,
    "Normalize": _normalize,
    "ToTensor": lambda transform: [{"op": "ToDtype", "dtype": "float32", "scale": True}],
    "PILToTensor": _nothing,
    "ToImage": _nothing,
    "ToPureTensor": _nothing,
    "Identity": _nothing,
}


def _check_antialias(singles: Sequence[Any]) -> None:
    """Pillow always smooths; only on tensors does antialias=False mean something."""
    is_tensor = False
    for transform in singles:
        if is_tensor and getattr(transform, "antialias", True) is False:
            raise UnsupportedTransformError(
                f"{transform!r}: antialias=False on tensors is not supported; leave it out"
            )
        is_tensor |= type(transform).__name__ in ("ToTensor", "PILToTensor", "ToImage")


def _check_types(recipe: Recipe) -> None:
    """Whatever changes the geometry by more than moving pixels comes before floats."""
    converted = ""
    for step in recipe:
        op = step["op"]
        moves_only = op.endswith("Flip") or op == "CenterCrop"
        moves_only = moves_only or (op == "RandomCrop" and not any(step["padding"]))
        if op in ("ToDtype", "Normalize"):
            converted = converted or op
        elif converted and not moves_only:
            raise UsageError(
                f"transforms: {op} after {converted} would work on floats; put {op} before it"
            )


def _check_shape(recipe: Recipe) -> None:
    shape: tuple[int, int] | None = None
    last = "none"
    for step in recipe:
        op = step["op"]
        if op == "Resize":
            shape = tuple(step["size"]) if len(step["size"]) == 2 else _resized(shape, step)
            last = f"Resize({step['size'][0]})"
        elif "size" in step:
            shape = tuple(step["size"])
        elif op == "Pad" and shape is not None:
            left, top, right, bottom = step["padding"]
            shape = (shape[0] + top + bottom, shape[1] + left + right)
    if shape is None:
        raise UsageError(
            f"transforms: images keep shapes of their own (last size-giving transform: {last}), so "
            "they do not fit into one batch; end with a fixed size, for instance "
            "[Resize(256), CenterCrop(224)] or [RandomResizedCrop(224)]"
        )


def _resized(shape: tuple[int, int] | None, step: dict[str, Any]) -> tuple[int, int] | None:
    """What Resize(shorter edge) makes of a known shape."""
    if shape is None:
        return None
    height, width = shape
    wanted = step["size"][0]
    short, long = min(shape), max(shape)
    long = int(wanted * long / short)
    if step.get("max_size") is not None and long > step["max_size"]:
        wanted, long = int(step["max_size"] * wanted / long), step["max_size"]
    return (wanted, long) if height <= width else (long, wanted)
