"""Which daemon a command talks to."""

from __future__ import annotations

import os
from pathlib import Path

from .._client import SILENCE_SECONDS_MAX, Client, SilentDaemonError, connect
from .._daemon import DaemonOptions, daemon_key, runtime_folder, served_socket
from .._platform import require_linux
from .._wire import Connection, Disconnected
from ..errors import DaemonError, ProtocolError

#: How long a daemon may leave a question unanswered that it answers in a millisecond.
LOOK_SECONDS = 5.0

_HOW_TO_START = "start one with 'penstock serve', or make a DataLoader"


def explicit_address(address: str | None) -> str | None:
    return address or os.environ.get("PENSTOCK_ADDRESS") or None


def connect_running(address: str | None) -> Client:
    """The daemon that runs; DaemonError when there is none, or several that it could be."""
    clients, silent = running(address)
    if len(clients) > 1:
        own = _own_private_socket()
        preferred = [c for c in clients if c.address in (served_socket(), own)]
        for other in clients:
            if other not in preferred[:1]:
                other.close()
        if not preferred:
            sockets = ", ".join(client.address for client in clients)
            raise DaemonError(f"{len(clients)} daemons run ({sockets}); choose one with --address")
        return preferred[0]
    if clients:
        return clients[0]
    if silent:
        raise silent[0]
    raise DaemonError(f"no daemon is running; {_HOW_TO_START}")


def running(address: str | None) -> tuple[list[Client], list[SilentDaemonError]]:
    """Clients of `address` alone (DaemonError if nobody answers), else of every daemon of ours;
    and an error for each that is there and does not answer.
    """
    require_linux()
    given = explicit_address(address)
    if given is not None:
        return [connect(given, silence_seconds=LOOK_SECONDS)], []
    clients, silent = [], []
    for path in sockets():
        try:
            client = try_connect(path, LOOK_SECONDS)
        except SilentDaemonError as error:
            silent.append(error)
        else:
            clients += [client] if client is not None else []
    return clients, silent


def sockets() -> list[str]:
    """Sockets that daemons of this user may be behind: the default one first."""
    paths = [served_socket()]
    paths += sorted(str(path) for path in Path(runtime_folder()).glob("*.sock"))
    return list(dict.fromkeys(paths))


def try_connect(path: str, silence_seconds: float = SILENCE_SECONDS_MAX) -> Client | None:
    """None when nobody is there, or somebody who speaks another protocol.

    Raises SilentDaemonError when nobody answers.
    """
    try:
        return Client(Connection(path), path, silence_seconds)
    except (OSError, Disconnected, ProtocolError):
        return None


def newest_private_log() -> Path | None:
    """The log that the last private daemon has left."""
    logs = Path(runtime_folder()).glob("*.log")
    return max(logs, key=lambda path: path.stat().st_mtime, default=None)


def _own_private_socket() -> str:
    return os.path.join(runtime_folder(), daemon_key(DaemonOptions()) + ".sock")
