"""What a loader has measured, and what limits it, in words."""

from __future__ import annotations

import time
from typing import Any


class Stats(dict):
    """A dict whose entries are attributes too; printed, it is one line."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __str__(self) -> str:
        cache = self["cache_hit_ratio"]
        return (
            f"{self['batches']:,} batches, {self['samples']:,} samples, "
            f"{self['bad_samples']:,} bad | {self['images_per_second']:,.0f} images/s | "
            f"wait {self['wait_ratio']:.1%} | "
            + ("" if cache is None else f"cache hits {cache:.1%} | ")
            + self["limited_by"]
        )


class Meter:
    """Counts what a trainer takes and how long it waits. Times in seconds."""

    def __init__(self) -> None:
        self.batches = 0
        self.samples = 0
        self.bad_samples = 0
        self.wait_seconds = 0.0
        self.first_batch_seconds: float | None = None
        self._active_seconds = 0.0
        self._last: float | None = None

    def pause(self) -> None:
        """Time until the next `began` is not the loop's: another epoch, or something else."""
        self._last = None

    def began(self) -> float:
        """The trainer asks for a batch; returns the time."""
        now = time.perf_counter()
        if self._last is not None:
            self._active_seconds += now - self._last
        self._last = now
        return now

    def ended(self, began: float, samples: int, bad_samples: int) -> None:
        """It has it."""
        now = time.perf_counter()
        self.wait_seconds += now - began
        self._active_seconds += now - began
        self._last = now
        if self.first_batch_seconds is None:
            self.first_batch_seconds = now - began
        self.batches += 1
        self.samples += samples
        self.bad_samples += bad_samples

    def stats(self, daemon: dict[str, Any] | None) -> Stats:
        """All figures; `daemon`: its answer to "stats", None when there is none."""
        active = self._active_seconds
        wait_ratio = self.wait_seconds / active if active > 0 else 0.0
        own = {
            "batches": self.batches,
            "samples": self.samples,
            "bad_samples": self.bad_samples,
            "wait_seconds": self.wait_seconds,
            "wait_ratio": wait_ratio,
            "images_per_second": self.samples / active if active > 0 else 0.0,
            "first_batch_seconds": self.first_batch_seconds,
            "cache_hit_ratio": (daemon or {}).get("cache_hit_ratio"),
            "limited_by": _limited_by(self.batches, wait_ratio, daemon),
        }
        more = {name: value for name, value in (daemon or {}).items() if name not in own}
        for name in ("batches", "samples", "bad_samples", "images_per_second"):
            if daemon is not None and name in daemon:
                more[f"daemon_{name}"] = daemon[name]
        return Stats({**own, **more})


_TRAINER_WAITS_BELOW = 0.05


def _limited_by(batches: int, wait_ratio: float, daemon: dict[str, Any] | None) -> str:
    if batches == 0:
        return "nothing yet: no batch was taken"
    waits = f"the training loop waits {wait_ratio:.0%} of its time for batches"
    if wait_ratio < _TRAINER_WAITS_BELOW:
        return f"the training loop: batches are ready before it asks ({waits})"
    limit = (daemon or {}).get("limit")
    if limit == "read":
        return f"reading: the storage delivers less than decoding could take ({waits})"
    if limit == "decode":
        return f"decoding: all decode threads are busy ({waits}); give it more CPU cores"
    if limit == "trainer":
        return f"the training loop by now: the ring is full most of the time ({waits})"
    return f"the loader: {waits}; 'penstock status' tells more"
