"""Talking with a daemon: connect, ask, typed errors. What the loader and the CLI stand on.

with connect() as client:  # of 'penstock serve', else a private one, started if need be
    print(client.request("status"))
with connect("/run/penstock/penstock.sock") as client: ...
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from . import _daemon
from ._log import logger
from ._platform import require_linux
from ._wire import Connection, Disconnected
from .errors import DaemonError, Error, ProtocolError, UsageError, error_from

PROTOCOL = 1
SILENCE_SECONDS_MAX = 120.0
_SERVED_SILENCE_SECONDS = 5.0
_ABSENT_RETRY_SECONDS = 0.05

Progress = Callable[[dict[str, Any]], None]


class SilentDaemonError(DaemonError):
    """A daemon is there and does not answer. `pid`: its process, 0 when unknown."""

    def __init__(self, message: str, pid: int) -> None:
        super().__init__(message)
        self.pid = pid


class Client:
    """A connection that has said hello. Requests from several threads take turns.

    Belongs to the process that made it: in a forked child every request raises Disconnected and
    the parent's connection stays as it is.
    """

    def __init__(
        self,
        connection: Connection,
        address: str,
        silence_seconds: float = SILENCE_SECONDS_MAX,
    ) -> None:
        """`silence_seconds`: how long the daemon may say nothing before it counts as hanging."""
        self.silence_seconds = silence_seconds
        self._connection = connection
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self.address = address
        #: Whether a session was asked for: a connection carries at most one.
        self.has_session = False
        self.hello: dict[str, Any] = self.request(
            "hello", protocol=PROTOCOL, version=_version(), pid=os.getpid()
        )
        if self.hello.get("protocol") != PROTOCOL:
            raise ProtocolError(
                f"the daemon at {address} (version {self.hello.get('version')}) speaks protocol "
                f"{self.hello.get('protocol')}, this client {PROTOCOL}; install the same version "
                "of both and restart the daemon"
            )

    def request(self, op: str, **members: Any) -> dict[str, Any]:
        """Ask and return the answer without its "ok"; raises what the daemon answers.

        Descriptors that come with the answer are closed. Raises Disconnected when the daemon is
        gone (internal: `call` gives users a DaemonError).
        """
        answer, fds = self.request_fds(op, **members)
        for fd in fds:
            os.close(fd)
        return answer

    def request_fds(
        self,
        op: str,
        *,
        send_fds: Sequence[int] = (),
        progress: Progress | None = None,
        **members: Any,
    ) -> tuple[dict[str, Any], list[int]]:
        """The same with descriptors both ways; received ones are the caller's to close."""
        if os.getpid() != self._pid:
            raise Disconnected("this connection was made by the parent process")
        with self._lock:
            if not self._connection.is_open:
                raise Disconnected("the connection was closed")
            self._connection.send({"op": op, **members}, send_fds)
            while True:
                pid, _uid = self._connection.peer()
                try:
                    answer, fds = self._connection.receive(self.silence_seconds)
                except TimeoutError:
                    raise self._silent(op, pid) from None
                if "progress" not in answer:
                    break
                if progress is not None:
                    progress(answer["progress"])
        if answer.pop("ok", False) is True:
            return answer, fds
        for fd in fds:
            os.close(fd)
        error = answer.get("error") or {}
        raise error_from(error.get("kind", "internal"), error.get("message", repr(answer)))

    def _silent(self, op: str, pid: int) -> SilentDaemonError:
        end = f", or end it with 'kill -9 {pid}'" if pid else ""
        return SilentDaemonError(
            f"the daemon at {self.address} has not answered {op!r} for "
            f"{self.silence_seconds:g} s: it hangs, or was stopped; see its log"
            f"{self.log_hint()}{end}",
            pid,
        )

    def peer_is_gone(self) -> bool:
        """Whether the daemon has gone; does not wait."""
        return os.getpid() != self._pid or self._connection.peer_is_gone()

    def log_hint(self) -> str:
        log_file = getattr(self, "hello", {}).get("log_file")
        return f" ({log_file})" if log_file else ""

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def connect(
    address: str | os.PathLike[str] | None = None,
    *,
    retry_seconds: float = 0.0,
    start: bool = True,
    options: _daemon.DaemonOptions | None = None,
    silence_seconds: float = SILENCE_SECONDS_MAX,
) -> Client:
    """A client of the daemon at `address`, else at ``$PENSTOCK_ADDRESS``, else of this user's.

    That is the one of ``penstock serve`` when it runs and fits, else the private one.

    `address`: path of a unix socket, also as "unix:PATH".
    `retry_seconds`: how long an explicit address is tried when nobody is there.
    `start`: whether a private daemon may be started; without it, DaemonError when there is none.
    `options`: of a private daemon; with them no other one will do.
    `silence_seconds`: as in `Client`, of an explicit address.
    """
    require_linux()
    address = address or os.environ.get("PENSTOCK_ADDRESS") or None
    if address is None:
        client = _connect_served() if options is None and not _daemon.is_binary_chosen() else None
        if client is not None:
            return client
        return _daemon.connect_private(Client, options or _daemon.DaemonOptions(), start=start)
    path = socket_path(address)
    deadline = time.monotonic() + retry_seconds
    while True:
        try:
            return Client(Connection(path), path, silence_seconds)
        except (OSError, Disconnected) as error:
            if time.monotonic() < deadline:
                time.sleep(_ABSENT_RETRY_SECONDS)
                continue
            raise DaemonError(
                f"no daemon answers at {path}: {getattr(error, 'strerror', None) or error}; start "
                f"one with 'penstock serve --socket {path}', or leave address= out for a private "
                "one"
            ) from error


def _connect_served() -> Client | None:
    """The daemon of ``penstock serve`` at its default socket; None, with a reason in the log, when
    there is none that we can use.
    """
    path = _daemon.served_socket()
    try:
        connection = Connection(path)
    except (FileNotFoundError, ConnectionError):
        return None
    except OSError as error:
        logger.info("no daemon is used at %s: %s", path, error)
        return None
    pid, uid = connection.peer()
    if uid != os.geteuid():
        # Before the first word: the folder may be one where everybody can put a socket.
        connection.close()
        logger.warning("the daemon at %s is of user %d, so it is not used", path, uid)
        return None
    try:
        client = Client(connection, path, _SERVED_SILENCE_SECONDS)
    except (Error, Disconnected) as error:
        connection.close()
        logger.warning("the daemon at %s is passed over: %s", path, error)
        return None
    client.silence_seconds = SILENCE_SECONDS_MAX
    logger.info(
        "using the daemon at %s (pid %d, version %s, cache %s)",
        path,
        pid,
        client.hello.get("version"),
        client.hello.get("cache_folder"),
    )
    return client


def socket_path(address: str | os.PathLike[str]) -> str:
    """The socket's path of an address; UsageError for kinds that this version does not have."""
    text = os.fspath(address)
    scheme, _, rest = text.partition(":")
    if scheme == "unix":
        text = rest.removeprefix("//")
    elif "://" in text or scheme in ("tcp", "tls+tcp"):
        raise UsageError(
            f"address {text!r}: this version reaches daemons on the same node only; "
            "give the path of a unix socket"
        )
    return os.path.abspath(text)


def _version() -> str:
    from . import __version__

    return __version__
