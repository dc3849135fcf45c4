"""What the campaigns stand on: pictures, daemons of their own, raw clients, trainers, counting.

Everything lives in a `Place`: a folder with the data, the runtime folder, the cache and the
sockets of one test. Deadlines are multiplied by `PATIENCE` under a sanitizer.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]

Facts = tuple[int, int, tuple[int, ...], str]


def daemon_binary() -> str:
    """$PENSTOCK_DAEMON (a build with sanitizers, say), the build's, or the package's."""
    build = pathlib.Path(os.environ.get("PENSTOCK_BUILD", ROOT / "build" / "release"))
    choices = [os.environ.get("PENSTOCK_DAEMON"), str(build / "loader" / "penstockd")]
    for choice in choices:
        if choice and os.access(choice, os.X_OK):
            return choice
    from penstock import _daemon

    return _daemon.daemon_binary()


def _is_sanitized() -> bool:
    with open(daemon_binary(), "rb") as file:
        return re.search(rb"__(asan|tsan)_init", file.read()) is not None


IS_SANITIZED = _is_sanitized()
PATIENCE = 10.0 if IS_SANITIZED else 1.0

#: Environment of the daemons that are started, sanitizers' settings included.
FINDING = re.compile(rb"(Address|Thread|Leak|UndefinedBehavior)Sanitizer|runtime error:")


# ---- waiting ------------------------------------------------------------------------------------


def until(what: str, condition: Callable[[], Any], seconds: float = 5.0) -> Any:
    """Poll until `condition` gives something true and return it; AssertionError if it never does.

    A deadline, no synchronisation: nothing hangs on how often it looks.
    """
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"{what}: not within {seconds * PATIENCE:g} s"
        time.sleep(0.005)


# ---- data ---------------------------------------------------------------------------------------


def picture(seed: int, width: int | None = None, height: int | None = None) -> Image.Image:
    """A small picture with edges and noise that differs with `seed`; now and then a grey one."""
    random = np.random.default_rng(seed)
    width = width or int(random.integers(64, 128))
    height = height or int(random.integers(64, 128))
    tiles = random.integers(0, 255, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    pixels = tiles.repeat(16, 0).repeat(16, 1)[:height, :width]
    pixels = pixels // 2 + random.integers(0, 64, pixels.shape, dtype=np.uint8)
    image = Image.fromarray(pixels)
    return image.convert("L") if seed % 17 == 0 else image


def jpeg(seed: int, width: int | None = None, height: int | None = None) -> bytes:
    """A JPEG file; kinds of sampling and progressive ones take turns."""
    file = io.BytesIO()
    picture(seed, width, height).save(
        file, "JPEG", quality=85, subsampling=seed % 3, progressive=seed % 5 == 0
    )
    return file.getvalue()


def make_folder(root: pathlib.Path, count: int, classes: int = 4) -> pathlib.Path:
    """`count` JPEGs in `classes` sub-folders."""
    for number in range(classes):
        (root / f"class{number}").mkdir(parents=True)
    for number in range(count):
        (root / f"class{number % classes}" / f"{number:06}.jpg").write_bytes(jpeg(number))
    return root


def make_tars(folder: pathlib.Path, count: int, shards: int = 7) -> str:
    """`count` samples (jpg and cls) in shards of differing sizes; their brace pattern."""
    folder.mkdir(parents=True)
    ends = [count * (i + 1) * (i + 2) // (shards * (shards + 1)) for i in range(shards)]
    number = 0
    for shard, end in enumerate(ends):
        with tarfile.open(folder / f"s-{shard:03}.tar", "w") as tar:
            for number in range(ends[shard - 1] if shard else 0, end):
                add_member(tar, f"{number:06}.jpg", jpeg(number))
                add_member(tar, f"{number:06}.cls", str(number % 10).encode())
    return str(folder / f"s-{{000..{shards - 1:03}}}.tar")


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


# ---- batches ------------------------------------------------------------------------------------


def pixels_of(batch: Any) -> bytes:
    """The bytes of a batch's image and label fields, as SHA-256."""
    digest = hashlib.sha256()
    for field in batch:
        digest.update(np.ascontiguousarray(np.asarray(field)).tobytes())
    return digest.digest()


