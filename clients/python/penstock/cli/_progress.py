"""How far the building of an index is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

_BAR_CELLS = 30
_LINE_SECONDS = 5.0


class ProgressBar:
    """Called with the daemon's progress messages; `finish` ends the line. On standard error."""

    def __init__(self) -> None:
        self._is_tty = sys.stderr.isatty()
        self._started = time.monotonic()
        self._said = self._started - _LINE_SECONDS + 1.0  # nothing in the first second
        self._width = 0

    def __call__(self, progress: dict[str, Any]) -> None:
        now = time.monotonic()
        if not self._is_tty and now - self._said < _LINE_SECONDS:
            return
        self._said = now
        text = self._describe(progress, now - self._started)
        if self._is_tty:
            print("\r" + text.ljust(self._width), end="", file=sys.stderr, flush=True)
            self._width = len(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def _describe(self, progress: dict[str, Any], seconds: float) -> str:
        what, done, total = progress["what"], progress["done"], progress["total"]
        rate = f"{done / seconds:,.0f}/s" if seconds > 0 else ""
        if total == 0:
            return f"{what}: {done:,} files, {rate}"
        share = min(1.0, done / total)
        filled = "#" * int(share * _BAR_CELLS)
        bar = f" [{filled.ljust(_BAR_CELLS)}]" if self._is_tty else ""
        return f"{what}:{bar} {share:.0%}, {done:,} of {total:,}, {rate}"

    def finish(self) -> None:
        if self._is_tty and self._width:
            print("\r" + " " * self._width + "\r", end="", file=sys.stderr, flush=True)
            self._width = 0
