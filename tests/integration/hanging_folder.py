"""A folder whose files stop giving bytes while a gate is shut: a disk or server that hangs.

A FUSE file system in a process of its own, ``hanging_folder.py SOURCE MOUNT GATE``: shows SOURCE
read-only at MOUNT; reads wait while the file GATE exists.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

MNT_DETACH = 2


def serve(source: str, mount: str, gate: str) -> None:
    import mfusepy

    class Folder(mfusepy.Operations):
        use_ns = True

        def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
            try:
                status = os.lstat(source + path)
            except OSError as error:
                raise mfusepy.FuseOSError(error.errno) from None
            names = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid")
            times = {f"st_{name}time": getattr(status, f"st_{name}time_ns") for name in "amc"}
            return {**{name: getattr(status, name) for name in names}, **times}

        def readdir(self, path: str, fh: int) -> list[str]:
            return [".", "..", *os.listdir(source + path)]

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            while os.path.exists(gate):
                time.sleep(0.01)
            with open(source + path, "rb") as file:
                file.seek(offset)
                return file.read(size)

    mfusepy.FUSE(Folder(), mount, foreground=True, ro=True, nothreads=False)


class HangingFolder:
    """The mounted folder; `path` shows what `source` has."""

    def __init__(self, source: pathlib.Path, place: pathlib.Path) -> None:
        self.path = place / "hanging"
        self.path.mkdir()
        self.gate = place / "gate"
        command = [sys.executable, __file__, str(source), str(self.path), str(self.gate)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while not os.path.ismount(self.path):
            if self.process.poll() is not None:
                raise OSError(self.process.stderr.read())
            time.sleep(0.01)

    def shut(self) -> None:
        self.gate.touch()

    def open(self) -> None:
        self.gate.unlink(missing_ok=True)

    def close(self) -> None:
        self.open()
        ctypes.CDLL(None).umount2(os.fsencode(self.path), MNT_DETACH)
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def hanging_folder(source: pathlib.Path, place: pathlib.Path) -> Iterator[HangingFolder]:
    """OSError where FUSE, or the right to mount, is missing."""
    folder = HangingFolder(source, place)
    try:
        yield folder
    finally:
        folder.close()


if __name__ == "__main__":
    serve(*sys.argv[1:])
