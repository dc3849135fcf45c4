"""torchvision's and torch's data set objects, understood without importing either."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .errors import DatasetError, UsageError


@dataclass
class Foreign:
    """What an ImageFolder (perhaps inside Subsets) says."""

    root: str
    transform: Any
    folder: Any  # the object itself, to compare its list of samples with ours
    indices: Sequence[int] | None


def without_subsets(dataset: Any) -> tuple[Any, list[int] | None]:
    """The data set inside torch's Subset objects, and which of its samples they choose."""
    indices: list[int] | None = None
    while _is_a(dataset, "torch.utils.data", "Subset"):
        own = [int(index) for index in dataset.indices]
        indices = own if indices is None else [own[index] for index in indices]
        dataset = dataset.dataset
    return dataset, indices


def foreign_from(dataset: Any) -> Foreign | None:
    """None for what is no data set object; UsageError for objects that cannot be served."""
    dataset, indices = without_subsets(dataset)
    if _is_a(dataset, "torchvision.datasets", "DatasetFolder"):
        _check_folder(dataset)
        return Foreign(str(dataset.root), dataset.transform, dataset, indices)
    if indices is not None or hasattr(dataset, "__getitem__") or hasattr(dataset, "__iter__"):
        kind = type(dataset)
        raise UsageError(
            f"a {kind.__module__}.{kind.__qualname__} cannot be served: its code would have to "
            "run in the daemon; give the folder or the tar shards that it reads, or a torchvision "
            "ImageFolder, and do what it does in batch_map="
        )
    return None


def _is_a(value: Any, module_name: str, class_name: str) -> bool:
    module = sys.modules.get(module_name)
    kind = getattr(module, class_name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _check_folder(folder: Any) -> None:
    loader = getattr(folder, "loader", None)
    where = getattr(loader, "__module__", "")
    if getattr(loader, "__name__", "") != "default_loader" or "torchvision" not in where:
        raise UsageError(
            f"the ImageFolder of {folder.root} has a loader of its own ({loader!r}), which the "
            "daemon cannot run; leave loader= out"
        )
    if getattr(folder, "target_transform", None) is not None:
        raise UsageError(
            f"the ImageFolder of {folder.root} has a target_transform, which the daemon cannot "
            "run; leave it out and change the labels in batch_map="
        )
    combined = getattr(folder, "transforms", None)
    if combined is not None and getattr(combined, "transform", None) is not folder.transform:
        raise UsageError(
            f"the ImageFolder of {folder.root} has a joint transforms=; give transform= instead"
        )


def positions_in_ours(folder: Any, paths: Sequence[str], labels: Sequence[int]) -> list[int] | None:
    """Where the object's samples are among ours; None when they are the same list.

    Raises DatasetError when a sample is missing or has another label.
    """
    theirs = [(str(path), int(label)) for path, label in folder.samples]
    if len(theirs) == len(paths) and all(
        path == our_path and label == our_label
        for (path, label), our_path, our_label in zip(theirs, paths, labels, strict=True)
    ):
        return None
    ours = {path: position for position, path in enumerate(paths)}
    positions = []
    for path, label in theirs:
        position = ours.get(path)
        if position is None:
            raise DatasetError(
                f"the ImageFolder lists {path}, which Penstock does not; is it an image file in a "
                "class folder? Make the ImageFolder anew, or give the folder itself"
            )
        if labels[position] != label:
            raise DatasetError(
                f"the ImageFolder gives {path} the label {label}, the folder's names give it "
                f"{labels[position]}; change labels in batch_map= instead"
            )
        positions.append(position)
    return positions
