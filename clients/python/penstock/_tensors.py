"""From a slot of the ring to the values of a batch.

Large tensors are views of the slot's memory, each with a storage of its own size; they hold the
lease, so the slot is not reused while one lives. Small ones are copies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ._ring import Lease
from .errors import DaemonError

#: Fields of a batch below this are copied: a kept label must not keep a slot of images.
COPY_BYTES_BELOW = 64 * 1024

ID_FIELD, VALID_FIELD = "__id__", "__valid__"

_ITEM_BYTES = {
    "uint8": 1,
    "bool": 1,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
}

Reader = Callable[[Lease, int, bool], Any]


class BatchReader:
    """Reads the fields that an `attach` answer describes; immutable."""

    def __init__(self, fields: list[dict[str, Any]], output: str, side_offset: int = 0) -> None:
        """`output`: "torch" or "numpy"."""
        readers = {field["name"]: _reader(field, output, side_offset) for field in fields}
        self._read_ids = readers.pop(ID_FIELD)
        self._read_valid = readers.pop(VALID_FIELD)
        self.names = tuple(readers)
        self._readers = tuple(readers.values())

    def read(self, lease: Lease, copy: bool) -> tuple[tuple[Any, ...], Any, Any]:
        """(values, sample ids, valid) of the batch; with `copy` nothing refers to the slot."""
        count = lease.info.place_count
        values = tuple([read(lease, count, copy) for read in self._readers])
        return values, self._read_ids(lease, count, True), self._read_valid(lease, count, True)


def _reader(field: dict[str, Any], output: str, side_offset: int) -> Reader:
    if field["kind"] in ("text", "bytes"):
        return _text_reader(field, field.get("side_offset", side_offset))
    return _tensor_reader(field, output)


def _tensor_reader(field: dict[str, Any], output: str) -> Reader:
    name, offset, capacity = field["name"], field["offset"], field["bytes"]
    dtype = "int64" if field["dtype"] == "uint64" else field["dtype"]
    shape = tuple(field["shape"])
    is_nhwc = field.get("strides") == "nhwc"
    memory_shape = (shape[1], shape[2], shape[0]) if is_nhwc else shape
    row_bytes = _ITEM_BYTES[dtype] * int(np.prod(memory_shape, dtype=np.int64))
    as_array = _torch_from(dtype) if output == "torch" else _numpy_from(dtype)

    def read(lease: Lease, count: int, copy: bool) -> Any:
        size = count * row_bytes
        if size > capacity:
            raise DaemonError(
                f"a batch of {count} samples does not fit field {name!r}; restart the daemon"
            )
        copy = copy or size < COPY_BYTES_BELOW
        memory = lease.glance(offset, size) if copy else lease.memory(offset, size)
        return as_array(memory, (count, *memory_shape), copy, is_nhwc)

    return read


def _torch_from(dtype_name: str) -> Callable[[Any, tuple[int, ...], bool, bool], Any]:
    import torch

    dtype = getattr(torch, dtype_name)

    def make(memory: Any, shape: tuple[int, ...], copy: bool, is_nhwc: bool) -> Any:
        if shape[0] == 0:
            tensor = torch.empty(shape, dtype=dtype)
        else:
            tensor = torch.frombuffer(memory, dtype=dtype)
            if copy:
                tensor = tensor.clone()
            if len(shape) > 1:
                tensor = tensor.view(shape)
        return tensor.permute(0, 3, 1, 2) if is_nhwc else tensor

    return make


def _numpy_from(dtype_name: str) -> Callable[[Any, tuple[int, ...], bool, bool], Any]:
    dtype = np.dtype(dtype_name)

    def make(memory: Any, shape: tuple[int, ...], copy: bool, is_nhwc: bool) -> Any:
        array = np.frombuffer(memory, dtype)
        if copy:
            array = array.copy()
        array = array.reshape(shape)
        return array.transpose(0, 3, 1, 2) if is_nhwc else array

    return make


def _text_reader(field: dict[str, Any], side_offset: int) -> Reader:
    offset, is_text = field["offset"], field["kind"] == "text"

    def read(lease: Lease, count: int, copy: bool) -> list[Any]:
        places = np.frombuffer(lease.glance(offset, count * 8), "<u4").reshape(count, 2).tolist()
        side = lease.glance(side_offset, lease.info.side_bytes)
        values = [side[start : start + length] for start, length in places]
        return [value.decode(errors="replace") for value in values] if is_text else values

    return read
