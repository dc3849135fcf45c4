"""The checks of ``penstock doctor``, in the order in which they are shown."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .. import __version__
from .._client import Client, SilentDaemonError, connect
from .._daemon import daemon_binary, runtime_folder, served_socket
from .._wire import Connection, Disconnected
from ..errors import Error, PlatformError
from . import _targets
from ._output import human_bytes
from ._own_daemon import own_daemon

_REINSTALL = "pip install --force-reinstall penstock"
_OPEN_FILES_MIN = 4096
_MEMORY_MIN_BYTES = 512 * 1024 * 1024
_BINARY_SECONDS_MAX = 10


@dataclass(frozen=True)
class Check:
    """What was looked at and found; `fix`: the command that mends it, None when all is well."""

    name: str
    text: str
    fix: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ok": self.fix is None,
            "text": self.text,
            "fix": self.fix,
        }


def all_checks(address: str | None) -> list[Check]:
    checks = [_platform(), *_packages(), _native()]
    if not sys.platform.startswith("linux"):
        return checks
    checks += [_binary(), _runtime_folder()]
    checks += [*_daemon(address), *_cpus(), *_limits(), *_running(address)]
    return checks


# ---- The installation ----------------------------------------------------------------------------


def _platform() -> Check:
    text = f"penstock {__version__}, Python {platform.python_version()}, {platform.platform()}"
    if not sys.platform.startswith("linux"):
        return Check("platform", text, "use torch.utils.data.DataLoader here: Linux only")
    return Check("platform", text)


def _packages() -> Iterator[Check]:
    if importlib.util.find_spec("numpy") is None:
        yield Check("numpy", "not installed", "pip install numpy")
    else:
        yield Check("numpy", importlib.metadata.version("numpy"))
    optional = {
        "torch": "without it batches are NumPy arrays",
        "pillow": "without it there is no 'penstock show' and no Dataset[i]",
    }
    for name, without in optional.items():
        try:
            yield Check(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Check(name, f"not installed: {without}")


def _native() -> Check:
    try:
        importlib.import_module("penstock._native")
    except (ImportError, OSError) as error:
        return Check("client library", f"penstock._native: {error}", _REINSTALL)
    return Check("client library", "loads")


def _binary() -> Check:
    try:
        path = daemon_binary()
        answer = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=_BINARY_SECONDS_MAX,
            check=False,
        )
    except (Error, OSError, subprocess.SubprocessError) as error:
        return Check("daemon binary", str(error), _REINSTALL)
    version = answer.stdout.removeprefix("penstockd").strip()
    if answer.returncode != 0:
        return Check("daemon binary", f"{path}: {answer.stderr.strip()}", _REINSTALL)
    if version != __version__:
        text = f"{path} has version {version}, the Python package {__version__}"
        override = "PENSTOCK_DAEMON" in os.environ
        return Check("daemon binary", text, "unset PENSTOCK_DAEMON" if override else _REINSTALL)
    return Check("daemon binary", f"{path} {version}")


def _runtime_folder() -> Check:
    try:
        folder = runtime_folder()
    except Error as error:
        return Check("runtime folder", str(error), "export XDG_RUNTIME_DIR=$(mktemp -d)")
    mode = stat.S_IMODE(os.stat(folder).st_mode)
    return Check("runtime folder", f"{folder}, mode {mode:04o}")


# ---- What a daemon says --------------------------------------------------------------------------


def _daemon(address: str | None) -> Iterator[Check]:
    """A daemon of our own is started for this, so that starting is checked too."""
    try:
        with own_daemon() as client:
            yield Check("daemon starts", f"version {client.hello['version']}")
            answer = client.request("doctor")
    except (Error, Disconnected, OSError) as error:
        yield Check("daemon starts", str(error), "penstock serve --log-level debug")
        return
    if (other := _answer_of_running(address)) is not None:
        answer = other
    yield _engine(answer)
    yield Check("kernels", f"{answer['kernels']} (of scalar, neon, avx2, avx512)")
    yield _cache(answer)
    yield _memory(answer)
    setting = answer["huge_pages"]
    hint = "" if setting in ("always", "advise", "within_size", "force") else ", so small ones"
    yield Check("huge pages", f"for shared memory: {setting}{hint}; no matter but for speed")


def _answer_of_running(address: str | None) -> dict[str, Any] | None:
    path = _targets.explicit_address(address) or served_socket()
    try:
        client = _targets.try_connect(path, _targets.LOOK_SECONDS)
        if client is None:
            return None
        with client:
            return client.request("doctor")
    except (Error, Disconnected):
        return None


def _engine(answer: dict[str, Any]) -> Check:
    if answer["engine"] == "io_uring":
        return Check("reading", "io_uring")
    reason = answer["engine_reason"] or "as configured"
    return Check("reading", f"{answer['engine']} threads, not io_uring ({reason}); same bytes")


def _cache(answer: dict[str, Any]) -> Check:
    reason = answer["cache_reason"]
    folder = answer["cache_folder"]
    if folder is None:
        is_wanted = reason == "switched off"
        fix = None if is_wanted else "export PENSTOCK_CACHE=/path/on/a/local/disk"
        return Check("cache folder", f"none: {reason}", fix)
    limit = human_bytes(answer["cache_limit_bytes"])
    return Check("cache folder", f"{folder}, at most {limit} ({reason})")


def _memory(answer: dict[str, Any]) -> Check:
    available = answer["memory_available_bytes"]
    text = f"{human_bytes(available)} available to this cgroup"
    if available < _MEMORY_MIN_BYTES:
        return Check("memory", f"only {text}", "docker update --memory 4g CONTAINER")
    return Check("memory", text)


# ---- The machine's limits ------------------------------------------------------------------------


def _cpus() -> Iterator[Check]:
    allowed, present = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    text = f"{allowed} of {present} may be used"
    quota = _cpu_quota()
    if quota is not None and quota < allowed:
        text += f", for {quota:g} CPUs of time: give num_workers={max(1, round(quota))}"
    yield Check("CPUs", text)


def _cpu_quota() -> float | None:
    """CPUs' worth of time that the cgroup allows; None when there is no limit, or it is unknown."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            own = [line[3:].strip() for line in file if line.startswith("0::")]
        for folder in (*own, "/"):
            path = f"/sys/fs/cgroup{folder.rstrip('/')}/cpu.max"
            if os.path.exists(path):
                with open(path, encoding="utf-8") as file:
                    quota, period = file.read().split()
                return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    return None


