"""The private daemon of a user: find it, or start it (docs/protocol.md, "The private daemon").

Everybody who needs it comes to the same runtime folder and the same key; whoever holds the lock
starts it, so that ranks started together share one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._log import logger
from ._wire import Connection, Disconnected
from .errors import DaemonError

if TYPE_CHECKING:
    from ._client import Client

_START_SECONDS_MAX = 30.0
_POLL_SECONDS = 0.01
#: What else in the environment decides where remote bytes come from, and who is trusted.
_NETWORK_VARIABLES = frozenset(
    ("HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "http_proxy", "https_proxy")
    + ("HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")
)
_FOLDER_BYTES_MAX = 85  # a socket's address holds 107 bytes, the name needs 22


@dataclass(frozen=True)
class DaemonOptions:
    """What a private daemon is started with; other options mean another daemon.

    `threads`: decode threads, None for as many as CPUs. `cache`: cache folder, None for
    ``$PENSTOCK_CACHE`` or the daemon's own choice. `arguments`: further ones of penstockd.
    """

    threads: int | None = None
    cache: str | None = None
    arguments: tuple[str, ...] = ()

    def command_line(self) -> list[str]:
        line = list(self.arguments)
        if self.threads is not None:
            line += ["--threads", str(self.threads)]
        cache = self.cache or os.environ.get("PENSTOCK_CACHE")
        if cache:
            line += ["--cache", os.path.abspath(cache)]
        return line


def daemon_binary() -> str:
    """Path of penstockd: ``$PENSTOCK_DAEMON``, else the package's own, else the one in PATH."""
    override = os.environ.get("PENSTOCK_DAEMON")
    packaged = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_bin", "penstockd")
    for candidate in (override, None if override else packaged):
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    in_path = None if override else shutil.which("penstockd")
    if in_path:
        return in_path
    raise DaemonError(
        f"there is no penstockd at {override or packaged}; install the package with "
        "'pip install .', or set PENSTOCK_DAEMON to the binary's path"
    )


def is_binary_chosen() -> bool:
    """Whether ``$PENSTOCK_DAEMON`` names the daemon to run: then no other one will do."""
    return bool(os.environ.get("PENSTOCK_DAEMON"))


def served_socket() -> str:
    """Where ``penstock serve`` listens without --socket: what loader/config.c chooses."""
    user = os.geteuid() if hasattr(os, "geteuid") else 0
    if user == 0:
        return "/run/penstock/penstock.sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        return f"{runtime}/penstock/penstock.sock"
    return f"/tmp/penstock-{user}/penstock.sock"


def runtime_folder() -> str:
    """The folder of private sockets: 0700 and ours, else DaemonError."""
    xdg = os.environ.get("XDG_RUNTIME_DIR")
    if xdg and os.path.isdir(xdg) and os.stat(xdg).st_uid == os.getuid():
        folder = os.path.join(xdg, "penstock")
        if len(os.fsencode(folder)) <= _FOLDER_BYTES_MAX:
            try:
                return _private_folder(folder)
            except OSError:
                pass  # read-only, for instance: go on with the other place
    folder = f"/tmp/penstock-{os.getuid()}"
    try:
        return _private_folder(folder)
    except OSError as error:
        raise DaemonError(
            f"cannot make the folder {folder} for the daemon's socket: {error.strerror}; "
            "set XDG_RUNTIME_DIR to a folder of yours"
        ) from error


def _private_folder(folder: str) -> str:
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise DaemonError(
            f"{folder} is not a folder of this user, so it cannot be trusted with the daemon's "
            "socket; remove it, or set XDG_RUNTIME_DIR to a folder of yours"
        )
    if status.st_mode & 0o077:
        os.chmod(folder, 0o700)
    return folder


def daemon_key(options: DaemonOptions) -> str:
    """Who shares a private daemon: same user, cgroup, binary, protocol, settings, credentials,
    way into the network.
    """
    from ._client import PROTOCOL

    binary = daemon_binary()
    status = os.stat(binary)
    try:
        with open("/proc/self/cgroup", "rb") as file:
            cgroup = file.read()
    except OSError:
        cgroup = b""
    network = sorted(
        (name, value)
        for name, value in os.environ.items()
        if name.startswith("AWS_") or name in _NETWORK_VARIABLES
    )
    parts = [
        os.getuid(),
        cgroup,
        PROTOCOL,
        (os.path.realpath(binary), status.st_mtime_ns, status.st_size),
        options.command_line(),
        network,
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def connect_private(
    make_client: Callable[[Connection, str], Client],
    options: DaemonOptions,
    *,
    start: bool = True,
) -> Client:
    """A client of the private daemon, which is started when nobody answers."""
    base = os.path.join(runtime_folder(), daemon_key(options))
    socket_path = base + ".sock"
    deadline = time.monotonic() + _START_SECONDS_MAX
    while True:
        client = _try_connect(make_client, socket_path)
        if client is not None:
            return client
        if not start:
            raise DaemonError(
                "no private daemon is running; make a loader, or run 'penstock serve'"
            )
        with _lock(base + ".lock", deadline):
            client = _try_connect(make_client, socket_path)
            if client is not None:
                return client
            _start(socket_path, base + ".log", options)
        client = _try_connect(make_client, socket_path)
        if client is not None:
            return client
        if time.monotonic() > deadline:
            raise DaemonError(
                f"the daemon started but does not answer at {socket_path}"
                f"{log_tail(base + '.log')}; see {base}.log"
            )
        time.sleep(_POLL_SECONDS)


def _try_connect(make_client: Callable[[Connection, str], Client], path: str) -> Client | None:
    """None when nobody is there, or somebody who is just leaving."""
    try:
        return make_client(Connection(path), path)
    except (FileNotFoundError, ConnectionError, Disconnected):
        return None


@contextmanager
def _lock(path: str, deadline: float) -> Iterator[None]:
    """Hold the election's lock; polled, so that signals are served meanwhile."""
    import fcntl  # not on Windows, where this module is imported too

    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DaemonError(
                        f"another process holds {path} for {_START_SECONDS_MAX:.0f} s; find it "
                        f"with 'fuser {path}' and end it"
                    ) from None
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(fd)


def _start(socket_path: str, log_path: str, options: DaemonOptions) -> None:
    """Run penstockd, which goes into the background when it is ready."""
    command = [daemon_binary(), "--private", "--socket", socket_path, "--log-file", log_path]
    command += options.command_line()
    logger.info("starting %s", " ".join(command))
    with tempfile.TemporaryFile() as stderr:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise DaemonError(
                f"cannot run {command[0]}: {error.strerror}; reinstall the package"
            ) from error
        try:
            status = process.wait(_START_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            status = None
        if status == 0:
            return
        stderr.seek(0)
        said = stderr.read().decode(errors="replace").strip()
    reason = said or log_tail(log_path) or f"exit status {status}"
    if status is None:
        reason = f"not ready after {_START_SECONDS_MAX:.0f} s. {said}"
    raise DaemonError(f"the daemon did not start: {reason}; its log is {log_path}")


def log_tail(log_path: str, lines: int = 5) -> str:
    """The last lines of a log as ": ...", or "" when there are none."""
    try:
        with open(log_path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            last = file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return ""
    return ": " + " / ".join(last) if last else ""
