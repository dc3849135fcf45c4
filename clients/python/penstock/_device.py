"""device="cuda": batches go to the GPU as bytes and are finished there.

    slot of the ring --copy, side stream--> staging buffer --kernel, consumer's stream--> tensor

The daemon ships uint8, channels last; types, normalisation and layout are made on the GPU, in the
arithmetic of the daemon. There are two staging buffers, so the next batch is copied while the last
one trains. What comes out is of torch's allocator and of the consumer's own stream: it may live as
long as the user likes, and the memory of a batch that is gone is used again in that stream's
order, however far ahead of the GPU the host is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._cuda import DTYPES, Cuda, Packer, Transfer, find_cuda, own_device, pin_ring
from ._ring import BatchInfo
from ._session import Session
from ._settings import Settings
from ._state import Cursor
from ._tensors import COPY_BYTES_BELOW
from .batch import Batch
from .errors import Error

_STAGING_COUNT = 2
_ALIGNMENT_BYTES = 256


@dataclass(frozen=True)
class Finish:
    """What becomes of the bytes: ToDtype and Normalize, as decode/pack.h has them."""

    dtype: str
    scale: bool
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    is_planar: bool


def split_recipe(
    recipe: list[dict[str, Any]], layout: str
) -> tuple[list[dict[str, Any]], Finish] | None:
    """What the daemon does on bytes, and what is left for the GPU.

    None for what the daemon would refuse: it gets the whole list and says why.
    """
    dtype, scale, mean, std = "uint8", False, None, None
    for step in recipe:
        if step["op"] == "ToDtype" and step["dtype"] != dtype:
            if dtype not in ("uint8", "float32") or step["dtype"] == "uint8":
                return None
            scale = step["scale"] if dtype == "uint8" else scale
            dtype = step["dtype"]
        elif step["op"] == "Normalize":
            if mean is not None or 0 in step["std"]:
                return None
            if dtype == "uint8":
                dtype, scale = "float32", True
            mean, std = tuple(step["mean"]), tuple(step["std"])
    geometry = [step for step in recipe if step["op"] not in ("ToDtype", "Normalize")]
    return geometry, Finish(dtype, scale, mean, std, is_planar=layout == "nchw")


class TorchPlace:
    """Memory and streams of one GPU, by torch."""

    def __init__(self, number: int) -> None:
        import torch

        self.torch = torch
        self.number = number
        self.device = torch.device("cuda", number)
        # High priority: the kernels of a step leave room for copies soon, not at the step's end.
        self._side = torch.cuda.Stream(self.device, priority=-1)

    def side_stream(self) -> int:
        return self._side.cuda_stream

    def stream(self) -> int:
        """The one that the consumer uses now."""
        return self.torch.cuda.current_stream(self.device).cuda_stream

    def staging(self, size_bytes: int) -> Any:
        """Bytes that belong to the side stream."""
        with self.torch.cuda.stream(self._side):
            return self.torch.empty(size_bytes, dtype=self.torch.uint8, device=self.device)

    def give_back(self, staging: Any) -> None:
        """Staging that the consumer's stream may still read."""
        staging.record_stream(self.torch.cuda.current_stream(self.device))

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """A tensor that belongs to the consumer's stream."""
        return self.torch.empty(shape, dtype=getattr(self.torch, dtype), device=self.device)

    def move(self, tensor: Any) -> Any:
        """A tensor that is no picture. A small one is in memory of its own; a larger one is in the
        slot, which must not go back while it is copied."""
        is_own = tensor.numel() * tensor.element_size() < COPY_BYTES_BELOW
        return tensor.to(self.device, non_blocking=is_own)


@dataclass
class _Buffer:
    """A staging buffer; `held` is what copies are under way from."""

    transfer: Transfer
    memory: Any = None
    held: Batch | None = None

    def settle(self, must_wait: bool) -> None:
        """Let go of the slot, once its bytes are on the GPU."""
        if self.held is not None and self.transfer.is_copied(must_wait):
            self.held = None


