"""One attached stream of batches, kept going when the daemon dies.

A session stands at a cursor: the place in the order where the next batch begins. Whatever
happens to the daemon, the next batch taken begins there.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ._client import Client
from ._link import Link
from ._log import log_once, logger
from ._ring import SLOT_ERROR, BatchInfo, Lease, Ring
from ._state import Cursor
from ._tensors import BatchReader, Prepared
from ._wire import Disconnected
from .batch import Batch
from .errors import DaemonError, Error, ProtocolError, WaitTimeoutError, error_from

_SPIN_US = 20
_SLICE_MS = 100
_ATTEMPTS_MAX = 5


class Session:
    """Attach, take batches, seek; and attach again when the daemon is gone.

    `members` are those of the request "attach" but epoch, position and subset; `indices` those of
    the subset. One thread at a time.
    """

    def __init__(
        self,
        link: Link,
        members: dict[str, Any],
        indices: np.ndarray | None,
        output: str,
        on_ring: Callable[[Ring], object] | None = None,
    ) -> None:
        """`on_ring`: called with each ring that is attached, before it is used."""
        self._link = link
        self._members = members
        self._indices = indices
        self._output = output
        self._on_ring = on_ring
        self._client: Client | None = None
        self._ring: Ring | None = None
        self._reader: BatchReader | None = None
        self._bases: dict[int, int] = {}  # slots that have held a batch, and where they are
        self._prepared: dict[int, Prepared] = {}
        self._cursor = Cursor(0)
        self._is_exact = False  # whether the stream's next batch is known to begin at the cursor
        self._pid = 0
        self._places = 0  # samples of a full batch
        self._may_drop = members["tail"] == "drop"
        self.slots = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The names of a batch's fields; only after `open_at`."""
        assert self._reader is not None
        return self._reader.names

    def open_at(self, cursor: Cursor) -> bool:
        """Make `cursor` the place of the next batch; nothing is discarded if it is already.

        False when the epoch has no batch from there on.
        """
        place = (cursor.epoch, cursor.position)
        is_there = self._is_exact and place == (self._cursor.epoch, self._cursor.position)
        self._cursor = cursor
        if self._ring is None or self._client is None or self._is_forked():
            return self._attach_again()
        if self._client.peer_is_gone():
            return self._attach_again(failures=1)
        return is_there or self._seek()

    def take(self, timeout_seconds: float = 0) -> tuple[Batch, BatchInfo, Cursor]:
        """The next batch, and the place behind it.

        Raises what the daemon reports, WaitTimeoutError, DaemonError.
        """
        if not self._is_exact:
            self.open_at(self._cursor)  # an interrupt came between taking and accounting
        deadline = time.monotonic() + timeout_seconds if timeout_seconds > 0 else None
        failures = 0
        lease = Lease()
        while self._is_forked() or not self._next(lease, deadline, timeout_seconds):
            failures += 0 if self._is_forked() else 1
            self._attach_again(failures)
        assert self._ring is not None
        info = self._ring.batch()
        if info.kind == SLOT_ERROR:
            raise error_from(*self._ring.error())
        batch = self._read(info, lease)
        batch.epoch, batch.step = info.epoch, info.step
        self._cursor = cursor = Cursor(
            info.next_epoch, info.next_position, info.next_window_ordinal, info.next_window_first
        )
        self._is_exact = True
        return batch, info, cursor

    def _read(self, info: BatchInfo, lease: Lease) -> Batch:
        assert self._reader is not None
        if info.held_count >= self.slots:  # keeping this one would leave the daemon without any
            log_once(
                logging.WARNING,
                f"all {self.slots} batch slots are held by tensors that are still alive; batches "
                "are copied while that is so; raise prefetch_factor, or keep fewer",
            )
            return self._reader.read(info, lease, copy=True)
        slot = info.slot_index
        prepared = self._prepared.get(slot)
        if prepared is not None and prepared.count == info.place_count:
            del self._prepared[slot]
            return prepared.take(lease)
        self._bases[slot] = info.base
        return self._reader.read(info, lease, copy=False)

    def _prepare(self) -> None:
        """Make ahead what the next batch will need, wherever it comes; nobody waits for this."""
        assert self._reader is not None
        for slot, base in self._bases.items():
            if slot not in self._prepared:
                self._prepared[slot] = self._reader.prepare(base, self._places)

    def _next(self, lease: Lease, deadline: float | None, timeout_seconds: float) -> bool:
        """Let `lease` hold the next batch; False when the daemon is gone and none is left."""
        ring, client = self._ring, self._client
        if ring is None or client is None:
            return False
        self._is_exact = False
        if ring.take(lease, 0, 0):
            return True
        self._prepare()
        is_there = ring.take(lease, _SPIN_US, _SLICE_MS)
        while not is_there:
            if client.peer_is_gone():
                # What was published before is still there, and still right.
                return ring.take(lease, 0, 0)
            if deadline is not None and time.monotonic() > deadline:
                self._is_exact = True
                raise WaitTimeoutError(
                    f"no batch within timeout={timeout_seconds:g} s; raise timeout=, or see "
                    "stats()['limited_by'] and 'penstock status' for what is slow"
                )
            is_there = ring.take(lease, 0, _SLICE_MS)
        return True

    def has_batch(self) -> bool:
        """Whether `take` would give one at once."""
        is_ours = self._ring is not None and not self._is_forked()
        return is_ours and self._ring.describe().ready_count > 0

    def _is_forked(self) -> bool:
        return os.getpid() != self._pid

    def _seek(self) -> bool:
        assert self._ring is not None and self._client is not None
        self._is_exact = False
        try:
            answer = self._client.request(
                "seek",
                epoch=self._cursor.epoch,
                position=self._cursor.position,
                window_ordinal=self._cursor.window_ordinal,
                window_first=self._cursor.window_first,
                taken=self._ring.describe().taken_count,
            )
        except (Disconnected, Error) as error:
            logger.debug("seek: %s", error)
            return self._attach_again()
        self._ring.rewind()
        self._is_exact = True
        if answer["batches_left"] is None and self._cursor.position > 0 and self._may_drop:
            # Shards are unknown, so the place may lie in the tail that is left out: then batches
            # of the next epoch would come. Attaching waits until that is known.
            return self._attach_again()
        return answer["batches_left"] != 0

    def _attach_again(self, failures: int = 0) -> bool:
        """Attach at the cursor, with a new daemon if there is none; as `open_at` returns.

        `failures`: how often in a row the daemon has gone without giving a batch.
        """
        is_loss = failures > 0
        started = time.monotonic()
        while True:
            if failures > _ATTEMPTS_MAX:
                raise DaemonError(
                    f"the daemon went away {failures} times in a row at epoch "
                    f"{self._cursor.epoch}, position {self._cursor.position}; see its log"
                    f"{self._client.log_hint() if self._client is not None else ''}"
                )
            try:
                batches_left = self._attach()
                break
            except Disconnected as error:
                logger.debug("attach: %s", error)
                failures += 1
        if is_loss:
            logger.warning(
                "the daemon was gone; attached again after %.2f s, going on at epoch %d, "
                "position %d",
                time.monotonic() - started,
                self._cursor.epoch,
                self._cursor.position,
            )
        return batches_left != 0

    def _attach(self) -> int | None:
        self.close()
        client = self._link.get()
        if client.has_session:
            client = self._link.renew()
        client.has_session = True
        self._client = client
        members = {
            **self._members,
            "epoch": self._cursor.epoch,
            "position": self._cursor.position,
            "window_ordinal": self._cursor.window_ordinal,
            "window_first": self._cursor.window_first,
        }
        with subset_file(self._indices) as send_fds:
            answer, fds = client.request_fds(
                "attach", send_fds=send_fds, subset=bool(send_fds), **members
            )
        if len(fds) != 2:
            for fd in fds:
                os.close(fd)
            raise ProtocolError(
                f"attach came with {len(fds)} descriptors instead of 2; raise the limit of open "
                "files (ulimit -n), or restart the daemon"
            )
        self._ring = Ring(fds[0], fds[1], answer["region_bytes"])
        if self._on_ring is not None:
            self._on_ring(self._ring)
        self._reader = BatchReader(answer["fields"], self._output)
        self._places = answer["places"]
        self._pid = os.getpid()
        self._is_exact = True
        self.slots = answer["slots"]
        return answer["batches_left"]

    def stats(self) -> dict[str, Any] | None:
        """The daemon's counters of this session; None while there is none."""
        if self._ring is None or self._client is None or self._is_forked():
            return None
        try:
            return self._client.request("stats")
        except (Disconnected, Error):
            return None

    def close(self) -> None:
        """Give the ring back; batches that are still held stay valid. May be called again."""
        self._is_exact = False
        self._bases, self._prepared = {}, {}
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        self._client = None


class subset_file:
    """A memfd with the indices of a subset, open while in the ``with`` block: [fd] or []."""

    def __init__(self, indices: np.ndarray | None) -> None:
        self._indices = indices
        self._fds: list[int] = []

    def __enter__(self) -> list[int]:
        if self._indices is not None:
            fd = os.memfd_create("penstock-subset", os.MFD_CLOEXEC)
            self._fds = [fd]
            with os.fdopen(os.dup(fd), "wb") as file:
                file.write(self._indices.astype("<u8", copy=False).tobytes())
        return self._fds

    def __exit__(self, *exc: object) -> None:
        for fd in self._fds:
            os.close(fd)
