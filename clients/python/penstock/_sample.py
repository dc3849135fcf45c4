"""Replaying one sample: ``DataLoader.sample``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from .batch import Batch

if TYPE_CHECKING:
    from ._link import Link
    from .dataset import Dataset


def read_sample(
    link: Link, dataset: Dataset, recipe: dict[str, Any], sample_id: int, epoch: int, output: str
) -> Batch:
    """The fields of one sample, in the batch's order; images of shape (3, height, width).

    `recipe`: the members "transforms", "layout" and "seed" of the request.
    """
    position = dataset.position_of(sample_id)  # refuses unknown ids
    answer, fds = link.request(
        "sample",
        source=dataset.source,
        fields=dataset.field_specs,
        epoch=epoch,
        sample_id=sample_id,
        **recipe,
    )
    try:
        image = _image(fds[0], answer, recipe["layout"], output)
    finally:
        for fd in fds:
            os.close(fd)
    values = []
    for field in dataset.field_specs:
        if field["kind"] == "image":
            values.append(image)
        elif field["kind"] == "label":
            values.append(_scalar(answer["label"], output))
        else:
            values.append(dataset.load_field(position, field))
    return Batch(
        values,
        dataset.fields,
        sample_ids=_scalar(sample_id, output),
        valid=True,
        epoch=epoch,
    )


def _image(fd: int, answer: dict[str, Any], layout: str, output: str) -> Any:
    data = bytearray(os.pread(fd, os.fstat(fd).st_size, 0))
    channels, height, width = answer["shape"]
    shape = (height, width, channels) if layout == "nhwc" else (channels, height, width)
    count = channels * height * width
    if output == "torch":
        import torch

        tensor = torch.frombuffer(data, dtype=getattr(torch, answer["dtype"]), count=count)
        tensor = tensor.view(shape)
        return tensor.permute(2, 0, 1) if layout == "nhwc" else tensor
    array = np.frombuffer(data, answer["dtype"], count).reshape(shape)
    return array.transpose(2, 0, 1) if layout == "nhwc" else array


def _scalar(value: int, output: str) -> Any:
    if output == "torch":
        import torch

        return torch.tensor(value, dtype=torch.int64)
    return np.int64(value)