@dataclass
class _Staged:
    """A batch on its way, with what the session said of it."""

    batch: Batch
    info: BatchInfo
    cursor: Cursor
    buffer: _Buffer
    has_mask: bool


class DeviceSession:
    """A Session whose batches come on the GPU; it is one batch ahead. One thread at a time."""

    is_on_device = True

    def __init__(
        self, session: Session, place: TorchPlace, cuda: Cuda, packer: Packer | None, finish: Finish
    ) -> None:
        self._session = session
        self._place = place
        self._packer = packer
        self._finish = finish
        self._buffers = [_Buffer(Transfer(cuda, place.number)) for _ in range(_STAGING_COUNT)]
        self._turn = 0
        self._staged: _Staged | Error | None = None  # an error is raised when its turn comes
        self._cursor = Cursor(0)  # where the next batch begins that the user gets
        self._is_exact = False  # whether the session, or what is staged, stands there
        self._constants: list[Any] = []

    @property
    def names(self) -> tuple[str, ...]:
        return self._session.names

    @property
    def slots(self) -> int:
        return self._session.slots

    def open_at(self, cursor: Cursor) -> bool:
        """As Session.open_at: nothing is discarded if the next batch begins there already."""
        is_there = (cursor.epoch, cursor.position) == (self._cursor.epoch, self._cursor.position)
        self._cursor = cursor
        if self._staged is not None and self._is_exact and is_there:
            return True
        self._staged = None
        has_batches = self._session.open_at(cursor)
        self._is_exact = True
        return has_batches

    def take(self, timeout_seconds: float = 0) -> tuple[Batch, BatchInfo, Cursor]:
        """The next batch on the GPU. Raises what Session.take raises, DeviceError."""
        for buffer in self._buffers:
            buffer.settle(must_wait=False)
        if not self._is_exact:  # an interrupt came between taking and accounting
            self._staged = None
            self._session.open_at(self._cursor)
        self._is_exact = False
        staged, self._staged = self._staged, None
        if isinstance(staged, Error):
            raise staged
        if staged is None:
            staged = self._stage(timeout_seconds)
        batch = self._finished(staged)
        if not staged.info.is_last and self._session.has_batch():
            try:
                self._staged = self._stage(0)
            except Error as error:
                self._staged = error
        self._cursor = staged.cursor
        self._is_exact = True
        return batch, staged.info, staged.cursor

    def _stage(self, timeout_seconds: float) -> _Staged:
        """Take a batch and start its copies."""
        buffer = self._buffers[self._turn]
        buffer.settle(must_wait=True)
        batch, info, cursor = self._session.take(timeout_seconds)
        self._turn = (self._turn + 1) % len(self._buffers)
        image = _bytes_of(batch[self._image_place(batch)])
        has_mask = info.valid_count < info.place_count
        mask_at = -(-image.numel() // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        size = mask_at + info.place_count
        if buffer.memory is None or buffer.memory.numel() < size:
            if buffer.memory is not None:
                self._place.give_back(buffer.memory)
            buffer.memory = self._place.staging(size)
        target = buffer.memory.data_ptr()
        copies = [(image.data_ptr(), target, image.numel())]
        if has_mask:
            copies.append((batch.valid.data_ptr(), target + mask_at, info.place_count))
        buffer.held = batch
        buffer.transfer.copy(self._place.side_stream(), copies)
        return _Staged(batch, info, cursor, buffer, has_mask)

    @staticmethod
    def _image_place(batch: Batch) -> int:
        return next(i for i, value in enumerate(batch) if getattr(value, "ndim", 0) == 4)

    def _finished(self, staged: _Staged) -> Batch:
        """The batch of the consumer's stream."""
        stream = self._place.stream()
        buffer, batch = staged.buffer, staged.batch
        image_place = self._image_place(batch)
        count, channels, height, width = batch[image_place].shape
        image_bytes = count * channels * height * width
        buffer.transfer.hand_over(stream)
        if self._packer is not None:
            image = self._packed(self._packer, staged, (count, channels, height, width), stream)
        else:
            pixels = buffer.memory[:image_bytes].view(count, height, width, channels)
            image = self._computed(pixels.permute(0, 3, 1, 2), batch, staged.has_mask)
        buffer.transfer.note_read(stream)
        values = [value if not hasattr(value, "to") else None for value in batch]
        for i, value in enumerate(batch):
            if i == image_place:
                values[i] = image
            elif values[i] is None:
                values[i] = self._place.move(value)
        return batch.replace(values)

    def _packed(
        self, packer: Packer, staged: _Staged, shape: tuple[int, int, int, int], stream: int
    ) -> Any:
        finish = self._finish
        count, channels, height, width = shape
        is_planar = finish.is_planar
        image = self._place.empty(shape if is_planar else (count, height, width, 3), finish.dtype)
        source = staged.buffer.memory.data_ptr()
        image_bytes = count * channels * height * width
        mask_at = -(-image_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        packer.launch(
            stream,
            source=source,
            target=image.data_ptr(),
            is_valid=source + mask_at if staged.has_mask else 0,
            picture_count=count,
            pixel_count=height * width,
            dtype=DTYPES[finish.dtype],
            is_planar=is_planar,
            scale=finish.scale,
            normalize=finish.mean is not None,
            mean=finish.mean or (0.0,) * 3,
            std=finish.std or (1.0,) * 3,
        )
        return image if is_planar else image.permute(0, 3, 1, 2)

    def _computed(self, pixels: Any, batch: Batch, has_mask: bool) -> Any:
        """The same by torch. Division is by a tensor: torch multiplies by a number's inverse."""
        torch, finish = self._place.torch, self._finish
        form = torch.contiguous_format if finish.is_planar else torch.channels_last
        dtype = torch.uint8 if finish.dtype == "uint8" else torch.float32
        image = torch.empty_like(pixels, dtype=dtype, memory_format=form).copy_(pixels)
        if finish.scale:
            image.mul_(1.0 / 255.0)
        if finish.mean is not None:
            if not self._constants:
                self._constants = [
                    torch.tensor(values, dtype=dtype, device=image.device).view(3, 1, 1)
                    for values in (finish.mean, finish.std)
                ]
            mean, std = self._constants
            image.sub_(mean).div_(std)
        image = image.to(getattr(torch, finish.dtype))
        if has_mask:
            for place in (~batch.valid).nonzero().flatten().tolist():
                image[place].zero_()
        return image

    def stats(self) -> dict[str, Any] | None:
        return self._session.stats()

    def close(self) -> None:
        """As Session.close; batches that are still held stay valid."""
        self._staged = None
        self._is_exact = False
        for buffer in self._buffers:
            buffer.settle(must_wait=True)
            if buffer.memory is not None:
                self._place.give_back(buffer.memory)
                buffer.memory = None
        self._session.close()


def _bytes_of(image: Any) -> Any:
    """A uint8 tensor of shape NCHW over NHWC memory as the bytes in their order."""
    return image.permute(0, 2, 3, 1).reshape(-1)


def open_session(
    link: Any, members: dict[str, Any], indices: Any, settings: Settings
) -> Session | DeviceSession:
    """The session that `settings` ask for: with batches in host memory or on a GPU."""
    split = None
    if settings.device is not None and settings.device.type == "cuda" and find_cuda().is_there:
        split = split_recipe(settings.recipe, settings.layout)
    if split is None:
        return Session(link, members, indices, settings.output)
    import torch

    number = own_device(torch, settings.device.index)
    geometry, finish = split
    session = Session(
        link,
        {**members, "transforms": geometry, "layout": "nhwc"},
        indices,
        settings.output,
        on_ring=lambda ring: pin_ring(ring, number),
    )
    cuda = find_cuda()
    packer = Packer.load(cuda, number)
    return DeviceSession(session, TorchPlace(number), cuda, packer, finish)
