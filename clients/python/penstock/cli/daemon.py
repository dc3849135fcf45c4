"""serve, stop, logs, errors: the daemon and what it has to say."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from .._client import Client, socket_path
from .._daemon import daemon_binary, served_socket
from .._platform import require_linux
from .._wire import Connection, Disconnected
from ..errors import DaemonError, UsageError
from . import _targets
from ._output import one_line, print_json, printable
from ._parser import Parser, add_address, add_command, whole

_POLL_SECONDS = 0.02
_START_SECONDS_MAX = 30.0
_FOLLOW_SECONDS = 0.5
_LINES_KEPT = 1000  # by the daemon
_PASSED_ON = (
    *("config", "threads", "cache", "cache_limit", "cache_free", "cache_memory"),
    *("s3_endpoint", "s3_region", "s3_addressing", "s3_anonymous", "s3_requester_pays"),
    *("ca_file", "connections", "log_level", "io", "kernels", "http"),
)


def add_commands(commands: Any) -> None:
    _add_serve(commands)
    stop = add_command(
        commands,
        "stop",
        _stop,
        "end a daemon; reads in flight are finished first, for at most 10 s",
        "penstock stop\npenstock stop --address /run/penstock/penstock.sock",
        details="Trainers with a private daemon start a new one when they need it.",
    )
    add_address(stop)
    stop.add_argument("--all", action="store_true", help="all daemons of this user on this node")
    stop.add_argument("--now", action="store_true", help="do not wait for reads in flight")
    stop.add_argument(
        "--timeout",
        type=whole(1, 86400),
        default=30,
        metavar="SECONDS",
        help="how long to wait until it has left (default: 30)",
    )
    logs = add_command(
        commands,
        "logs",
        _logs,
        "print the daemon's last log lines",
        "penstock logs -n 20\npenstock logs --follow",
        details="When no daemon runs, those that the last private one left in its file.",
    )
    add_address(logs)
    _add_count(logs, "lines", 100)
    logs.add_argument("-f", "--follow", action="store_true", help="go on with new lines")
    errors = add_command(
        commands,
        "errors",
        _errors,
        "print the samples that could not be read or decoded, newest last",
        "penstock errors\npenstock errors -n 1000 --json",
    )
    add_address(errors)
    _add_count(errors, "samples", 100)


def _add_count(parser: Parser, what: str, default: int) -> None:
    parser.add_argument(
        "-n",
        dest="count",
        type=whole(1, _LINES_KEPT),
        default=default,
        metavar="N",
        help=f"at most so many {what}, the newest (default: {default}, at most {_LINES_KEPT})",
    )


# ---- serve ---------------------------------------------------------------------------------------


def _add_serve(commands: Any) -> None:
    serve = add_command(
        commands,
        "serve",
        _serve,
        "run the daemon, in the foreground",
        "penstock serve --threads 16\npenstock serve --background --socket /run/penstock/p.sock\n"
        "penstock serve --config /etc/penstock.yaml",
        details="Options are penstockd's; those that are not given come from the file of "
        "--config. SIGTERM and Ctrl-C drain and end, a second one ends at once. Loaders of "
        "the same user find it at its default socket; elsewhere PENSTOCK_ADDRESS or address= has "
        "to name it.",
    )
    serve.add_argument("--config", metavar="FILE", help="YAML with these options as keys")
    serve.add_argument(
        "--socket",
        "--address",
        metavar="PATH",
        help=f"where to listen (default: {served_socket()})".replace("%", "%%"),
    )
    serve.add_argument("--threads", type=whole(0, 512), metavar="N", help="decode threads")
    serve.add_argument("--cache", metavar="DIR", help="where indexes are kept, or none")
    serve.add_argument("--cache-limit", metavar="SIZE", help="of remote data on disk, as 500G")
    serve.add_argument("--cache-free", metavar="SIZE", help="of that disk, left free")
    serve.add_argument("--cache-memory", metavar="SIZE", help="of remote data in memory")
    serve.add_argument("--s3-endpoint", metavar="URL", help="where s3:// leads")
    serve.add_argument("--s3-region", metavar="NAME")
    serve.add_argument("--s3-addressing", choices=("auto", "path", "virtual"))
    serve.add_argument("--s3-anonymous", choices=("yes", "no"), help="sign nothing")
    serve.add_argument("--s3-requester-pays", choices=("yes", "no"))
    serve.add_argument("--ca-file", metavar="FILE", help="PEM of who is trusted with https://")
    serve.add_argument(
        "--connections", type=whole(1, 4096), metavar="N", help="requests for remote data at once"
    )
    serve.add_argument("--log-file", metavar="FILE", help="append the log here (default: stderr)")
    serve.add_argument("--log-level", choices=("debug", "info", "warn", "error"))
    serve.add_argument("--io", choices=("auto", "io_uring", "pread"), help="how files are read")
    serve.add_argument("--kernels", choices=("auto", "scalar", "neon", "avx2", "avx512"))
    serve.add_argument("--http", metavar="HOST:PORT", help="serve /metrics and a status page here")
    serve.add_argument(
        "--background", action="store_true", help="return when the daemon is ready to serve"
    )


def _serve(arguments: argparse.Namespace) -> int:
    require_linux()
    command = [daemon_binary()]
    for name in _PASSED_ON:
        value = getattr(arguments, name)
        if value is not None:
            command += ["--" + name.replace("_", "-"), str(value)]
    socket_given = arguments.socket and socket_path(arguments.socket)
    if socket_given:
        command += ["--socket", socket_given]
    if arguments.background:
        return _serve_in_background(arguments, command, socket_given)
    if arguments.log_file:
        command += ["--log-file", arguments.log_file]
    if arguments.json:
        print_json({"pid": os.getpid(), "socket": socket_given, "command": command})
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and that is inherited
    try:
        os.execv(command[0], command)
    except OSError as error:
        raise DaemonError(
            f"cannot run {command[0]}: {error.strerror}; reinstall the package"
        ) from error


def _serve_in_background(
    arguments: argparse.Namespace, command: list[str], socket_given: str | None
) -> int:
    if arguments.config and not socket_given:
        raise UsageError("--background with --config: give --socket too, to know when it is ready")
    path = socket_given or served_socket()
    log_file = os.path.abspath(arguments.log_file or os.path.splitext(path)[0] + ".log")
    if socket_given is None:
        command += ["--socket", path]
    os.makedirs(os.path.dirname(log_file), mode=0o700, exist_ok=True)
    command += ["--log-file", log_file]
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            client = _await_start(process, path)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if client is None:
            stderr.seek(0)
            said = stderr.read().decode(errors="replace").strip().removeprefix("penstockd: ")
            reason = said or f"exit status {process.returncode}; see {log_file}"
            raise DaemonError(f"the daemon did not start: {reason}")
    with client:
        if arguments.json:
            print_json({"pid": process.pid, "socket": path, "log_file": log_file})
        else:
            print(f"serving at {path} (pid {process.pid}, log {log_file})")
            if path != served_socket():
                print(f"loaders use it with: export PENSTOCK_ADDRESS={shlex.quote(path)}")
    return 0


def _await_start(process: subprocess.Popen[bytes], path: str) -> Client | None:
    """A client of the started daemon; None when it has ended."""
    deadline = time.monotonic() + _START_SECONDS_MAX
    while process.poll() is None:
        client = _targets.try_connect(path)
        if client is not None:
            if client.hello["pid"] == process.pid:
                return client
            client.close()  # another one has this socket: ours is about to say so
        if time.monotonic() > deadline:
            raise DaemonError(f"the daemon is not ready after {_START_SECONDS_MAX:.0f} s")
        time.sleep(_POLL_SECONDS)
    return None


# ---- stop ----------------------------------------------------------------------------------------


def _stop(arguments: argparse.Namespace) -> int:
    require_linux()
    given = _targets.explicit_address(arguments.address)
    if given is not None and not arguments.all:
        paths = [socket_path(given)]
    else:
        paths = _listening()
    if not paths:
        raise DaemonError("no daemon is running, so there is nothing to stop")
    if len(paths) > 1 and not arguments.all:
        raise DaemonError(
            f"{len(paths)} daemons run ({', '.join(paths)}); choose one with --address, or give "
            "--all"
        )
    stopped = [_stop_one(path, arguments) for path in paths]
    if arguments.json:
        print_json({"stopped": stopped})
    else:
        for one in stopped:
            print(f"stopped the daemon at {one['address']} (pid {one['pid']})")
    return 0


def _listening() -> list[str]:
    """Sockets of ours that somebody listens on, whatever version it is."""
    found = []
    for path in _targets.sockets():
        try:
            Connection(path).close()
        except OSError:
            continue
        found.append(path)
    return found


def _stop_one(path: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Ask without a hello, so that a daemon of another version can be stopped too."""
    pid = listener = 0
    seconds = min(arguments.timeout, _targets.LOOK_SECONDS)
    try:
        connection = Connection(path)
        try:
            listener, _uid = connection.peer()
            connection.send({"op": "stop", "drain": not arguments.now})
            answer, fds = connection.receive(seconds)  # it answers first and drains then
            for fd in fds:
                os.close(fd)
            if answer.get("ok") is not True:
                raise DaemonError(
                    f"the daemon at {path} refused: {(answer.get('error') or {}).get('message')}"
                )
            pid, seconds = int(answer.get("pid", 0)), arguments.timeout
            while not connection.peer_is_gone():
                connection.receive(arguments.timeout)
        finally:
            connection.close()
    except TimeoutError:
        raise _stays(path, pid or listener, seconds) from None
    except (OSError, Disconnected) as error:
        if pid == 0:
            raise DaemonError(
                f"no daemon answers at {path}: {getattr(error, 'strerror', None) or error}; "
                "'penstock status' lists those that run"
            ) from error
    _await_exit(path, pid, arguments.timeout)
    return {"address": path, "pid": pid}


