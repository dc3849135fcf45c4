"""A loader's connection: made when needed, made anew when the daemon is gone or after a fork."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ._client import Client, connect
from ._wire import Disconnected
from .dataset import Dataset
from .errors import DaemonError

#: How long an explicit address is tried: its daemon may be restarting.
RETRY_SECONDS = 10.0
_ATTEMPTS_MAX = 3


class Link:
    """Gives clients that know the data set. One thread at a time."""

    def __init__(self, address: str | os.PathLike[str] | None, dataset: Dataset) -> None:
        self._address = address
        self._dataset = dataset
        self._client: Client | None = None
        self._is_known = False  # whether a daemon has answered before: then it is waited for

    def get(self) -> Client:
        """A live client. Raises DaemonError, DatasetError."""
        if self._client is None or self._client.peer_is_gone():
            return self.renew()
        return self._client

    def renew(self) -> Client:
        """A new client in place of the old one, whose session ends."""
        self.close()
        for _attempt in range(_ATTEMPTS_MAX):
            try:
                self._client = self._introduce()
                return self._client
            except Disconnected:
                continue
        raise DaemonError(
            f"the daemon went away {_ATTEMPTS_MAX} times while it opened {self._dataset!r}; see "
            "its log: penstock logs"
        )

    def _introduce(self) -> Client:
        client = connect(self._address, retry_seconds=RETRY_SECONDS if self._is_known else 0)
        try:
            self._dataset.open(client)
            if self._is_known:
                self._dataset.check_unchanged(client)
        except BaseException:
            client.close()
            raise
        self._is_known = True
        return client

    def request(
        self, op: str, send_fds: Sequence[int] = (), **members: Any
    ) -> tuple[dict[str, Any], list[int]]:
        """Ask; once more when the daemon went away meanwhile."""
        for _attempt in range(_ATTEMPTS_MAX):
            try:
                return self.get().request_fds(op, send_fds=send_fds, **members)
            except Disconnected:
                continue
        raise DaemonError(
            f"the daemon went away {_ATTEMPTS_MAX} times while it was asked for {op!r}; see its "
            "log: penstock logs"
        )

    def check_versions(self, seconds_max: float) -> None:
        """ObjectChangedError if remote objects were replaced; looked at if that is so long ago."""
        if self._dataset.is_remote and self._dataset.seconds_since_check() >= seconds_max:
            for _attempt in range(_ATTEMPTS_MAX):
                try:
                    self._dataset.check_unchanged(self.get())
                    return
                except Disconnected:
                    continue

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()
