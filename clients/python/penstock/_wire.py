"""Frames of JSON, with file descriptors, over a unix stream socket (docs/protocol.md)."""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

from .errors import ProtocolError

FRAME_BYTES_MAX = 16 * 1024 * 1024
FDS_MAX = 4
_PATH_BYTES_MAX = 107
_CONNECT_SECONDS_MAX = 5.0


class Disconnected(ConnectionError):
    """The other side is gone. Not for users: callers turn it into what it means to them."""


class Connection:
    """One connected socket. Not thread-safe; belongs to the process that made it.

    After any exception out of `send` or `receive` the stream may be in mid-frame, so the
    connection is closed and `is_open` is False.
    """

    def __init__(self, path: str) -> None:
        """Connect to the socket at `path`; raises OSError (FileNotFoundError, ...)."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            _connect_in_time(self._socket, path)
        except BaseException:
            self._socket.close()
            raise

    @property
    def is_open(self) -> bool:
        return self._socket.fileno() >= 0

    def close(self) -> None:
        self._socket.close()

    def peer(self) -> tuple[int, int]:
        """(pid, uid) of who listens; pid 0 when it is in a pid namespace that we cannot see."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, _gid = struct.unpack("iII", credentials)
        return pid, uid

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send one frame; the descriptors stay the caller's."""
        body = json.dumps(message, separators=(",", ":")).encode()
        if len(body) > FRAME_BYTES_MAX:
            raise ProtocolError(
                f"a request of {len(body)} bytes is over the limit of {FRAME_BYTES_MAX}; "
                "give fewer urls or use a pattern"
            )
        try:
            self._socket.settimeout(None)
            data = struct.pack("<I", len(body)) + body
            sent = socket.send_fds(self._socket, [data], list(fds)) if fds else 0
            self._socket.sendall(data[sent:])
        except OSError as error:
            self.close()
            raise Disconnected(str(error)) from error
        except BaseException:
            self.close()
            raise

    def receive(self, timeout_seconds: float | None = None) -> tuple[dict[str, Any], list[int]]:
        """The next frame and its descriptors, which become the caller's.

        Raises Disconnected at its end, TimeoutError after `timeout_seconds` without a byte.
        """
        fds: list[int] = []
        try:
            self._socket.settimeout(timeout_seconds)
            (length,) = struct.unpack("<I", self._exactly(4, fds))
            if length > FRAME_BYTES_MAX:
                raise ProtocolError(
                    f"the daemon sent a frame of {length} bytes; it is no penstockd, or broken: "
                    "restart it"
                )
            message = json.loads(self._exactly(length, fds))
        except BaseException as error:
            self.close()
            for fd in fds:
                os.close(fd)
            if isinstance(error, TimeoutError | Disconnected):
                raise
            if isinstance(error, OSError):
                raise Disconnected(str(error)) from error
            if isinstance(error, ValueError) and not isinstance(error, ProtocolError):
                raise ProtocolError(f"the daemon sent no JSON ({error}); restart it") from error
            raise
        return message, fds

    def _exactly(self, count: int, fds: list[int]) -> bytes:
        data = bytearray()
        space = socket.CMSG_SPACE(FDS_MAX * array.array("i").itemsize)
        while len(data) < count:
            part, ancillary, _flags, _address = self._socket.recvmsg(
                min(count - len(data), 1 << 20), space, socket.MSG_CMSG_CLOEXEC
            )
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    received = array.array("i")
                    whole = len(payload) - len(payload) % received.itemsize
                    received.frombytes(payload[:whole])
                    fds.extend(received)
            if not part:
                raise Disconnected("end of stream")
            data += part
        return bytes(data)

    def peer_is_gone(self) -> bool:
        """Whether the other side has closed; reads nothing and does not wait."""
        if not self.is_open:
            return True
        try:
            self._socket.settimeout(0)
            return self._socket.recv(1, socket.MSG_PEEK) == b""
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True


def _connect_in_time(sock: socket.socket, path: str) -> None:
    """A daemon that accepts nothing has a full queue some day, and connect() would wait for it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(_CONNECT_SECONDS_MAX))
    try:
        _connect(sock, path)
    except BlockingIOError:
        raise TimeoutError(f"it has accepted nobody for {_CONNECT_SECONDS_MAX:g} s") from None
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(0))


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))


def _connect(sock: socket.socket, path: str) -> None:
    if len(os.fsencode(path)) <= _PATH_BYTES_MAX:
        sock.connect(path)
        return
    # A socket's address holds 107 bytes: go through the folder's descriptor.
    folder, name = os.path.split(path)
    folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{folder_fd}/{name}")
    finally:
        os.close(folder_fd)
