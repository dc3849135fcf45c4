"""What goes wrong around a loader: a dead daemon, forks, spawns, interrupts, exits."""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time

import penstock
import pytest
from penstock import transforms as T

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")

TRAIN = [T.RandomResizedCrop(96), T.RandomHorizontalFlip()]


def make(folder, batch_size=4, **more):
    arguments = {"shuffle": True, "seed": 2, "transforms": TRAIN, **more}
    return penstock.DataLoader(folder, batch_size, **arguments)


def facts(batch):
    return (batch.epoch, batch.step, batch.sample_ids.tolist(), int(batch[0].numpy().sum()))


def daemon_pid(loader):
    return loader._session._client.hello["pid"]


def wait_until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_a_killed_private_daemon_is_not_noticed_in_the_batches(folder):
    expected = [facts(batch) for epoch in range(2) for batch in make(folder, seed=2 + 0 * epoch)]
    expected = expected[: len(expected) // 2]
    loader = make(folder)
    seen, longest = [], 0.0
    began = time.monotonic()
    for batch in loader:
        longest = max(longest, time.monotonic() - began)
        seen.append(facts(batch))
        if batch.step in (1, 6, 7):
            os.kill(daemon_pid(loader), signal.SIGKILL)
        began = time.monotonic()
    assert seen == expected
    assert longest < 2.0
    assert loader.epoch == 1


def test_killed_between_epochs_and_before_the_first(folder):
    loader = make(folder)
    os.kill(loader._link.get().hello["pid"], signal.SIGKILL)
    first = [facts(batch) for batch in loader]
    os.kill(daemon_pid(loader), signal.SIGKILL)
    assert {batch.epoch for batch in loader} == {1}
    loader.set_epoch(0)
    assert [facts(batch) for batch in loader] == first
    os.kill(daemon_pid(loader), signal.SIGKILL)
    assert len(loader) == 15
    assert loader.stats()["batches"] == 45


def test_held_tensors_survive_the_daemon(folder):
    loader = make(folder)
    iterator = iter(loader)
    batch = next(iterator)
    expected = batch[0].clone()
    os.kill(daemon_pid(loader), signal.SIGKILL)
    for other in iterator:
        other[0].fill_(1)
    assert torch.equal(batch[0], expected)


@pytest.fixture
def served(tmp_path):
    """A daemon at an address of its own: start() and stop()."""
    from penstock._daemon import daemon_binary

    path = tmp_path / "own.sock"
    running = []

    def start(wait=True):
        command = [daemon_binary(), "--foreground", "--socket", str(path), "--threads", "1"]
        with open(tmp_path / "log", "ab") as log:
            running.append(subprocess.Popen(command, stderr=log, stdout=log))
        assert not wait or wait_until(path.exists)
        return running[-1]

    def stop():
        running[-1].kill()
        running[-1].wait()

    start()
    yield path, start, stop
    stop()


def test_a_daemon_at_an_address_may_restart(folder, served):
    path, start, stop = served
    expected = [facts(batch) for batch in make(folder, address=path)]
    loader = make(folder, address=path)
    seen = []
    for batch in loader:
        seen.append(facts(batch))
        if batch.step == 3:
            stop()
            start(wait=False)
    assert seen == expected


def test_a_daemon_that_stays_away_is_an_error(folder, served, monkeypatch):
    from penstock import _link

    monkeypatch.setattr(_link, "RETRY_SECONDS", 0.2)
    path, start, stop = served
    loader = make(folder, address=path)
    iterator = iter(loader)
    next(iterator)
    stop()
    with pytest.raises(penstock.DaemonError, match="no daemon answers"):
        list(iterator)
    start()
    assert len(list(loader)) == 15


def test_timeout(folder, served):
    path, _start, _stop = served
    loader = make(folder, address=path, timeout=0.3)
    iterator = iter(loader)
    next(iterator)
    pid = daemon_pid(loader)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(penstock.WaitTimeoutError, match=r"timeout=0\.3"):
            for _ in range(8):
                next(iterator)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert len(list(loader)) == 15


def test_changed_data_is_noticed_after_a_restart(tmp_path):
    from conftest import make_folder, make_picture

    folder = make_folder(tmp_path / "data", per_class=8)
    loader = make(folder)
    iterator = iter(loader)
    next(iterator)
    make_picture(1, 50, 50).save(folder / "ant" / "new.jpg")
    os.kill(daemon_pid(loader), signal.SIGKILL)
    with pytest.raises(penstock.DatasetError, match="has changed"):
        list(iterator)


def child_ids(folder, loader, queue):
    queue.put([batch.sample_ids.tolist() for batch in loader])


def test_a_forked_child_has_its_own_stream(folder):
    loader = make(folder)
    expected = [facts(batch) for batch in make(folder)]
    iterator = iter(loader)
    seen = [facts(next(iterator)) for _ in range(3)]
    held = next(iterator)
    seen.append(facts(held))
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            mine = [facts(batch) for batch in loader]  # restarts the epoch
            rest = [facts(batch) for batch in make(folder)]
            status = 0 if mine == expected and rest == expected else 2
            os.write(writing, repr(len(mine)).encode())
        finally:
            os._exit(status)
    os.close(writing)
    _pid, status = os.waitpid(pid, 0)
    assert os.read(reading, 100) == b"15" and status == 0
    os.close(reading)
    assert facts(held) == seen[3]
    assert seen + [facts(batch) for batch in iterator] == expected


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_loaders_go_to_other_processes(folder, method):
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    loader = make(folder)
    process = context.Process(target=child_ids, args=(folder, loader, queue))
    process.start()
    assert queue.get(timeout=60) == [batch.sample_ids.tolist() for batch in loader]
    process.join(10)
    assert process.exitcode == 0


def run_script(body: str, folder, **more) -> subprocess.Popen:
    script = f"""
import sys, time, os, signal
import penstock
from penstock import transforms as T
folder = {str(folder)!r}
def make(**more):
    return penstock.DataLoader(folder, 4, transforms=[T.Resize((96, 96))], **more)
{textwrap.dedent(body)}
"""
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **more,
    )


