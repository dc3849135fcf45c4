"""DataLoader: batches of a data set from the daemon, in place of torch's."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from . import _arguments as arguments
from ._log import log_once, logger
from ._platform import require_linux
from ._ranks import Ranks, launcher_run_id, resolve_ranks
from ._settings import settings_from
from ._state import Cursor, Identity
from ._stats import Meter, Stats
from .batch import Batch, register_with_torch
from .dataset import Dataset
from .errors import (
    DatasetError,
    Error,
    LengthUnknownError,
    StateError,
    TooManyBadSamplesError,
)

#: How old the last look at the versions of remote objects may be when an epoch starts.
VERSIONS_SECONDS = 30.0
#: How often it is asked, where it matters, whether all shards are known meanwhile.
_PLAN_SECONDS = 1.0


class DataLoader:
    """Batches of images and labels, read, decoded and transformed by the Penstock daemon.

    The first arguments are those of ``torch.utils.data.DataLoader``, in its order, with its
    defaults. What would change samples or batches is honoured or refused, never ignored.

    Args:
        dataset: a path, a list of paths, a :class:`Dataset`, a torchvision ``ImageFolder`` (its
            transform is translated), or a torch ``Subset`` of one.
        batch_size: samples per batch and rank.
        shuffle: False: the data set's order; True or "full": all samples in random order;
            "window": `shuffle_window` shards at a time, for tars.
        sampler: torch's SequentialSampler, RandomSampler or DistributedSampler; others, and
            `batch_sampler` and `collate_fn`, are refused.
        num_workers: decode threads that may work for this rank at once; 0 or None: no cap.
        pin_memory: page-locked batches, when there is a CUDA device.
        drop_last: leave out the samples that do not fill a last batch.
        timeout: seconds to wait for a batch, 0: without end; then WaitTimeoutError.
        generator: its initial seed is the seed.
        prefetch_factor: batch slots, at least 3, default 4: batches made ahead and in use.
        worker_init_fn, multiprocessing_context, persistent_workers, pin_memory_device, in_order:
            without effect, as there are no worker processes and batches always come in order.

        transforms: a list of :mod:`penstock.transforms` (or torchvision's); must end in one
            shape. Default: those of the ImageFolder.
        seed: 0 to 2^63 - 1, default 0. Order and augmentation follow from it, the epoch and the
            sample alone.
        device: "cuda", ...: where batches go; default CPU.
        rank, world_size: both or none; default torch.distributed, RANK and WORLD_SIZE, or 0 of 1.
        shard: False gives every rank all samples.
        global_batch_size: instead of `batch_size`: of all ranks together.
        last_batch: "even" (default: the rest is split over the ranks), "pad" (fixed shape, see
            ``batch.valid``) or "drop". No sample counts twice.
        on_error: what a sample that cannot be made does: "raise", "skip" (shorter batch), "zero"
            (zero image, label -100), "replace" (another sample).
        max_errors: share of an epoch's samples, 0 to 1, that may be bad before
            TooManyBadSamplesError ends it.
        output: "torch" or "numpy"; default torch if installed.
        memory_format: "channels_last" for NHWC memory behind the NCHW shape.
        shuffle_window: shards per window of shuffle="window".
        prepare, quality: "auto" or "off", "exact" or "fast"; this version always decodes exactly.
        address: unix socket of a daemon; default ``$PENSTOCK_ADDRESS``, else the daemon of
            ``penstock serve`` if it runs, else a private one that is started and leaves by itself.
        job: name under which ranks belong together; default from launcher, data set and seed.
        batch_map: function of the finished batch; what it returns is given instead.
        consistency: of remote objects: an epoch sees one version of each, else ObjectChangedError.
            "pinned": looked for replaced ones when an epoch starts, at most every 30 s; "error":
            whenever one starts.

    ``for batch in loader`` is one epoch from its start, except the first after
    :meth:`load_state_dict`. See :class:`penstock.Batch` for what a batch is.

    Raises UsageError, UnsupportedTransformError, DatasetError, DaemonError, PlatformError; while
    iterating SampleError, ReadError, OutOfMemoryError, DaemonError. All are :class:`Error`.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | str | None = None,
        sampler: Any = None,
        batch_sampler: Any = None,
        num_workers: int | None = 0,
        collate_fn: Any = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Any = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
        transforms: Any = None,
        seed: int | None = None,
        device: Any = None,
        rank: int | None = None,
        world_size: int | None = None,
        shard: bool = True,
        global_batch_size: int | None = None,
        last_batch: str | None = None,
        on_error: str = "raise",
        max_errors: float | None = None,
        output: str | None = None,
        memory_format: Any = None,
        shuffle_window: int = 16,
        prepare: str = "auto",
        quality: str = "exact",
        address: str | os.PathLike[str] | None = None,
        job: str | None = None,
        batch_map: Callable[[Any], Any] | None = None,
        consistency: str = "pinned",
    ) -> None:
        given = {name: value for name, value in locals().items() if name != "self"}
        require_linux()
        self._set_idle()
        if not isinstance(dataset, Dataset):
            dataset = Dataset(dataset, address=address)
        self.dataset = dataset
        self._given = {**given, "dataset": dataset}
        self._settings = settings_from(given, dataset)
        self._batch_map = batch_map
        arguments.one_of("consistency", consistency, ("pinned", "error"))
        self._is_strict = consistency == "error"
        self._is_finishing = (
            self._settings.pin_memory or self._settings.device is not None or batch_map is not None
        )
        self._epoch_seen = getattr(self._settings.sampling.epoch_source, "epoch", None)
        self.sampler = _Sampler(self)
        if self._settings.output == "torch":
            register_with_torch()
        self._connect()

    # ---- construction -------------------------------------------------------------------------

    def _set_idle(self) -> None:
        self._lock = threading.RLock()
        self._meter = Meter()
        self._link: Any = None
        self._session: Any = None
        self._ranks: Ranks | None = None
        self._plan: dict[str, Any] = {}
        self._cursor = Cursor(0)
        self._is_resuming = False
        self._pending_epoch: int | None = None
        self._iterator: weakref.ref[_EpochIterator] | None = None
        self._epoch_bad = 0
        self._plan_asked_at = 0.0  # time.monotonic(), while its numbers are unknown
        self._pid = os.getpid()

    def _connect(self) -> None:
        from ._link import Link

        self._link = Link(self._given["address"], self.dataset)
        self._link.get()

    # ---- ranks, length ------------------------------------------------------------------------

    def _find_ranks(self) -> Ranks:
        if not self._settings.shard:
            return Ranks(0, 1)
        return resolve_ranks(self._settings.sampling.rank, self._settings.sampling.world_size)

    def _resolve(self) -> Ranks:
        """Find the rank, once, and what this rank gets; logged."""
        if self._ranks is None:
            ranks = self._find_ranks()
            plan = self._ask_plan(ranks)
            if plan["batches_per_epoch"] == 0:
                batch = self._settings.global_batch(ranks.world)
                raise DatasetError(
                    f"{self.dataset!r}: an epoch of {plan['samples']:,} samples has no batch of "
                    f"{batch:,} (all ranks) with drop_last=True; lower batch_size, or use "
                    "drop_last=False"
                )
            if plan["samples"] is None:
                logger.info(
                    "rank %d of %d: starts before all shards are known", ranks.rank, ranks.world
                )
            else:
                logger.info(
                    "rank %d of %d: %s of %s samples, %s batches per epoch",
                    ranks.rank,
                    ranks.world,
                    f"{plan['rank_samples']:,}",
                    f"{plan['samples']:,}",
                    f"{plan['batches_per_epoch']:,}",
                )
            self._plan, self._ranks = plan, ranks
        return self._ranks

    def _order_members(self, ranks: Ranks) -> dict[str, Any]:
        return {
            "source": self.dataset.source,
            "order": self._settings.sampling.order,
            "window": self._settings.shuffle_window,
            "seed": self._settings.sampling.seed,
            "batch": self._settings.global_batch(ranks.world),
            "rank": ranks.rank,
            "world": ranks.world,
            "tail": self._settings.tail,
        }

    def _ask_plan(self, ranks: Ranks) -> dict[str, Any]:
        from ._session import subset_file

        with subset_file(self.dataset.indices) as send_fds:
            answer, _fds = self._link.request(
                "plan", send_fds=send_fds, subset=bool(send_fds), **self._order_members(ranks)
            )
        return answer

    def _known_plan(self) -> dict[str, Any]:
        """The plan with its numbers; LengthUnknownError while shards are unknown."""
        ranks = self._resolve()
        if self._plan["samples"] is None:
            self._plan = self._ask_plan(ranks)
        if self._plan["samples"] is None:
            raise LengthUnknownError(self.dataset.why_length_is_unknown())
        return self._plan

    def _identity(self) -> Identity:
        return Identity(
            fingerprint=self.dataset.fingerprint,
            samples=self.dataset.known_length,
            order=self._settings.sampling.order,
            shuffle_window=self._settings.shuffle_window,
            seed=self._settings.sampling.seed,
            global_batch_size=self._settings.global_batch(self._ranks.world if self._ranks else 1),
        )

    def __len__(self) -> int:
        """Batches of an epoch, the same on every rank."""
        with self._locked():
            return self._known_plan()["batches_per_epoch"]

    def _rank_samples_nominal(self) -> int:
        """Samples of the data set over ranks; what this rank really has may be fewer by one."""
        with self._locked():
            world = self._resolve().world
            samples = self._known_plan()["samples"]
            return samples // world if self.drop_last else -(-samples // world)

    @property
    def batch_size(self) -> int:
        """Samples per batch of this rank; of the largest rank where they differ by one."""
        settings = self._settings
        if settings.batch_size is not None:
            return settings.batch_size
        world = (self._ranks or self._find_ranks()).world
        return -(-settings.global_batch(world) // world)

    @property
    def batch_sampler(self) -> None:
        """None: batches are cut by the daemon. Frameworks look for it in a loader."""
        return None

    @property
    def drop_last(self) -> bool:
        return self._settings.tail == "drop"

    @property
    def num_workers(self) -> int:
        return self._settings.workers

    @property
    def pin_memory(self) -> bool:
        return self._settings.pin_memory

    @property
    def timeout(self) -> float:
        return self._settings.timeout_seconds

    # ---- epochs and state ---------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch that is running or, after a complete one, the next."""
        return self._cursor.epoch if self._pending_epoch is None else self._pending_epoch

    def set_epoch(self, epoch: int) -> None:
        """The next ``iter()`` is this epoch's. Without it epochs follow one another anyway.

        The current epoch, or the one that is being prefetched: nothing is discarded, and a
        position from `load_state_dict` holds.
        """
        epoch = arguments.positive_int("epoch", epoch, minimum=0)
        with self._locked():
            self._pending_epoch = None if epoch == self._cursor.epoch else epoch

    def state_dict(self) -> dict[str, Any]:
        """A small dict, fit for JSON: where the loader stands after the last batch it gave.

        The same on every rank; valid for any number of ranks. After a complete epoch it is the
        start of the next.
        """
        with self._locked():
            cursor = self._cursor
            if self._pending_epoch is not None and self._live_iterator() is None:
                cursor = Cursor(self._pending_epoch)
            return self._identity().state_dict(cursor)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on at a saved state: the next ``iter()`` begins there, in mid-epoch if need be.

        Raises StateError for a state of another data set, order or seed.
        """
        with self._locked():
            cursor = self._identity().cursor_from(state_dict)
            self._drop_iterator()
            self._cursor = cursor
            self._pending_epoch = None
            self._is_resuming = True

    def _follow_sampler(self) -> None:
        """A DistributedSampler's set_epoch is heard like our own."""
        epoch = getattr(self._settings.sampling.epoch_source, "epoch", None)
        if epoch != self._epoch_seen:
            self._epoch_seen = epoch
            self.set_epoch(int(epoch))

    # ---- iteration ----------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        with self._locked():
            self._drop_iterator()
            self._follow_sampler()
            self._resolve()
            self._link.check_versions(0 if self._is_strict else VERSIONS_SECONDS)
            start = Cursor(self._cursor.epoch)
            if self._pending_epoch is not None:
                start = Cursor(self._pending_epoch)
            elif self._is_resuming:
                start = self._cursor
            has_batches = self._open_session().open_at(start)
            self._pending_epoch, self._is_resuming = None, False
            self._cursor = start
            self._epoch_bad = 0
            self._meter.pause()
            iterator = _EpochIterator(self, self._identity(), has_batches)
            if not has_batches:  # a state in the tail that drop_last leaves out
                self._cursor = Cursor(start.epoch + 1)
            self._iterator = weakref.ref(iterator)
            return iterator

    def _open_session(self) -> Any:
        if self._session is None:
            from ._device import open_session

            ranks = self._resolve()
            members = {
                **self._order_members(ranks),
                "transforms": self._settings.recipe,
                "layout": self._settings.layout,
                "fields": self.dataset.field_specs,
                "on_error": self._settings.on_error,
                "slots": self._settings.slots,
                "workers": self._settings.workers,
                "job": self._job_name(),
                "name": os.path.basename(sys.argv[0] if sys.argv else "")[:200],
                "cpus": sorted(os.sched_getaffinity(0)),
            }
            self._session = open_session(self._link, members, self.dataset.indices, self._settings)
        return self._session

    def _job_name(self) -> str:
        if self._settings.job:
            return self._settings.job
        parts = (launcher_run_id(), self.dataset.fingerprint, self._settings.sampling.seed)
        digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:8]
        return f"{os.path.basename(self.dataset.root)[:24]}-{digest}"

    def _next(self, iterator: _EpochIterator) -> Any:
        with self._locked():
            if self._live_iterator() is not iterator:
                raise StateError(
                    "this iterator has been overtaken: the loader was iterated again, closed or "
                    "given a state meanwhile; take a loader per loop that runs at the same time"
                )
            began = self._meter.began()
            batch, info, cursor = self._open_session().take(self.timeout)
            self._cursor = cursor
            iterator.is_finished = bool(info.is_last)
            self._meter.ended(began, info.valid_count, info.bad_count)
            self._epoch_bad += info.bad_count
            if self._epoch_bad and self._settings.max_errors is not None:
                self._check_bad(iterator.identity.samples, info)
            batch._state = (iterator.identity, cursor)
        return self._finish(batch) if self._is_finishing else batch

    def _finish(self, batch: Batch) -> Any:
        """What happens in the trainer's process: pinning, the device, batch_map."""
        is_there = getattr(self._session, "is_on_device", False)
        if self.pin_memory and self._settings.output == "torch" and not is_there:
            import torch

            if torch.cuda.is_available():
                batch = batch.pin_memory()
            else:
                log_once(
                    logging.INFO, "pin_memory=True: torch sees no CUDA device, so batches are not"
                )
        if self._settings.device is not None and not is_there:
            batch = batch.to(self._settings.device, non_blocking=self.pin_memory)
        if self._batch_map is None:
            return batch
        result = self._batch_map(batch)
        if isinstance(result, (tuple, list)) and not isinstance(result, Batch):
            return batch.replace(result)
        return result

    def _check_bad(self, samples: int | None, info: Any) -> None:
        """End the run with too many bad samples; as soon as, and only if, it is certain that they
        are too many. `samples`: of an epoch, as far as that is known.
        """
        allowed = self._settings.max_errors
        of_rank = self._samples_of_rank(samples, info)
        if of_rank is not None and self._epoch_bad > allowed * of_rank:
            self._drop_iterator()
            raise TooManyBadSamplesError(
                f"{self._epoch_bad} of {of_rank} samples of epoch {info.epoch} could not be "
                f"made, more than max_errors={allowed:g} allows; 'penstock errors' names them with "
                "reasons: mend the files, or raise max_errors"
            )

    def _samples_of_rank(self, samples: int | None, info: Any) -> int | None:
        """Of an epoch; None while shards are unknown."""
        ranks = self._resolve()
        if self._plan["samples"] is None:
            is_time = time.monotonic() - self._plan_asked_at >= _PLAN_SECONDS
            if is_time or info.is_last:
                self._plan, self._plan_asked_at = self._ask_plan(ranks), time.monotonic()
        if self._plan["samples"] is not None:
            return self._plan["rank_samples"]
        if samples is not None:  # Dataset(size=...)
            return -(-samples // ranks.world)
        # An epoch that was resumed may end with its first shards unknown.
        return info.step * self.batch_size + info.place_count if info.is_last else None

    def _live_iterator(self) -> _EpochIterator | None:
        return self._iterator() if self._iterator is not None else None

    def _drop_iterator(self) -> None:
        self._iterator = None

    def _locked(self) -> Any:
        """The lock; in a forked child a new one, as the parent's may be held there for ever.

        The parent's connection is found out, and left alone, by Link and Session themselves.
        """
        if os.getpid() != self._pid:
            self._pid = os.getpid()
            self._lock = threading.RLock()
        return self._lock

    # ---- looking, ending ----------------------------------------------------------------------

    def sample(self, sample_id: int, epoch: int | None = None) -> Batch:
        """One sample as a batch of `epoch` (default: the current) has it, without batch axis.

        ``image, label = loader.sample(batch.sample_ids[3], epoch=batch.epoch)``. The image has
        shape (3, height, width). Raises UsageError for an unknown id, SampleError.
        """
        from ._sample import read_sample

        with self._locked():
            epoch = self.epoch if epoch is None else arguments.positive_int("epoch", epoch, 0)
            return read_sample(
                self._link,
                self.dataset,
                {
                    "transforms": self._settings.recipe,
                    "layout": self._settings.layout,
                    "seed": self._settings.sampling.seed,
                },
                int(sample_id),
                epoch,
                self._settings.output,
            )

    def stats(self) -> Stats:
        """What was measured since the loader was made; a dict that prints as one line.

        ``batches, samples, bad_samples`` taken; ``wait_seconds`` in ``next()``, ``wait_ratio`` of
        the time spent in loops; ``images_per_second`` over that time; ``cache_hit_ratio`` (None
        without a cache); ``limited_by``: a sentence. Further ones come from the daemon.
        """
        with self._locked():
            daemon = self._session.stats() if self._session is not None else None
            return self._meter.stats(daemon)

    def close(self) -> None:
        """Give the ring and the connection back. Held batches stay; iterating opens anew."""
        with self._locked():
            self._drop_iterator()
            if self._session is not None:
                self._session.close()
            if self._link is not None:
                self._link.close()

    def __enter__(self) -> DataLoader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_link", None) is not None:
            try:
                self.close()
            except (Error, OSError):
                pass  # nobody is left to be told

    def __repr__(self) -> str:
        settings = self._settings
        size = (
            f"global_batch_size={settings.global_batch_size}"
            if settings.batch_size is None
            else f"batch_size={settings.batch_size}"
        )
        sampling = settings.sampling
        return (
            f"DataLoader({self.dataset!r}, {size}, order={sampling.order!r}, "
            f"seed={sampling.seed}, epoch={self.epoch})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {
            "given": self._given,
            "cursor": self._cursor,
            "is_resuming": self._is_resuming,
            "pending_epoch": self._pending_epoch,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["given"])  # type: ignore[misc]
        self._cursor = state["cursor"]
        self._is_resuming = state["is_resuming"]
        self._pending_epoch = state["pending_epoch"]


class _EpochIterator:
    """One pass; a newer one of the same loader overtakes it."""

    def __init__(self, loader: DataLoader, identity: Identity, has_batches: bool) -> None:
        self._loader = loader
        self.identity = identity
        self.is_finished = not has_batches

    def __iter__(self) -> _EpochIterator:
        return self

    def __next__(self) -> Any:
        if self.is_finished:
            raise StopIteration
        return self._loader._next(self)


class _Sampler:
    """What training scripts expect of ``loader.sampler``."""

    def __init__(self, loader: DataLoader) -> None:
        self._loader = weakref.proxy(loader)

    def set_epoch(self, epoch: int) -> None:
        self._loader.set_epoch(epoch)

    def __len__(self) -> int:
        """Samples of a rank in an epoch, the same on every rank, as torch's DistributedSampler
        has it: rounded up, or down with ``drop_last=True``.

        Scripts that see ``len(sampler) * world_size < len(dataset)`` take it that a tail was left
        out and evaluate it once more.
        """
        return self._loader._rank_samples_nominal()
