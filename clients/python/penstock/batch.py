"""Batch: what a loader gives, a tuple of fields that also knows their names and its place."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ._state import Cursor, Identity
from .errors import StateError, UsageError

_ATTRIBUTES = ("names", "sample_ids", "valid", "epoch", "step", "_state")


class Batch(tuple):
    """The fields of a batch, in order: ``images, labels = batch``; also ``batch["image"]``.

    Images are uint8 (or what ``ToDtype`` says), shape (N, 3, height, width); labels int64, shape
    (N,); text fields are lists of N str.

    Attributes:
        names: names of the fields.
        sample_ids: int64, shape (N,); -1 for padding.
        valid: bool, shape (N,); False for padding and for what ``on_error="zero"`` zeroed.
        epoch, step: which epoch, and which of its batches, both from 0.

    Large tensors are views of memory that is not reused while they live: keep, change, pickle or
    save them as you like. A Batch is a pytree, pickles, and goes through ``torch.save``.
    """

    names: tuple[str, ...]
    sample_ids: Any
    valid: Any
    epoch: int
    step: int

    def __new__(
        cls,
        values: Iterable[Any] = (),
        names: Iterable[str] = (),
        *,
        sample_ids: Any = None,
        valid: Any = None,
        epoch: int = 0,
        step: int = 0,
        state: dict[str, Any] | tuple[Identity, Cursor] | None = None,
    ) -> Batch:
        self = super().__new__(cls, values)
        self.names = tuple(names)
        self.sample_ids = sample_ids
        self.valid = valid
        self.epoch = epoch
        self.step = step
        self._state = state
        return self

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            try:
                return tuple.__getitem__(self, self.names.index(key))
            except ValueError:
                raise KeyError(f"{key!r}: the batch has {list(self.names)}") from None
        return tuple.__getitem__(self, key)

    def __repr__(self) -> str:
        names = self.names or map(str, range(len(self)))
        fields = ", ".join(
            f"{name}: {_shown(value)}" for name, value in zip(names, self, strict=True)
        )
        return f"Batch({fields}, epoch={self.epoch}, step={self.step})"

    def keys(self) -> tuple[str, ...]:
        """The names of the fields; makes ``dict(batch)`` work."""
        return self.names

    def items(self) -> Iterator[tuple[str, Any]]:
        return iter(zip(self.names, self, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """The loader's state after this batch, for ``DataLoader.load_state_dict``."""
        if isinstance(self._state, tuple):
            identity, cursor = self._state
            self._state = identity.state_dict(cursor)
        if self._state is None:
            raise StateError(
                "this batch was not made by a loader; use the loader's own state_dict()"
            )
        return dict(self._state)

    def map(self, function: Callable[[Any], Any]) -> Batch:
        """A batch of ``function(value)`` for every field."""
        return self.replace([function(value) for value in self])

    def replace(self, values: Iterable[Any]) -> Batch:
        """The same batch with other values."""
        values = tuple(values)
        new = Batch(values, self.names if len(values) == len(self) else ())
        for name in _ATTRIBUTES[1:]:
            setattr(new, name, getattr(self, name))
        return new

    def to(self, *args: Any, **kwargs: Any) -> Batch:
        """``tensor.to(...)`` for every tensor; a dtype changes floating-point fields only."""
        if not any(hasattr(value, "to") for value in self):
            raise UsageError("to() needs torch tensors; make the loader with output='torch'")
        return self.map(lambda value: _moved(value, args, kwargs))

    def pin_memory(self, device: Any = None) -> Batch:
        """A copy in page-locked memory."""
        return self.map(lambda value: value.pin_memory() if hasattr(value, "pin_memory") else value)

    def __reduce__(self) -> tuple[Any, ...]:
        state = None if self._state is None else self.state_dict()
        place = (self.sample_ids, self.valid, self.epoch, self.step, state)
        return _rebuild, (tuple(self), self.names, place)


def _rebuild(values: tuple[Any, ...], names: tuple[str, ...], place: tuple[Any, ...]) -> Batch:
    sample_ids, valid, epoch, step, state = place
    return Batch(
        values, names, sample_ids=sample_ids, valid=valid, epoch=epoch, step=step, state=state
    )


def _moved(value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not hasattr(value, "to"):
        return value
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor) and not value.is_floating_point():
        args = tuple(arg for arg in args if not isinstance(arg, torch.dtype))
        kwargs = {name: arg for name, arg in kwargs.items() if name != "dtype"}
        if not args and not kwargs:
            return value
    return value.to(*args, **kwargs)


def _shown(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return f"{type(value).__name__} of {len(value)}" if hasattr(value, "__len__") else repr(value)


class _Place:
    """What a flattened batch keeps; equal to that of any batch with the same fields."""

    def __init__(self, batch: Batch) -> None:
        self.empty = batch.replace([None] * len(batch))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Place) and self.empty.names == other.empty.names

    def __hash__(self) -> int:
        return hash(self.empty.names)


_is_registered = False


def register_with_torch() -> None:
    """Make Batch a pytree of torch, and one that ``torch.load`` trusts. Once per process."""
    global _is_registered
    if _is_registered:
        return
    _is_registered = True
    import torch
    from torch.utils import _pytree

    _pytree.register_pytree_node(
        Batch,
        lambda batch: (list(batch), _Place(batch)),
        lambda values, place: place.empty.replace(values),
        serialized_type_name="penstock.Batch",
        flatten_with_keys_fn=lambda batch: (
            [(_pytree.SequenceKey(i), value) for i, value in enumerate(batch)],
            _Place(batch),
        ),
    )
    if hasattr(torch.serialization, "add_safe_globals"):
        torch.serialization.add_safe_globals([Batch, _rebuild])
