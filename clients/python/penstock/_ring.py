"""libpenstock from Python: the ring of batches and the leases on its slots."""

from __future__ import annotations

import functools
import operator
import os
import struct
from collections import namedtuple
from typing import Any

from ._log import logger
from .errors import DaemonError, OutOfMemoryError, ProtocolError

try:
    from ._native import ffi, lib
except ImportError as error:  # pragma: no cover - a broken installation
    raise ImportError(
        f"penstock's compiled part is missing ({error}); install the package with "
        "'pip install .' in its checkout"
    ) from error

SLOT_ERROR = 1

_CODES = {"uint32_t": "I", "uint64_t": "Q"}


def _numbers_of(type_name: str) -> tuple[type, struct.Struct]:
    """A named tuple for a C struct of numbers and pointers, and what unpacks one.

    Looking at the members one by one takes longer, and longest in a loop that waits for a batch.
    """
    fields = ffi.typeof(type_name).fields
    codes = "@"
    for _name, field in fields:
        codes += _CODES.get(field.type.cname, "P")
        assert struct.calcsize(codes) == field.offset + ffi.sizeof(field.type)
    return namedtuple(type_name, [name for name, _field in fields]), struct.Struct(codes)


#: struct penstock_batch_info; pointers are numbers.
BatchInfo, _BATCH_INFO = _numbers_of("penstock_batch_info")


# Python runs signal handlers between any two steps of Python code, and drops exceptions that leave
# a finalizer. A Ctrl-C that came while a batch is let go, where a busy process spends much of its
# time, would be lost if a finalizer had a single such step: those here are C throughout.


class Lease:
    """A hold on one slot; it lasts until nobody refers to this object any more.

    Made before there is a slot to hold, so that an exception out of a signal handler, which may
    come right after the slot was taken, loses none.
    """

    __slots__ = ("cell",)

    def __init__(self) -> None:
        #: penstock_lease **: NULL is in it while nothing is held.
        self.cell = ffi.gc(ffi.new("penstock_lease **"), lib.penstock_lease_clear)


def memory(address: int, size_bytes: int, holder: object) -> Any:
    """A writable buffer of what is at `address`, which keeps `holder` alive."""
    # What is called in the end does nothing; that it is kept until then is all it is for.
    owned = ffi.gc(pointer(address), functools.partial(operator.is_, holder))
    return ffi.buffer(owned, size_bytes)


def glance(address: int, size_bytes: int) -> Any:
    """The same for reading at once: it keeps nothing."""
    return ffi.buffer(pointer(address), size_bytes)


def pointer(address: int) -> Any:
    """``uint8_t *``; keeps nothing."""
    return ffi.cast("uint8_t *", address)


class Ring:
    """The mapped ring of one session. `take` from one thread at a time."""

    def __init__(self, memory_fd: int, release_fd: int, region_bytes: int) -> None:
        """Owns both descriptors from here on, also when it fails."""
        result = ffi.new("penstock_ring **")
        status = lib.penstock_ring_open(memory_fd, release_fd, region_bytes, result)
        if status != lib.PENSTOCK_OK:
            number = ffi.errno
            os.close(memory_fd)
            os.close(release_fd)
            raise _open_error(status, number, region_bytes)
        self._handle = ffi.gc(result[0], lib.penstock_ring_close)
        self._info = ffi.new("penstock_ring_info *")
        self._batch = ffi.new("penstock_batch_info *")
        self._batch_bytes = ffi.buffer(self._batch)

    def take(self, lease: Lease, spin_us: int, timeout_ms: int) -> bool:
        """Let `lease` hold the next batch; False after the time, or after a signal.

        Waits without the GIL.
        """
        status = lib.penstock_ring_next(self._handle, spin_us, timeout_ms, lease.cell, self._batch)
        if status == lib.PENSTOCK_OK:
            return True
        if status == lib.PENSTOCK_TIMED_OUT:
            return False
        if status == lib.PENSTOCK_NO_MEMORY:
            raise OutOfMemoryError("no memory for a batch's record; free some memory")
        raise DaemonError(f"the ring cannot be read (status {status}); make the loader anew")

    def batch(self) -> BatchInfo:
        """What was taken last."""
        return BatchInfo._make(_BATCH_INFO.unpack_from(self._batch_bytes))

    def error(self) -> tuple[str, str]:
        """Kind and text, if that was an error; only while its lease lasts."""
        kind = ffi.string(self._batch.error_kind).decode(errors="replace")
        return kind, ffi.string(self._batch.error_text).decode(errors="replace")

    @property
    def handle(self) -> Any:
        """``penstock_ring *``, while it is open."""
        return self._handle

    def rewind(self) -> None:
        """Begin the new stream after a seek that the daemon acknowledged."""
        lib.penstock_ring_rewind(self._handle)

    def describe(self) -> Any:
        """struct penstock_ring_info, overwritten by the next call."""
        lib.penstock_ring_describe(self._handle, self._info)
        return self._info

    def close(self) -> None:
        """Drop the handle; leases stay valid. May be called again."""
        handle, self._handle = self._handle, None
        if handle is not None:
            ffi.release(handle)


def _open_error(status: int, number: int, region_bytes: int) -> Exception:
    if status == lib.PENSTOCK_INCOMPATIBLE:
        return ProtocolError(
            "the daemon's ring has another layout than this client's; install the same version of "
            "both and restart the daemon"
        )
    if status == lib.PENSTOCK_NO_MEMORY:
        return OutOfMemoryError(
            f"no memory to map a ring of {region_bytes} bytes; lower batch_size or prefetch_factor"
        )
    logger.debug("penstock_ring_open: status %d, errno %d", status, number)
    return DaemonError(
        f"the daemon's ring of {region_bytes} bytes cannot be mapped: {os.strerror(number)}; "
        "restart the daemon"
    )
