"""The logger "penstock", and saying things only once."""

from __future__ import annotations

import logging

logger = logging.getLogger("penstock")

_said: set[str] = set()


def log_once(level: int, message: str) -> None:
    """Log `message` the first time that it comes up in this process."""
    if message not in _said:
        _said.add(message)
        logger.log(level, message)