def test_interrupt_gives_the_prompt_back_and_the_loader_goes_on(folder):
    process = run_script(
        """
        loader = make()
        reference = [batch.sample_ids.tolist() for batch in loader]
        seen = []
        for batch in loader:
            break
        iterator = iter(loader)
        os.kill(loader._session._client.hello["pid"], signal.SIGSTOP)
        print("ready", flush=True)
        try:
            while True:
                seen.append(next(iterator).sample_ids.tolist())
        except KeyboardInterrupt:
            print("interrupted", time.time(), flush=True)
        os.kill(loader._session._client.hello["pid"], signal.SIGCONT)
        seen += [batch.sample_ids.tolist() for batch in iterator]
        print(seen == reference, flush=True)
        """,
        folder,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    sent = time.time()
    os.killpg(process.pid, signal.SIGINT)
    word, when = process.stdout.readline().split()
    assert word == "interrupted" and float(when) - sent < 1.0
    assert process.stdout.readline() == "True\n", process.stderr.read()
    assert process.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_an_ended_trainer_leaves_nothing(folder, number):
    process = run_script(
        """
        loader = make()
        iterator = iter(loader)
        kept = [next(iterator)]
        print("ready", flush=True)
        while True:
            for batch in loader:
                pass
        """,
        folder,
    )
    assert process.stdout.readline() == "ready\n"
    began = time.monotonic()
    process.send_signal(number)
    process.wait(10)
    assert time.monotonic() - began < 2.0
    assert process.returncode != 0
    assert "Exception ignored" not in process.stderr.read()


def test_exit_with_batches_alive_is_quiet(folder):
    process = run_script(
        """
        loader = make()
        iterator = iter(loader)
        kept = [next(iterator), next(iterator)]
        images = kept[0][0]
        """,
        folder,
    )
    _out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


def test_ranks_started_together_share_one_daemon(folder, tmp_path):
    environment = {**os.environ, "PENSTOCK_CACHE": str(tmp_path / "cache")}
    body = (
        'loader = make(); print(loader._link.get().hello["pid"]); sys.stdout.flush(); len(loader)'
    )
    processes = [run_script(body, folder, env=environment) for _ in range(4)]
    pids = {process.communicate(timeout=60)[0] for process in processes}
    assert len(pids) == 1 and "" not in pids


def test_sockets_in_foreign_folders_are_not_trusted(request, monkeypatch):
    from penstock import _daemon

    base = pathlib.Path(tempfile.mkdtemp(prefix="ps", dir="/tmp"))  # socket paths are short
    request.addfinalizer(lambda: shutil.rmtree(base))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    (base / "elsewhere").mkdir()
    (base / "penstock").symlink_to(base / "elsewhere")
    with pytest.raises(penstock.DaemonError, match="not a folder of this user"):
        _daemon.runtime_folder()
    (base / "penstock").unlink()
    (base / "penstock").mkdir(mode=0o777)
    assert os.stat(_daemon.runtime_folder()).st_mode & 0o777 == 0o700


def test_a_daemon_that_cannot_start_says_why(folder, tmp_path, monkeypatch):
    broken = tmp_path / "penstockd"
    broken.write_text("#!/bin/sh\necho 'no such thing as memory' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PENSTOCK_DAEMON", str(broken))
    with pytest.raises(penstock.DaemonError, match="no such thing as memory"):
        make(folder)
    monkeypatch.setenv("PENSTOCK_DAEMON", str(tmp_path / "missing"))
    with pytest.raises(penstock.DaemonError, match="missing"):
        make(folder)


def test_long_socket_paths(folder, served, tmp_path):
    path, _start, _stop = served
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    os.link(path, deep / "own.sock")
    assert len(make(folder, address=deep / "own.sock")) == 15
    assert len(make(folder, address=f"unix:{path}")) == 15
