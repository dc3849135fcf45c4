"""The command line tool: what each command prints, its JSON, its errors and exit statuses."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest
from command_line import SECONDS_MAX, Tool, is_answered

pytest.importorskip("penstock")
np = pytest.importorskip("numpy")
Image = pytest.importorskip("PIL.Image")

COMMANDS = "serve stop status top logs errors index ls show bench doctor".split()


# ---- The tool itself -----------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples_and_json(tool, command):
    output = tool(command, "--help")
    assert f"penstock {command}" in output
    assert "examples:" in output
    assert "--json" in output


def test_help_lists_the_commands(tool):
    output = tool("--help")
    for command in COMMANDS:
        assert re.search(rf"^    {command} ", output, re.MULTILINE)
    assert tool("--version").startswith("penstock ")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("frobnicate",),
        ("status", "--frobnicate"),
        ("index",),
        ("bench", "x", "--batch-size", "0"),
        ("bench", "x", "--seconds", "nan"),
        ("bench", "x", "--transform", "none"),
        ("show", "x", "-1"),
        ("logs", "-n", "many"),
        ("status", "--address", "tcp://node:1"),
        ("serve", "--background", "--config", "x.yaml"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(tool, arguments):
    tool(*arguments, code=2)


def test_reader_that_has_seen_enough_is_no_error(tool, folder):
    tool("index", folder)
    command = f"{sys.executable} -m penstock ls {folder} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", f"{command}"], capture_output=True, text=True, env=tool.environment
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 2
    assert done.stdout.splitlines()[1] in ("0", "141")


# ---- index, ls, show -----------------------------------------------------------------------------


def test_index(tool, folder, tmp_path):
    folder = shutil.copytree(folder, tmp_path / "pictures")
    for path in (folder, *folder.iterdir()):
        os.utime(path, (1e9, 1e9))  # what changed just now is listed anew
    first = tool.json("index", folder)
    assert first["kind"] == "folder"
    assert (first["samples"], first["classes"], first["shards"]) == (60, 3, 1)
    assert first["built"] is True
    assert first["dataset"] == [str(folder)]
    assert os.path.getsize(first["index_path"]) == first["index_bytes"]
    assert first["data_bytes"] == sum(path.stat().st_size for path in folder.rglob("*.jpg"))
    assert tool.json("index", folder)["built"] is False
    again = tool.json("index", folder, "--rebuild")
    assert again["built"] is True
    assert again["fingerprint"] == first["fingerprint"]
    output = tool("index", folder)
    assert "60 samples, 3 classes" in output
    assert first["index_path"] in output


def test_what_is_no_data_set_fails_with_its_name(tool, tmp_path):
    tool("index", tmp_path / "absent", code=1)
    assert "absent" in tool.error
    (tmp_path / "empty").mkdir()
    tool("index", tmp_path / "empty", code=1)
    assert "empty" in tool.error
    tool("ls", tmp_path / "absent", code=1)
    tool("bench", tmp_path / "absent", code=1)


def test_ls_folder(tool, folder):
    listed = tool.json("ls", folder)
    assert listed["total"] == len(listed["samples"]) == 60
    sample = listed["samples"][21]
    path = folder / "bee" / "001.jpg"
    assert sample == {
        "id": 21,
        "name": "bee/001.jpg",
        "path": str(path),
        "label": 1,
        "class": "bee",
        "bytes": path.stat().st_size,
    }
    lines = tool("ls", folder).splitlines()
    assert len(lines) == 60
    assert lines[21].split() == ["21", "bee", str(path.stat().st_size), "bee/001.jpg"]
    assert len(tool("ls", folder, "--limit", 7).splitlines()) == 7
    cats = tool.json("ls", folder, "--class", "cat", "--limit", 3)
    assert cats["total"] == 20
    assert [sample["id"] for sample in cats["samples"]] == [40, 41, 42]
    assert tool.json("ls", folder, "--class", "2")["total"] == 20
    tool("ls", folder, "--class", "dog", code=2)


def test_ls_tars(tool, folder, tmp_path):
    for shard in range(2):
        with tarfile.open(tmp_path / f"s{shard}.tar", "w") as tar:
            for key in range(3):
                data = (folder / "ant" / f"{key:03}.jpg").read_bytes()
                for name, content in ((f"{key}.jpg", data), (f"{key}.cls", b"%d" % key)):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    listed = tool.json("ls", f"{tmp_path}/s{{0..1}}.tar")["samples"]
    assert [sample["id"] for sample in listed] == [0, 1, 2, 1 << 32, (1 << 32) + 1, (1 << 32) + 2]
    assert listed[4]["name"] == "s1.tar:1"
    assert listed[4]["label"] == 1
    assert listed[4]["bytes"] == (folder / "ant" / "001.jpg").stat().st_size
    assert tool.json("index", tmp_path / "s0.tar", tmp_path / "s1.tar")["shards"] == 2


def test_names_cannot_play_with_the_terminal(tool, folder, tmp_path):
    (tmp_path / "data" / "a").mkdir(parents=True)
    odd = os.fsencode(tmp_path / "data" / "a") + b"/\x1b[2J\xff\n.jpg"
    shutil.copy(folder / "ant" / "000.jpg", odd)
    output = tool("ls", tmp_path / "data")
    assert "\\x1b[2J" in output
    assert "\x1b" not in output
    assert len(output.splitlines()) == 1
    assert len(tool.json("ls", tmp_path / "data")["samples"]) == 1


def test_show_gives_the_trainers_pixels(tool, folder, tmp_path):
    penstock = pytest.importorskip("penstock")
    from penstock import transforms as T

    loader = penstock.DataLoader(
        folder,
        transforms=[T.RandomResizedCrop(32), T.RandomHorizontalFlip()],
        seed=5,
        output="numpy",
    )
    with loader:
        expected = loader.sample(17, epoch=3)[0].transpose(1, 2, 0)
    out = tmp_path / "x.png"
    facts = tool.json("show", folder, 17, "--epoch", 3, "--seed", 5, "--size", 32, "-o", out)
    assert facts["path"] == str(folder / "ant" / "017.jpg")
    assert (facts["width"], facts["height"], facts["label"]) == (32, 32, 0)
    assert np.array_equal(np.asarray(Image.open(out)), expected)


def test_show_eval_and_stored(tool, folder, tmp_path):
    out = tmp_path / "x.png"
    tool("show", folder, 3, "--transform", "eval", "--size", 48, "-o", out)
    assert Image.open(out).size == (48, 48)
    tool("show", folder, 3, "--transform", "none", "-o", out)
    stored = Image.open(folder / "ant" / "003.jpg").convert("RGB")
    assert np.array_equal(np.asarray(Image.open(out)), np.asarray(stored))
    assert "not saved" in tool("show", folder, 3)


def test_show_errors(tool, bad_folder, tmp_path):
    tool("show", bad_folder, 61, "-o", tmp_path / "x.png", code=2)
    tool("show", bad_folder, 0, "-o", tmp_path / "x.txt", code=2)
    tool("show", bad_folder, 0, "-o", tmp_path / "absent" / "x.png", code=1)
    for transform in ("train", "none"):
        tool("show", bad_folder, 20, "-o", tmp_path / "x.png", "--transform", transform, code=1)
        assert "cut.jpg" in tool.error
    assert list(tmp_path.glob("*.png")) == list(tmp_path.glob(".penstock-*")) == []


# ---- serve, stop, status, logs, errors -----------------------------------------------------------


def test_serve_status_stop(tool):
    daemon = tool.serve("--threads", 2, "--log-level", "debug")
    status = tool.json("status", "--address", tool.socket)
    assert status["jobs"] == []
    (one,) = status["daemons"]
    assert one["pid"] == daemon.pid
    assert one["socket"] == str(tool.socket)
    assert one["private"] is False
    assert "no trainer is attached" in tool("status", "--address", tool.socket)
    assert tool.json("stop", "--address", tool.socket) == {
        "stopped": [{"address": str(tool.socket), "pid": daemon.pid}]
    }
    assert daemon.wait(SECONDS_MAX) == 0
    assert not tool.socket.exists()
    tool("stop", "--address", tool.socket, code=1)
    tool("status", "--address", tool.socket, code=1)


def test_serve_drains_on_sigterm_and_refuses_a_taken_socket(tool):
    daemon = tool.serve()
    second = tool.start("serve", "--socket", tool.socket)
    assert second.wait(SECONDS_MAX) != 0
    assert str(tool.socket) in second.communicate()[1]
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(SECONDS_MAX) == 0
    assert not tool.socket.exists()


def test_serve_in_the_background(tool):
    started = tool.json("serve", "--background", "--socket", tool.socket, "--io", "pread")
    assert is_answered(tool.socket)
    assert "event=started" in Path(started["log_file"]).read_text()
    tool("serve", "--background", "--socket", tool.socket, code=1)
    stopped = tool.json("stop", PENSTOCK_ADDRESS=str(tool.socket))
    assert stopped["stopped"][0]["pid"] == started["pid"]


def test_a_daemon_that_hangs_is_named_and_not_waited_for(tool):
    daemon = tool.serve()
    daemon.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        commands = ["status", "logs", "errors", "stop", "doctor"]
        asked = [tool.start(command, "--address", tool.socket) for command in commands]
        top = tool.start("top", "--address", tool.socket)
        said = [process.communicate(timeout=SECONDS_MAX) for process in asked]
        assert [process.returncode for process in asked] == [1] * len(commands)
        for output, errors in said:
            assert f"kill -9 {daemon.pid}" in output + errors
        assert "Traceback" not in "".join(errors for _output, errors in said)
        top.stdout.readline()  # the time
        assert f"kill -9 {daemon.pid}" in top.stdout.readline()
        top.send_signal(signal.SIGINT)
        top.communicate(timeout=SECONDS_MAX)
        assert time.monotonic() - began < 40  # 5 s, but for the start of six interpreters
    finally:
        daemon.send_signal(signal.SIGCONT)


def test_another_daemon_is_shown_beside_one_that_hangs(tool):
    hanging = tool.serve(path=tool.runtime / "one.sock")
    tool.serve(path=tool.runtime / "two.sock")
    hanging.send_signal(signal.SIGSTOP)
    try:
        assert "two.sock" in tool("status", code=1)
        assert f"kill -9 {hanging.pid}" in tool.error
        assert "event=started" in tool("logs")
    finally:
        hanging.send_signal(signal.SIGCONT)


ELSEWHERE = """
import asyncio, ctypes, logging, multiprocessing, os, shutil, signal, socket, subprocess, sys
import tempfile
import numpy  # they ask sys.platform too, and are right
for name in ("fcntl", "pwd", "grp", "resource", "termios", "penstock._native"):
    sys.modules[name] = None
