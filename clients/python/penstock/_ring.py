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

READY = lib.PENSTOCK_OK
TIMED_OUT = lib.PENSTOCK_TIMED_OUT
FORKED = lib.PENSTOCK_FORKED

SLOT_ERROR = 1


class Lease:
    """A hold on one slot; it lasts until nobody refers to this object any more."""

    __slots__ = ("_handle", "info")

    def __init__(self, handle: Any) -> None:
        self._handle = ffi.gc(handle, lib.penstock_lease_unref)
        #: struct penstock_batch_info, valid as long as this object.
        self.info = ffi.new("penstock_batch_info *")
        lib.penstock_lease_describe(handle, self.info)

    def memory(self, offset_bytes: int, size_bytes: int) -> Any:
        """A writable buffer over part of the slot, which keeps this lease alive."""
        pointer = ffi.gc(self.info.base + offset_bytes, lambda _pointer, _lease=self: None)
        return ffi.buffer(pointer, size_bytes)

    def glance(self, offset_bytes: int, size_bytes: int) -> Any:
        """The same for reading at once: it does not keep the lease."""
        return ffi.buffer(self.info.base + offset_bytes, size_bytes)

    def error(self) -> tuple[str, str]:
        """Kind and text of a slot that holds an error."""
        kind = ffi.string(self.info.error_kind).decode(errors="replace")
        return kind, ffi.string(self.info.error_text).decode(errors="replace")


class Ring:
    """The mapped ring of one session. `take` and `wait` from one thread at a time."""

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

    def wait(self, spin_us: int, timeout_ms: int) -> int:
        """READY, TIMED_OUT (also after a signal) or FORKED; runs without the GIL."""
        return lib.penstock_ring_wait(self._handle, spin_us, timeout_ms)

    def take(self) -> Lease | None:
        """The next batch, None when there is none."""
        result = ffi.new("penstock_lease **")
        status = lib.penstock_ring_take(self._handle, result)
        if status == lib.PENSTOCK_OK:
            return Lease(result[0])
        if status == lib.PENSTOCK_TIMED_OUT:
            return None
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
