"""Penstock: a data loader daemon and its client, in place of ``torch.utils.data.DataLoader``.

    import penstock
    from penstock import transforms as T

    loader = penstock.DataLoader("/data/train", batch_size=256, shuffle=True,
                                 transforms=[T.RandomResizedCrop(224), T.RandomHorizontalFlip()])
    for images, labels in loader:
        ...

Importing this works on every platform and without torch; only making a loader needs Linux.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import (
    AccessError,
    ArgumentTypeError,
    DaemonError,
    DatasetError,
    DatasetNotFoundError,
    DependencyError,
    DeviceError,
    Error,
    LengthUnknownError,
    ObjectChangedError,
    OutOfMemoryError,
    PlatformError,
    ProtocolError,
    ReadError,
    SampleError,
    StateError,
    TooManyBadSamplesError,
    UnsupportedTransformError,
    UsageError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from . import transforms
    from .batch import Batch
    from .dataset import Dataset
    from .loader import DataLoader

__version__ = "0.1.0"

#: Means and standard deviations of ImageNet's channels (red, green, blue), in units of 0..1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_LAZY = {
    "Batch": ("penstock.batch", "Batch"),
    "DataLoader": ("penstock.loader", "DataLoader"),
    "Dataset": ("penstock.dataset", "Dataset"),
    "transforms": ("penstock.transforms", None),
}

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "AccessError",
    "ArgumentTypeError",
    "Batch",
    "DaemonError",
    "DataLoader",
    "Dataset",
    "DatasetError",
    "DatasetNotFoundError",
    "DependencyError",
    "DeviceError",
    "Error",
    "LengthUnknownError",
    "ObjectChangedError",
    "OutOfMemoryError",
    "PlatformError",
    "ProtocolError",
    "ReadError",
    "SampleError",
    "StateError",
    "TooManyBadSamplesError",
    "UnsupportedTransformError",
    "UsageError",
    "WaitTimeoutError",
    "__version__",
    "transforms",
]


def __getattr__(name: str) -> Any:
    try:
        module_name, attribute = _LAZY[name]
    except KeyError:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}") from None
    module = importlib.import_module(module_name)
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