for module, names in (
    (os, "getuid geteuid getgid memfd_create sched_getaffinity killpg O_NOFOLLOW O_CLOEXEC"),
    (socket, "AF_UNIX SOCK_CLOEXEC MSG_CMSG_CLOEXEC SO_PEERCRED send_fds"),
    (signal, "SIGPIPE SIGKILL SIGHUP"),
):
    for name in names.split():
        delattr(module, name)
sys.platform = PLATFORM
import penstock
from penstock.cli import main
import penstock.transforms, penstock.loader, penstock.batch, penstock.dataset
try:
    penstock.DataLoader("x")
except penstock.PlatformError as error:
    print("loader:", error)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_imports_and_help_work_anywhere(tool, system):
    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-c", ELSEWHERE.replace("PLATFORM", repr(system)), *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            env=tool.environment,
        )

    for arguments in (["--help"], ["serve", "--help"]):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
        assert "usage: penstock" in done.stdout
        assert f"loader: Penstock's daemon runs on Linux only, this is {system}" in done.stdout
    for command in ("status", "serve", "stop"):
        done = run(command)
        assert done.returncode == 1 and "Linux only" in done.stderr, done.stderr
    done = run("doctor")
    assert done.returncode == 1 and "FIX platform" in done.stdout, done.stderr


