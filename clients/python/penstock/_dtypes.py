"""Names of element types, and what they are in NumPy and torch."""

from __future__ import annotations

import sys
from typing import Any

from .errors import UnsupportedTransformError

IMAGE_DTYPES = ("uint8", "float32", "float16", "bfloat16")

_ALIASES = {"float": "float32", "half": "float16"}


def dtype_name(dtype: Any) -> str:
    """ "float32" for ``torch.float32``, ``np.float32``, ``np.dtype("f4")`` or ``"float32"``."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(dtype, torch.dtype):
        return str(dtype).removeprefix("torch.")
    if isinstance(dtype, str):
        name = dtype.removeprefix("torch.")
        return _ALIASES.get(name, name)
    import numpy

    try:
        return numpy.dtype(dtype).name
    except TypeError:
        return repr(dtype)


def image_dtype_name(dtype: Any, where: str) -> str:
    """The same, for images: one of ``IMAGE_DTYPES``, else an error that names `where`."""
    name = dtype_name(dtype)
    if name not in IMAGE_DTYPES:
        raise UnsupportedTransformError(
            f"{where}: images cannot be made as {name}; "
            f"use one of {', '.join(IMAGE_DTYPES)} and convert the batch"
        )
    return name