def ids_of(batch: Any) -> tuple[int, ...]:
    return tuple(int(i) for i in batch.sample_ids)


def facts(batch: Any) -> Facts:
    """Epoch, step, ids and pixels of a batch: what may never depend on anything."""
    return (batch.epoch, batch.step, ids_of(batch), pixels_of(batch).hex())


class Hashes:
    """SHA-256 of the ids and of each field of what it is fed, in global order, without padding."""

    def __init__(self, fields: int = 2) -> None:
        self._all = [hashlib.sha256() for _ in range(1 + fields)]
        self.count = 0

    def feed(self, batches: Sequence[Any]) -> None:
        """The batches of all ranks at one step, by rank."""
        for batch in batches:
            ids = np.asarray(batch.sample_ids)
            real = ids >= 0
            values = [ids.astype("<u8"), *map(np.asarray, batch)]
            for digest, value in zip(self._all, values, strict=True):
                digest.update(np.ascontiguousarray(value[real]).tobytes())
            self.count += int(real.sum())

    def copy(self) -> Hashes:
        other = Hashes()
        other._all = [digest.copy() for digest in self._all]
        other.count = self.count
        return other

    def digests(self) -> tuple[Any, ...]:
        """How many samples, the order hash, the pixel hash, the hash of the labels."""
        return self.count, *(digest.hexdigest() for digest in self._all)


# ---- processes ----------------------------------------------------------------------------------


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in ("Z", "X")