def test_nothing_runs(tool):
    for command in ("status", "stop", "logs", "errors"):
        tool(command, code=1)
        assert "no daemon is running" in tool.error


def test_several_daemons(tool):
    paths = [tool.runtime / name for name in ("one.sock", "two.sock")]
    for path in paths:
        tool.serve(path=path)
    assert [one["socket"] for one in tool.json("status")["daemons"]] == list(map(str, paths))
    for command in ("stop", "logs"):
        tool(command, code=1)
        assert "--address" in tool.error
    assert len(tool.json("stop", "--all")["stopped"]) == 2
    tool("status", code=1)


class Trainer(threading.Thread):
    """Takes batches until it is told to end."""

    def __init__(self, folder: Path, address: Path) -> None:
        super().__init__()
        import penstock
        from penstock import transforms as T

        self.loader = penstock.DataLoader(
            folder,
            batch_size=8,
            transforms=[T.RandomResizedCrop(32)],
            on_error="zero",
            output="numpy",
            job="my job",
            address=address,
            rank=0,
            world_size=1,
        )
        self.has_epoch = threading.Event()
        self.is_ending = threading.Event()

    def run(self) -> None:
        with self.loader:
            while not self.is_ending.is_set():
                for _batch in self.loader:
                    time.sleep(0.01)
                self.has_epoch.set()

    def __enter__(self) -> Trainer:
        self.start()
        assert self.has_epoch.wait(SECONDS_MAX)
        return self

    def __exit__(self, *exc: object) -> None:
        self.is_ending.set()
        self.join(SECONDS_MAX)