def _limits() -> Iterator[Check]:
    import resource  # not on Windows, where this module is imported too

    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _OPEN_FILES_MIN:
        yield Check("open files", f"at most {hard}", "ulimit -n 65536")
    else:
        shown = "unlimited" if hard == resource.RLIM_INFINITY else f"at most {hard:,}"
        yield Check("open files", shown)
    _soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    shown = "unlimited" if hard == resource.RLIM_INFINITY else f"at most {human_bytes(hard)}"
    yield Check("locked memory", shown)
    yield Check("/dev/shm", "not used: its size does not matter to Penstock")


# ---- Daemons that run, or did --------------------------------------------------------------------


def _running(address: str | None) -> Iterator[Check]:
    given = _targets.explicit_address(address)
    if given is not None:
        yield _given_daemon(given, address is None)
    for path in _targets.sockets():
        if path != given and os.path.lexists(path):
            yield _socket(path)


def _given_daemon(given: str, from_environment: bool) -> Check:
    try:
        with connect(given, silence_seconds=_targets.LOOK_SECONDS) as client:
            return Check("daemon", _said(client))
    except SilentDaemonError as error:
        return _silent(error)
    except (Error, PlatformError) as error:
        start = f"penstock serve --background --socket {shlex.quote(given)}"
        return Check("daemon", str(error), "unset PENSTOCK_ADDRESS" if from_environment else start)


def _socket(path: str) -> Check:
    quoted = shlex.quote(path)
    try:
        with Client(Connection(path), path, _targets.LOOK_SECONDS) as client:
            if client.hello["version"] == __version__:
                return Check("daemon", _said(client))
            text = f"{_said(client)}, but this client is {__version__}"
    except (FileNotFoundError, ConnectionRefusedError):
        return Check("stale socket", f"{path}, left by a crash", f"rm {quoted}")
    except SilentDaemonError as error:
        return _silent(error)
    except (Error, OSError) as error:
        text = str(error)
    return Check("daemon", text, f"penstock stop --address {quoted}")


def _silent(error: SilentDaemonError) -> Check:
    return Check("daemon", str(error), f"kill -9 {error.pid or '$(pidof penstockd)'}")


def _said(client: Client) -> str:
    hello = client.hello
    return f"version {hello['version']}, pid {hello['pid']}, {client.address}"
