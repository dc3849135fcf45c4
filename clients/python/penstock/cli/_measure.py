"""Taking batches for some seconds, and what that costs: the same for every loader."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

_WARM_UP_SHARE, _WARM_UP_SHARE_MAX = 0.2, 0.5  # of the time to measure


@dataclass
class Plan:
    """How to measure: after `warm_up_batches`, for `seconds`, a step of `step_seconds` each."""

    seconds: float
    step_seconds: float
    warm_up_batches: int


@dataclass
class Measured:
    """What was taken in the measured span."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    batches: int = 0
    samples: int = 0
    bad_samples: int = 0
    waits: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        waits = sorted(self.waits)
        return {
            "images_per_second": self.samples / self.seconds,
            "cpu_seconds_per_image": self.cpu_seconds / self.samples,
            "samples": self.samples,
            "batches": self.batches,
            "seconds": self.seconds,
            "wait_ratio": sum(waits) / self.seconds,
            "wait_p50_seconds": waits[len(waits) // 2],
            "wait_p99_seconds": waits[min(len(waits) - 1, int(len(waits) * 0.99))],
            "bad_samples": self.bad_samples,
        }


def measure(
    loader: Iterable[Any],
    begun: Iterator[Any],
    plan: Plan,
    count: Callable[[Any], tuple[int, int]],
    cpu_seconds: Callable[[], float],
) -> Measured:
    """Go on with `begun`, an iterator of `loader`, and over further epochs.

    `count`: samples of a batch, and how many of them are bad. `cpu_seconds`: used so far by all
    that belongs to the loader.
    """
    epochs = _Epochs(loader, begun)
    began = time.perf_counter()
    batches = 0
    while not _is_warm(batches, time.perf_counter() - began, plan):
        count(next(epochs))
        batches += 1
        time.sleep(plan.step_seconds)
    result = Measured()
    cpu_began = cpu_seconds()
    began = now = time.perf_counter()
    while now - began < plan.seconds:
        asked = time.perf_counter()
        samples, bad = count(next(epochs))
        result.waits.append(time.perf_counter() - asked)
        result.batches += 1
        result.samples += samples
        result.bad_samples += bad
        time.sleep(plan.step_seconds)
        now = time.perf_counter()
    result.seconds = now - began
    result.cpu_seconds = cpu_seconds() - cpu_began
    return result


def _is_warm(batches: int, seconds: float, plan: Plan) -> bool:
    """The buffers that were filled meanwhile are empty again, and caches are warm; or enough."""
    if seconds >= _WARM_UP_SHARE_MAX * plan.seconds:
        return True
    return batches >= plan.warm_up_batches and seconds >= _WARM_UP_SHARE * plan.seconds


class _Epochs:
    """Batches of one epoch after another; keeps none of them."""

    def __init__(self, loader: Iterable[Any], begun: Iterator[Any]) -> None:
        self._loader = loader
        self._iterator = begun

    def __next__(self) -> Any:
        try:
            return next(self._iterator)
        except StopIteration:
            self._iterator = iter(self._loader)
            return next(self._iterator)