def test_status_and_errors_of_a_job(tool, bad_folder):
    tool.serve()
    address = ("--address", tool.socket)
    assert tool.json("errors", *address)["errors"] == []
    with Trainer(bad_folder, tool.socket):
        (job,) = tool.json("status", *address)["jobs"]
        output = tool("status", *address)
    assert (job["job"], job["rank"], job["world"]) == ("my job", 0, 1)
    assert job["batches_per_epoch"] == 8
    assert job["epoch"] >= 1
    assert job["bad_samples"] >= 1
    assert job["ring_slots"] >= 2
    assert job["verdict"]
    header, row = output.splitlines()[1:3]
    assert header.split() == "JOB RANK EPOCH/STEP IMAGES/S WAIT% RING BAD VERDICT".split()
    assert row.startswith("my job   0/1 ")
    found = tool.json("errors", "-n", 1, *address)
    (error,) = found["errors"]
    assert found["total"] >= 1
    assert error["sample_id"] == 20
    assert error["name"].endswith("ant/cut.jpg")
    assert "cut.jpg" in tool("errors", *address)


def test_watch_ends_quietly_with_ctrl_c(tool):
    tool.serve()
    for command in (("status", "--watch"), ("top",)):
        process = tool.start(*command, "--interval", "0.1", "--address", tool.socket, "--json")
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert all(line["jobs"] == [] for line in lines)
        process.send_signal(signal.SIGINT)
        _output, errors = process.communicate(timeout=SECONDS_MAX)
        assert (process.returncode, errors) == (130, "")


def test_logs(tool):
    tool.serve()
    address = ("--address", tool.socket)
    lines = tool.json("logs", *address)["lines"]
    assert any("event=started" in line for line in lines)
    assert tool("logs", "-n", 1, *address).count("\n") == 1
    follower = tool.start("logs", "--follow", *address)
    assert follower.stdout.readline().strip() == lines[0]
    tool("stop", *address)
    _output, errors = follower.communicate(timeout=SECONDS_MAX)
    assert follower.returncode == 0
    assert "has left" in errors


def test_logs_of_a_private_daemon_that_has_left(tool, folder):
    tool("index", folder)
    tool("stop")
    assert "event=stopped" in tool("logs", "-n", 3)
    assert "event=started" in "".join(tool.json("logs")["lines"])


# ---- bench, doctor -------------------------------------------------------------------------------


def assert_figures(report: dict) -> None:
    assert report["images_per_second"] > 0
    assert report["cpu_seconds_per_image"] > 0
    assert report["samples"] > 0
    assert 0 < report["first_batch_seconds"] < SECONDS_MAX
    assert 0 <= report["wait_ratio"] <= 1
    assert 0 <= report["wait_p50_seconds"] <= report["wait_p99_seconds"]


def test_bench(tool, bad_folder):
    arguments = ("bench", bad_folder, "--batch-size", 8, "--size", 32, "--threads", 1)
    report = tool.json(*arguments, "--seconds", 0.5)
    assert_figures(report)
    assert report["bad_samples"] >= 1
    assert (report["threads"], report["transform"], report["size"]) == (1, "train", 32)
    assert report["limited_by"]
    assert report["version"]
    slow = tool.json(*arguments, "--seconds", 0.5, "--step-ms", 50, "--transform", "eval")
    assert slow["images_per_second"] < 8 / 0.050
    assert slow["wait_ratio"] < 0.5
    assert "images/s" in tool(*arguments, "--seconds", 0.2)
    assert list(tool.runtime.glob("*.sock")) == []


