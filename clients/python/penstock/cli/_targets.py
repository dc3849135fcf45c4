"""Which daemon a command talks to."""

from __future__ import annotations

import os
from pathlib import Path

from .._client import Client, connect
from .._daemon import DaemonOptions, daemon_key, runtime_folder
from .._platform import require_linux
from .._wire import Connection, Disconnected
from ..errors import DaemonError, ProtocolError

_HOW_TO_START = "start one with 'penstock serve', or make a DataLoader"


def default_socket() -> str:
    """Where ``penstock serve`` listens without --socket: what loader/config.c chooses."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.geteuid() == 0:
        return "/run/penstock/penstock.sock"
    if runtime.startswith("/"):
        return f"{runtime}/penstock/penstock.sock"
    return f"/tmp/penstock-{os.geteuid()}/penstock.sock"


def explicit_address(address: str | None) -> str | None:
    return address or os.environ.get("PENSTOCK_ADDRESS") or None


def connect_or_start(address: str | None) -> Client:
    """The daemon of `address`, else the default one, else the private one, started if need be."""
    require_linux()
    given = explicit_address(address)
    if given is not None:
        return connect(given)
    return try_connect(default_socket()) or connect()


def connect_running(address: str | None) -> Client:
    """The daemon that runs; DaemonError when there is none, or several that it could be."""
    clients = running(address)
    if len(clients) > 1:
        own = _own_private_socket()
        preferred = [c for c in clients if c.address in (default_socket(), own)]
        for other in clients:
            if other not in preferred[:1]:
                other.close()
        if not preferred:
            sockets = ", ".join(client.address for client in clients)
            raise DaemonError(f"{len(clients)} daemons run ({sockets}); choose one with --address")
        return preferred[0]
    if not clients:
        raise DaemonError(f"no daemon is running; {_HOW_TO_START}")
    return clients[0]


def running(address: str | None) -> list[Client]:
    """Clients of `address` alone (DaemonError if nobody answers), else of every daemon of ours."""
    require_linux()
    given = explicit_address(address)
    if given is not None:
        return [connect(given)]
    found = (try_connect(path) for path in sockets())
    return [client for client in found if client is not None]


def sockets() -> list[str]:
    """Sockets that daemons of this user may be behind: the default one first."""
    paths = [default_socket()]
    paths += sorted(str(path) for path in Path(runtime_folder()).glob("*.sock"))
    return list(dict.fromkeys(paths))


def try_connect(path: str) -> Client | None:
    """None when nobody answers, or somebody who speaks another protocol."""
    try:
        return Client(Connection(path), path)
    except (OSError, Disconnected, ProtocolError):
        return None


def newest_private_log() -> Path | None:
    """The log that the last private daemon has left."""
    logs = Path(runtime_folder()).glob("*.log")
    return max(logs, key=lambda path: path.stat().st_mtime, default=None)


def _own_private_socket() -> str:
    return os.path.join(runtime_folder(), daemon_key(DaemonOptions()) + ".sock")
