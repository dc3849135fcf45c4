"""A daemon of one command's own, on a socket that nobody else knows."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from .._client import Client
from .._daemon import daemon_binary
from ..errors import DaemonError
from ._targets import try_connect

_START_SECONDS_MAX = 30.0
_STOP_SECONDS_MAX = 15.0
_POLL_SECONDS = 0.002


@contextmanager
def own_daemon(arguments: Sequence[str] = ()) -> Iterator[Client]:
    """Start penstockd, give a client of it, end it.

    The daemon is private and in the foreground: if this process is killed, it leaves by itself.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-cli-") as folder:
        path = os.path.join(folder, "penstock.sock")
        log = os.path.join(folder, "penstock.log")
        command = [daemon_binary(), "--private", "--foreground", "--socket", path]
        command += ["--log-file", log, *arguments]
        with open(os.path.join(folder, "stderr"), "w+b") as stderr:
            process = _start(command, stderr)
            try:
                with _connect(process, path, stderr) as client:
                    yield client
            finally:
                _end(process)


def _start(command: list[str], stderr: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        # A session of its own: Ctrl-C is for us, and we end it in order.
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    except OSError as error:
        raise DaemonError(
            f"cannot run {command[0]}: {error.strerror}; reinstall the package"
        ) from error


def _connect(process: subprocess.Popen[bytes], path: str, stderr: IO[bytes]) -> Client:
    deadline = time.monotonic() + _START_SECONDS_MAX
    while True:
        client = try_connect(path)
        if client is not None:
            return client
        if process.poll() is not None:
            stderr.seek(0)
            said = stderr.read().decode(errors="replace").strip()
            reason = said.removeprefix("penstockd: ") or f"exit status {process.returncode}"
            raise DaemonError(f"the daemon did not start: {reason}")
        if time.monotonic() > deadline:
            raise DaemonError(
                f"the daemon is not ready after {_START_SECONDS_MAX:.0f} s; run 'penstock doctor'"
            )
        time.sleep(_POLL_SECONDS)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