def test_bench_refuses_what_this_version_lacks(tool, folder):
    tool("bench", folder, "--quality", "fast", code=2)
    tool("bench", folder, "--prepared", code=2)


def daemons_of(folder: Path) -> list[str]:
    """Command lines of daemons whose files are under `folder`."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "penstockd" in line and str(folder) in line:
            lines.append(line)
    return lines


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_bench_interrupted_leaves_nothing(tool, folder, number, code):
    bench = tool.start("bench", folder, "--size", 32, "--seconds", 60, TMPDIR=str(tool.base))
    deadline = time.monotonic() + SECONDS_MAX
    while not daemons_of(tool.base):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)
    bench.send_signal(number)
    output, errors = bench.communicate(timeout=SECONDS_MAX)
    assert (bench.returncode, output, errors) == (code, "", "")
    assert daemons_of(tool.base) == []
    assert list(tool.base.glob("penstock-*")) == []


def test_bench_against_torch(tool, folder):
    pytest.importorskip("torch")
    report = tool.json(
        "bench", folder, "--batch-size", 8, "--size", 32, "--threads", 1, "--seconds", 0.5,
        "--against", "torch",
    )  # fmt: skip
    assert_figures(report)
    assert_figures(report["against"])
    assert report["ratio"] == pytest.approx(
        report["images_per_second"] / report["against"]["images_per_second"]
    )
    assert report["verdict"]


def test_doctor(tool):
    report = tool.json("doctor")
    assert report["ok"] is True
    names = {check["name"] for check in report["checks"]}
    assert {"daemon binary", "daemon starts", "reading", "kernels", "cache folder"} <= names
    assert {"memory", "CPUs", "locked memory", "open files", "runtime folder"} <= names
    assert all(line.startswith("OK ") for line in tool("doctor").splitlines())


def fixes(tool: Tool, **environment: str) -> dict[str, str]:
    """What doctor would have mended, by name of the check."""
    process = tool.start("doctor", "--json", **environment)
    report = json.loads(process.communicate(timeout=SECONDS_MAX)[0])
    assert process.returncode == 1
    assert report["ok"] is False
    return {check["name"]: check["fix"] for check in report["checks"] if not check["ok"]}


def test_doctor_names_what_mends_it(tool):
    stale = tool.runtime / "stale.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stale))
    assert fixes(tool) == {"stale socket": f"rm {stale}"}
    stale.unlink()
    assert fixes(tool, PENSTOCK_ADDRESS="/absent") == {"daemon": "unset PENSTOCK_ADDRESS"}
    assert "daemon binary" in fixes(tool, PENSTOCK_DAEMON="/absent/penstockd")
    (tool.base / "file").write_text("")
    found = fixes(tool, PENSTOCK_CACHE=str(tool.base / "file"))
    assert found == {"cache folder": "export PENSTOCK_CACHE=/path/on/a/local/disk"}


class OldDaemon(threading.Thread):
    """Answers as a daemon of another version."""

    def __init__(self, path: Path, protocol: int) -> None:
        super().__init__(daemon=True)
        self._protocol = protocol
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self.asked: list[str] = []
        self.start()

    def run(self) -> None:
        while "stop" not in self.asked:
            with self._listener.accept()[0] as peer:
                length = peer.recv(4)
                if len(length) < 4:
                    continue  # only looked whether somebody is there
                self.asked.append(json.loads(peer.recv(int.from_bytes(length, "little")))["op"])
                body = {"ok": True, "protocol": self._protocol, "version": "0.0.1", "pid": 1}
                text = json.dumps(body).encode()
                peer.sendall(len(text).to_bytes(4, "little") + text)
        self._listener.close()


@pytest.mark.parametrize("protocol", [0, 1])
def test_daemon_of_another_version(tool, protocol):
    path = tool.runtime / "old.sock"
    old = OldDaemon(path, protocol)
    assert fixes(tool) == {"daemon": f"penstock stop --address {path}"}
    tool("stop", "--address", path)
    old.join(SECONDS_MAX)
    assert old.asked[-1] == "stop"