def _await_exit(path: str, pid: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _runs(pid):
        if time.monotonic() > deadline:
            raise _stays(path, pid, seconds)
        time.sleep(_POLL_SECONDS)


def _stays(path: str, pid: int, seconds: float) -> DaemonError:
    end = f"end it with 'kill -9 {pid}'" if pid else "find it with 'penstock status'"
    return DaemonError(f"the daemon at {path} has not left for {seconds:g} s; {end}")


def _runs(pid: int) -> bool:
    """Whether that is a live penstockd: in another pid namespace it may be somebody else."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            head, _, tail = file.read().rpartition(")")
    except OSError:
        return False
    return "(penstockd" in head and tail.split()[0] not in "ZX"


# ---- logs ----------------------------------------------------------------------------------------


def _logs(arguments: argparse.Namespace) -> int:
    try:
        client = _targets.connect_running(arguments.address)
    except DaemonError:
        log = None if arguments.address else _targets.newest_private_log()
        if log is None or arguments.follow:
            raise
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()[-arguments.count :]
        print(f"penstock: no daemon is running; the last one's log is {log}", file=sys.stderr)
        _print_lines(lines, str(log), arguments.json)
        return 0
    with client:
        answer = client.request("logs", lines=arguments.count)
        if not arguments.follow:
            _print_lines(answer["lines"], answer["file"], arguments.json)
            return 0
        for line in _followed(client, answer["lines"]):
            if arguments.json:
                print_json({"line": line})
            else:
                print(printable(line), flush=True)
    print("penstock: the daemon has left", file=sys.stderr)
    return 0


def _print_lines(lines: list[str], file: str | None, as_json: bool) -> None:
    if as_json:
        print_json({"lines": lines, "file": file})
    else:
        for line in lines:
            print(printable(line))


def _followed(client: Client, shown: list[str]) -> Iterator[str]:
    """The lines shown first, then new ones until the daemon leaves."""
    yield from shown
    while True:
        time.sleep(_FOLLOW_SECONDS)
        try:
            lines = client.request("logs", lines=_LINES_KEPT)["lines"]
        except Disconnected:
            return
        yield from _after(shown, lines)
        shown = lines


def _after(old: list[str], new: list[str]) -> list[str]:
    """What `new` has beyond `old`, both windows on one log; lines begin with their time."""
    for start in range(len(new), 0, -1):
        tail = old[-start:]
        if new[start - len(tail) : start] == tail and tail:
            return new[start:]
    return new


# ---- errors --------------------------------------------------------------------------------------


def _errors(arguments: argparse.Namespace) -> int:
    with _targets.connect_running(arguments.address) as client:
        answer = client.request("errors", count=arguments.count)
    if arguments.json:
        print_json(answer)
        return 0
    for error in answer["errors"]:
        print(_describe(error))
    shown, total = len(answer["errors"]), answer["total"]
    if total == 0:
        print("no bad samples since the daemon started")
    elif shown < total:
        print(f"{shown} of {total:,} bad samples; more with -n")
    return 0


def _describe(error: dict[str, Any]) -> str:
    when = datetime.fromtimestamp(error["time"]).isoformat(" ", "seconds")
    return one_line(
        f"{when} job {error['job'] or '-'} rank {error['rank']} epoch {error['epoch']} "
        f"sample {error['sample_id']} {error['name']} byte {error['offset']}: "
        f"{error['reason']} ({error['action']})"
    )
