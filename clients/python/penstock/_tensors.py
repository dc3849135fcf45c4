"""From a slot of the ring to the values of a batch.

Large tensors are views of the slot's memory, each with a storage of its own size; they hold the
lease, so the slot is not reused while one lives. Small ones are copies.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._ring import BatchInfo, Lease, ffi, glance, memory, pointer
from .batch import Batch
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


class BatchReader:
    """Reads the fields that an `attach` answer describes; immutable."""

    def __init__(self, fields: list[dict[str, Any]], output: str, side_offset: int = 0) -> None:
        """`output`: "torch" or "numpy"."""
        readers = {field["name"]: _field(field, output, side_offset) for field in fields}
        names = [name for name in readers if name not in (ID_FIELD, VALID_FIELD)]
        self.names = tuple(names)
        #: The batch's fields, then the sample ids and which are valid.
        self._fields = [readers[name] for name in (*names, ID_FIELD, VALID_FIELD)]

    def read(self, info: BatchInfo, lease: Lease, copy: bool) -> Batch:
        """The batch that `lease` holds, but for its place; with `copy` it does not refer to it."""
        return self._batch([field.read(info, lease, copy) for field in self._fields])

    def prepare(self, base: int, count: int) -> Prepared | None:
        """What `read` will return of a batch of `count` in the slot at `base`, made ahead.

        None with fields of text, whose values are in nobody's hands before the batch is there.
        """
        if any(isinstance(field, _TextField) for field in self._fields):
            return None
        return Prepared(self._fields, self.names, base, count)

    def _batch(self, values: list[Any]) -> Batch:
        *values, ids, valid = values
        return Batch(values, self.names, sample_ids=ids, valid=valid)


class Prepared:
    """The tensors of a batch before it is there, so that it need not wait for them.

    Making a tensor takes torch 30 us and more when the caches are cold, and they always are: the
    decode threads have just worked here. Good for one batch.
    """

    __slots__ = ("_batch", "_copies", "_holder", "count")

    def __init__(self, fields: list[_TensorField], names: tuple[str, ...], base: int, count: int):
        self.count = count
        self._holder: list[Lease] = []
        self._copies: list[tuple[Any, Any, int]] = []
        *values, ids, valid = [self._make(field, base) for field in fields]
        self._batch = Batch(values, names, sample_ids=ids, valid=valid)

    def _make(self, field: _TensorField, base: int) -> Any:
        source, size = base + field.offset, field.size(self.count)
        if size >= COPY_BYTES_BELOW:
            return field.view(memory(source, size, self._holder), self.count)
        value, address = field.empty(self.count)
        self._copies.append((pointer(address), pointer(source), size))
        return value

    def take(self, lease: Lease) -> Batch:
        """The batch that `lease` holds, but for its place; once only."""
        self._holder.append(lease)
        for to, source, size in self._copies:
            ffi.memmove(to, source, size)
        return self._batch


class _TensorField:
    """A tensor per batch."""

    def __init__(self, field: dict[str, Any], output: str) -> None:
        self._name, self.offset, self._capacity = field["name"], field["offset"], field["bytes"]
        dtype = "int64" if field["dtype"] == "uint64" else field["dtype"]
        shape = tuple(field["shape"])
        self._is_nhwc = field.get("strides") == "nhwc"
        self._shape = (shape[1], shape[2], shape[0]) if self._is_nhwc else shape
        self._row_bytes = _ITEM_BYTES[dtype] * int(np.prod(shape, dtype=np.int64))
        self._arrays = _TorchArrays(dtype) if output == "torch" else _NumpyArrays(dtype)

    def size(self, count: int) -> int:
        """Bytes of a batch of `count`."""
        size = count * self._row_bytes
        if size > self._capacity:
            raise DaemonError(
                f"a batch of {count} samples does not fit field {self._name!r}; restart the daemon"
            )
        return size

    def read(self, info: BatchInfo, lease: Lease, copy: bool) -> Any:
        count = info.place_count
        size = self.size(count)
        if copy or size < COPY_BYTES_BELOW:
            value, address = self.empty(count)
            ffi.memmove(pointer(address), pointer(info.base + self.offset), size)
            return value
        return self.view(memory(info.base + self.offset, size, lease), count)

    def view(self, buffer: Any, count: int) -> Any:
        """A tensor over a buffer."""
        return self._in_order(self._arrays.view(buffer, (count, *self._shape)))

    def empty(self, count: int) -> tuple[Any, int]:
        """A tensor with memory of its own, and the address of that."""
        array, address = self._arrays.empty((count, *self._shape))
        return self._in_order(array), address

    def _in_order(self, array: Any) -> Any:
        return self._arrays.permute(array, (0, 3, 1, 2)) if self._is_nhwc else array


class _TorchArrays:
    """How torch makes tensors of one type."""

    def __init__(self, dtype_name: str) -> None:
        import torch

        self._torch = torch
        self._dtype = getattr(torch, dtype_name)

    def view(self, buffer: Any, shape: tuple[int, ...]) -> Any:
        return self._torch.frombuffer(buffer, dtype=self._dtype).view(shape)

    def empty(self, shape: tuple[int, ...]) -> tuple[Any, int]:
        tensor = self._torch.empty(shape, dtype=self._dtype)
        return tensor, tensor.data_ptr()

    def permute(self, tensor: Any, axes: tuple[int, ...]) -> Any:
        return tensor.permute(axes)


class _NumpyArrays:
    """How NumPy makes arrays of one type."""

    def __init__(self, dtype_name: str) -> None:
        self._dtype = np.dtype(dtype_name)

    def view(self, buffer: Any, shape: tuple[int, ...]) -> Any:
        return np.frombuffer(buffer, self._dtype).reshape(shape)

    def empty(self, shape: tuple[int, ...]) -> tuple[Any, int]:
        array = np.empty(shape, self._dtype)
        return array, array.ctypes.data

    def permute(self, array: Any, axes: tuple[int, ...]) -> Any:
        return array.transpose(axes)


class _TextField:
    """A list of str, or of bytes, per batch."""

    def __init__(self, field: dict[str, Any], side_offset: int) -> None:
        self._offset = field["offset"]
        self._side_offset = field.get("side_offset", side_offset)
        self._is_text = field["kind"] == "text"

    def read(self, info: BatchInfo, _lease: Lease, _copy: bool) -> list[Any]:
        count = info.place_count
        table = glance(info.base + self._offset, count * 8)
        places = np.frombuffer(table, "<u4").reshape(count, 2).tolist()
        side = glance(info.base + self._side_offset, info.side_bytes)
        values = [side[start : start + length] for start, length in places]
        return [value.decode(errors="replace") for value in values] if self._is_text else values


def _field(field: dict[str, Any], output: str, side_offset: int) -> _TensorField | _TextField:
    if field["kind"] in ("text", "bytes"):
        return _TextField(field, side_offset)
    return _TensorField(field, output)
