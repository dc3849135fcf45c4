"""Where a loader stands in its order, as a small dict that can be saved as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from .errors import StateError

STATE_VERSION = 1


class Cursor(NamedTuple):
    """A place between two batches: `position` samples of epoch `epoch` are done, of all ranks."""

    epoch: int
    position: int = 0
    window_ordinal: int = 0
    window_first: int = 0


@dataclass(frozen=True)
class Identity:
    """What a state must have in common with the loader that loads it."""

    fingerprint: str
    samples: int | None  # None while shards are unknown
    order: str
    shuffle_window: int
    seed: int
    global_batch_size: int

    def state_dict(self, cursor: Cursor) -> dict[str, Any]:
        """The state at `cursor`: the same on every rank, valid for any number of ranks."""
        return {
            "version": STATE_VERSION,
            "dataset": {"fingerprint": self.fingerprint, "samples": self.samples},
            "order": self.order,
            "shuffle_window": self.shuffle_window,
            "seed": self.seed,
            "epoch": cursor.epoch,
            "position": cursor.position,
            "window": {"ordinal": cursor.window_ordinal, "first": cursor.window_first},
            "global_batch_size": self.global_batch_size,
        }

    def cursor_from(self, state: dict[str, Any]) -> Cursor:
        """Check a state against this loader; StateError says what differs and what to do."""
        try:
            version = state["version"]
            if version != STATE_VERSION:
                raise StateError(
                    f"the state has version {version}, this Penstock reads {STATE_VERSION}; load "
                    "it with the version that saved it"
                )
            dataset, window = state["dataset"], state["window"]
            self._check(state, dataset)
            cursor = Cursor(
                int(state["epoch"]),
                int(state["position"]),
                int(window["ordinal"]),
                int(window["first"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(
                f"this is no state of a Penstock loader ({type(error).__name__}: {error}); give "
                "what state_dict() returned"
            ) from error
        if cursor.epoch < 0 or not (
            0 <= cursor.position <= (cursor.position if self.samples is None else self.samples)
        ):
            raise StateError(
                f"the state stands at epoch {cursor.epoch}, position {cursor.position} of "
                f"{self.samples} samples; give what state_dict() returned"
            )
        return cursor

    def _check(self, state: dict[str, Any], dataset: dict[str, Any]) -> None:
        theirs = (dataset["fingerprint"], dataset["samples"])
        is_known = theirs[1] is not None and self.samples is not None
        if theirs[0] != self.fingerprint or (is_known and theirs[1] != self.samples):
            raise StateError(
                f"the state belongs to another data set: {theirs[1]} samples with fingerprint "
                f"{theirs[0]}, this loader has {self.samples} with {self.fingerprint}; give the "
                "data set (and split) that it was saved with, or start without the state"
            )
        ours = {"order": self.order, "seed": self.seed}
        if self.order == "window":
            ours["shuffle_window"] = self.shuffle_window
        advice = {
            "order": "give the same shuffle= as then",
            "seed": f"give seed={state['seed']}",
            "shuffle_window": f"give shuffle_window={state['shuffle_window']}",
        }
        for name, value in ours.items():
            if state[name] != value:
                raise StateError(
                    f"the state was saved with {name} {state[name]!r}, this loader has {value!r}: "
                    f"the samples would come in another order; {advice[name]}, or start without "
                    "the state"
                )
