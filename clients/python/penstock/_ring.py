"""libpenstock from Python: the ring of batches and the leases on its slots."""

from __future__ import annotations

import os
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


def _unref(cell: Any, unref: Any = lib.penstock_lease_unref) -> None:
    unref(cell[0])


class Lease:
    """A hold on one slot; it lasts until nobody refers to this object any more.

    Made before there is a slot to hold, so that an exception out of a signal handler, which may
    come right after the slot was taken, loses none.
    """

    __slots__ = ("cell",)

    def __init__(self) -> None:
        #: penstock_lease **: NULL is in it while nothing is held.
        self.cell = ffi.gc(ffi.new("penstock_lease **"), _unref)


def memory(pointer: Any, size_bytes: int, holder: object) -> Any:
    """A writable buffer of what a ``uint8_t *`` points to, which keeps `holder` alive."""
    owned = ffi.gc(pointer, lambda _pointer, _holder=holder: None)
    return ffi.buffer(owned, size_bytes)


def glance(pointer: Any, size_bytes: int) -> Any:
    """The same for reading at once: it keeps nothing."""
    return ffi.buffer(pointer, size_bytes)


def error_of(batch: Any) -> tuple[str, str]:
    """Kind and text of a slot that holds an error (struct penstock_batch_info)."""
    kind = ffi.string(batch.error_kind).decode(errors="replace")
    return kind, ffi.string(batch.error_text).decode(errors="replace")


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
        #: struct penstock_batch_info of the batch taken last; its texts last as long as the lease.
        self.batch = ffi.new("penstock_batch_info *")

    def take(self, lease: Lease, spin_us: int, timeout_ms: int) -> bool:
        """Let `lease` hold the next batch; False after the time, or after a signal.

        Waits without the GIL.
        """
        status = lib.penstock_ring_next(self._handle, spin_us, timeout_ms, lease.cell, self.batch)
        if status == lib.PENSTOCK_OK:
            return True
        if status == lib.PENSTOCK_TIMED_OUT:
            return False
        if status == lib.PENSTOCK_NO_MEMORY:
            raise OutOfMemoryError("no memory for a batch's record; free some memory")
        raise DaemonError(f"the ring cannot be read (status {status}); make the loader anew")

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