def processes_with(text: str) -> list[int]:
    """The living processes that have `text` in an argument, without this one."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                line = pathlib.Path(f"/proc/{entry}/cmdline").read_bytes()
                if os.fsencode(text) in line and is_alive(int(entry)):
                    found.append(int(entry))
    return found


def pss_bytes(pid: int) -> int:
    """The proportional share of memory of a process."""
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024


def fd_links(pid: int) -> list[str]:
    """What the process has open."""
    links = []
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/{pid}/fd/{entry}"))
    return links


def thread_count(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


# ---- daemons ------------------------------------------------------------------------------------


class Daemon:
    """A penstockd in the foreground, ready to serve, with a log file."""

    def __init__(
        self,
        place: Place,
        *options: str,
        name: str = "d",
        environment: dict[str, str] | None = None,
    ) -> None:
        self.socket = str(place.path / f"{name}.sock")
        self.log_path = place.path / f"{name}.log"
        self.errors_path = place.path / f"{name}.err"
        notify = place.path / f"{name}.notify"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell:
            bell.bind(str(notify))
            bell.settimeout(0.05)
            with open(self.errors_path, "ab") as errors:
                self.process = subprocess.Popen(
                    [daemon_binary(), "--socket", self.socket, "--log-file", str(self.log_path)]
                    + ["--cache", str(place.cache), *options],
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    env={**os.environ, **(environment or {}), "NOTIFY_SOCKET": str(notify)},
                )
            until("a daemon that is ready", lambda: self._is_ready(bell), 10)
        notify.unlink()

    def _is_ready(self, bell: socket.socket) -> bool:
        assert self.process.poll() is None, f"it ended: {self.said()}"
        with contextlib.suppress(TimeoutError):
            return bell.recv(100) == b"READY=1"
        return False

    @property
    def pid(self) -> int:
        return self.process.pid

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        """Log and standard error."""
        texts = [path.read_text(errors="replace") for path in self._files() if path.exists()]
        return "\n".join(texts)

    def _files(self) -> list[pathlib.Path]:
        return [self.log_path, self.errors_path]

    def ask(self, op: str, **members: Any) -> dict[str, Any]:
        """One request on a connection of its own; AssertionError if it is refused."""
        with Control(self.socket) as control:
            answer = control.ask(op, **members)
        assert answer["ok"], answer
        return answer

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status. It has 5 s."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(5 * PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the daemon did not end after SIGTERM: {self.said()}") from None

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        status = self.stop() if self.process.poll() is None else None
        if kind is None:
            assert not FINDING.search(self.said().encode()), self.said()
            assert status in (0, None), f"exit status {status}: {self.said()}"


class Place:
    """The folder of one test, and what it started."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.cache = path / "cache"
        self.runtime = path / "run"
        self.runtime.mkdir(mode=0o700)

    def environment(self) -> dict[str, str]:
        """For trainers whose private daemon is to live here."""
        return {
            "XDG_RUNTIME_DIR": str(self.runtime),
            "PENSTOCK_CACHE": str(self.cache),
            "PENSTOCK_DAEMON": daemon_binary(),
        }

    def daemon(self, *options: str, **more: Any) -> Daemon:
        return Daemon(self, *options, **more)

    def private_sockets(self) -> list[pathlib.Path]:
        return sorted((self.runtime / "penstock").glob("*.sock"))

    def private_pid(self) -> int:
        """The pid of the one private daemon, as it says itself."""
        (path,) = self.private_sockets()
        with Control(str(path)) as control:
            return control.ask("hello", protocol=1, version="0", pid=os.getpid())["pid"]

    def processes(self) -> list[int]:
        return processes_with(str(self.path))

    def end_processes(self) -> None:
        """Ends what this place's tests started and did not end."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until("processes that are killed end", lambda: not self.processes())


# ---- a client without penstock ------------------------------------------------------------------


class Control:
    """The control protocol by hand (docs/protocol.md)."""

    def __init__(self, path: str, seconds: float = 10.0) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)  # waits for a place; with a time limit it would fail at once
        self.socket.settimeout(seconds * PATIENCE)
        self.fds: list[int] = []

    def send_bytes(self, data: bytes, fds: Sequence[int] = ()) -> None:
        socket.send_fds(self.socket, [data], list(fds)) if fds else self.socket.sendall(data)

    def send(self, message: Any, fds: Sequence[int] = ()) -> None:
        body = json.dumps(message).encode()
        self.send_bytes(len(body).to_bytes(4, "little") + body, fds)

    def receive(self) -> dict[str, Any]:
        """The next frame; ConnectionError at the end. Its descriptors are added to `fds`."""
        length = int.from_bytes(self._exactly(4), "little")
        return json.loads(self._exactly(length))

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part, fds, _flags, _address = socket.recv_fds(self.socket, count - len(data), 8)
            self.fds += fds
            if not part:
                raise ConnectionResetError("the daemon hung up")
            data += part
        return data

    def ask(self, op: str, fds: Sequence[int] = (), **members: Any) -> dict[str, Any]:
        """The answer, past all progress."""
        self.send({"op": op, **members}, fds)
        answer = self.receive()
        while "progress" in answer:
            answer = self.receive()
        return answer

    def close(self) -> None:
        self.socket.close()
        for fd in self.fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        self.fds = []

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def attach_members(dataset: Any, **more: Any) -> dict[str, Any]:
    """A request to attach, of batches of 8 pictures of 32 px."""
    return {
        "source": {"urls": [str(dataset)]},
        "batch": 8,
        "order": "full",
        "transforms": [{"op": "RandomResizedCrop", "size": [32, 32]}],
        **more,
    }


# ---- trainers in processes of their own ---------------------------------------------------------


@dataclass
class Line:
    """What a trainer said about one batch; `at` is CLOCK_MONOTONIC."""

    facts: Facts
    at: float


class Trainer:
    """tests/integration/trainer.py in a process of its own; see there for the order's members."""

    def __init__(self, environment: dict[str, str], **order: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "trainer.py"), json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def lines(self) -> Iterator[Line]:
        """Batch by batch until its standard output ends."""
        for text in self.process.stdout:
            if not text.endswith("\n"):
                return  # killed in mid-line
            line = json.loads(text)
            yield Line(
                (line["epoch"], line["step"], tuple(line["ids"]), line["pixels"]), line["at"]
            )

    def next(self) -> Line:
        for line in self.lines():
            return line
        raise AssertionError(f"the trainer ended: {self.finish()}")

    def tell(self, text: str = "go") -> None:
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def finish(self, seconds: float = 30.0) -> tuple[int, str]:
        """Exit status and standard error, once it has ended."""
        try:
            _out, err = self.process.communicate(timeout=seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the trainer did not end: {self.process.stderr.read()}") from None
        return self.process.returncode, err

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                pipe.close()
