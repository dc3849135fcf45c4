"""libpenstock's CUDA from Python: the pinned ring, transfers and the kernel (penstock_cuda.h)."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from typing import Any

from ._log import log_once
from ._ring import Ring, ffi, lib
from .errors import DeviceError

#: The kernel, built by clients/cuda where nvcc was found.
IMAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_cuda", "pack.fatbin")

DTYPES = {"uint8": 1, "float32": 2, "float16": 3, "bfloat16": 4}


class Cuda:
    """The CUDA runtime of this process. `is_there` False: `error()` says what is missing."""

    def __init__(self) -> None:
        result = ffi.new("penstock_cuda **")
        self.is_there = lib.penstock_cuda_open(result) == lib.PENSTOCK_OK
        self.handle = result[0]  # lasts as long as the process: transfers refer to it to the end

    def error(self) -> str:
        return ffi.string(lib.penstock_cuda_error(self.handle)).decode(errors="replace")

    def check(self, status: int) -> None:
        if status != lib.PENSTOCK_OK:
            raise DeviceError(
                f"batches cannot go to the GPU: {self.error() or f'status {status}'}; see "
                "'penstock doctor', or leave device= out and move batches yourself"
            )


@lru_cache(maxsize=4)
def _cuda_of(_pid: int) -> Cuda:
    return Cuda()


def find_cuda() -> Cuda:
    """One per process; a forked child gets its own."""
    return _cuda_of(os.getpid())


def own_device(torch: Any, wanted: int | None = None) -> int:
    """The number of this rank's GPU: `wanted`, else the current one, else LOCAL_RANK's.

    A current device 0 may only mean that nobody has chosen yet: then LOCAL_RANK says it.
    """
    if wanted is not None:
        return wanted
    current = torch.cuda.current_device() if torch.cuda.is_initialized() else 0
    local_rank = os.environ.get("LOCAL_RANK", "")
    if current == 0 and local_rank.isdigit() and int(local_rank) < torch.cuda.device_count():
        return int(local_rank)
    return current


def pin_ring(ring: Ring, device: int) -> bool:
    """Page-lock the ring for copies to any GPU; without success all goes on, said once."""
    cuda = find_cuda()
    if cuda.is_there and lib.penstock_ring_pin(ring.handle, cuda.handle, device) == lib.PENSTOCK_OK:
        return True
    log_once(
        logging.WARNING,
        f"batches are not in pinned memory, so copies to the GPU take longer: {cuda.error()}",
    )
    return False


class Transfer:
    """Copies into one staging buffer, and who waits for whom. One thread at a time."""

    def __init__(self, cuda: Cuda, device: int) -> None:
        result = ffi.new("penstock_transfer **")
        cuda.check(lib.penstock_transfer_create(cuda.handle, device, result))
        self._cuda = cuda
        self._handle = ffi.gc(result[0], lib.penstock_transfer_destroy)
        self._copies = ffi.new("penstock_copy[2]")

    def copy(self, stream: int, copies: list[tuple[int, int, int]]) -> None:
        """`copies`: at most two of (address in host memory, address on the device, bytes)."""
        for place, (source, target, size_bytes) in enumerate(copies):
            self._copies[place].source = ffi.cast("void *", source)
            self._copies[place].target = target
            self._copies[place].bytes = size_bytes
        self._cuda.check(
            lib.penstock_transfer_copy(self._handle, stream, self._copies, len(copies))
        )

    def hand_over(self, stream: int) -> None:
        self._cuda.check(lib.penstock_transfer_hand_over(self._handle, stream))

    def note_read(self, stream: int) -> None:
        self._cuda.check(lib.penstock_transfer_note_read(self._handle, stream))

    def is_copied(self, must_wait: bool = False) -> bool:
        """Whether the host memory of the last copies is free again. Waits without the GIL."""
        status = lib.penstock_transfer_is_copied(self._handle, must_wait)
        if status == lib.PENSTOCK_TIMED_OUT:
            return False
        self._cuda.check(status)
        return True

    def close(self) -> None:
        """Waits for copies that are under way."""
        ffi.release(self._handle)


class Packer:
    """The kernel of clients/cuda/pack.cu on one device."""

    def __init__(self, cuda: Cuda, handle: Any) -> None:
        self._cuda = cuda
        self._handle = ffi.gc(handle, lib.penstock_packer_destroy)
        self._pack = ffi.new("penstock_pack *")

    @classmethod
    def load(cls, cuda: Cuda, device: int, path: str = IMAGE) -> Packer | None:
        """None where it was not built, or the driver cannot run it: torch does its work then."""
        if not os.path.exists(path):
            return None
        with open(path, "rb") as file:
            image = ffi.from_buffer(file.read())
        result = ffi.new("penstock_packer **")
        status = lib.penstock_packer_create(cuda.handle, device, image, result)
        if status == lib.PENSTOCK_INVALID:
            log_once(logging.INFO, f"torch finishes the batches on the GPU: {cuda.error()}")
            return None
        cuda.check(status)
        return cls(cuda, result[0])

    def launch(self, stream: int, **members: Any) -> None:
        """`members`: all of struct penstock_pack."""
        for name, value in members.items():
            setattr(self._pack, name, value)
        self._cuda.check(lib.penstock_packer_launch(self._handle, stream, self._pack))
