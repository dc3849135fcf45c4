"""Asking a daemon for a data set's index."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._client import Client
from .._index import IndexFile
from ..dataset import Dataset
from ..errors import ProtocolError
from ._progress import ProgressBar


@dataclass(frozen=True)
class Indexed:
    """A data set with its index: the daemon's answer and the file, mapped.

    `fd` stays open until the process ends.
    """

    source: dict[str, Any]
    answer: dict[str, Any]
    index: IndexFile
    fd: int
    index_bytes: int
    seconds: float

    @property
    def shown(self) -> str:
        """The data set in a few words."""
        urls = self.source["urls"]
        return urls[0] if len(urls) == 1 else f"{urls[0]} and {len(urls) - 1} more"


def request_index(client: Client, urls: Sequence[str], rebuild: bool = False) -> Indexed:
    """The index of `urls`, built if need be with progress shown on standard error."""
    source = Dataset(list(urls)).source
    progress = ProgressBar()
    started = time.monotonic()
    try:
        answer, fds = client.request_fds(
            "dataset", progress=progress, source=source, rebuild=rebuild
        )
    finally:
        progress.finish()
    seconds = time.monotonic() - started
    if len(fds) != 1:
        for fd in fds:
            os.close(fd)
        raise ProtocolError(
            f"the index came with {len(fds)} descriptors instead of 1; raise the limit of open "
            "files (ulimit -n), or restart the daemon"
        )
    index = IndexFile(fds[0])
    return Indexed(source, answer, index, fds[0], os.fstat(fds[0]).st_size, seconds)
