"""How a daemon ends: it drains, or it leaves at once; systemd, probes and trainers are told."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest
import rig
from hanging_folder import hanging_folder

pytest.importorskip("mfusepy")

ENGINES = ["io_uring", "pread"]
AT_ONCE_SECONDS = 1.0
DRAIN_SECONDS = 10.0


@pytest.fixture
def hanging(place, folder):
    """The pictures, in a folder that can be made to hang."""
    try:
        mounted = hanging_folder(folder, place.path)
        with mounted as opened:
            yield opened
    except OSError as error:
        pytest.skip(f"no FUSE here: {error}")


def attach(daemon, dataset):
    control = rig.Control(daemon.socket)
    assert control.ask("attach", **rig.attach_members(dataset))["ok"]
    return control


def attach_to_hanging(daemon, hanging):
    """A session whose reads hang. The index is made before, in the daemon's cache."""
    daemon.ask("dataset", source={"urls": [str(hanging.path)]})
    hanging.shut()
    control = attach(daemon, hanging.path)
    time.sleep(0.1)  # to let reads begin; if none has, the daemon drains too soon and it shows
    return control


def seconds_until_it_left(daemon, limit_seconds):
    began = time.monotonic()
    rig.until("an end", lambda: not daemon.is_alive(), limit_seconds)
    assert daemon.process.returncode == 0
    return time.monotonic() - began


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("how", ["request", "signal"])
def test_it_waits_for_reads(place, hanging, engine, how):
    with place.daemon("--io", engine) as daemon:
        control = attach_to_hanging(daemon, hanging)
        if how == "request":
            assert daemon.ask("stop")["pid"] == daemon.pid
        else:
            daemon.process.terminate()
        rig.until("a socket that is gone", lambda: not os.path.exists(daemon.socket))
        time.sleep(0.5)
        assert daemon.is_alive()
        control.ask("stats")  # who is there is served until the end
        hanging.open()
        assert seconds_until_it_left(daemon, 3) < AT_ONCE_SECONDS * rig.PATIENCE
        with pytest.raises(ConnectionError):
            control.ask("stats")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("how", ["request", "second signal"])
def test_it_leaves_at_once(place, hanging, engine, how):
    with place.daemon("--io", engine) as daemon:
        attach_to_hanging(daemon, hanging)
        if how == "request":
            daemon.ask("stop", drain=False)
        else:
            daemon.process.terminate()
            rig.until("a socket that is gone", lambda: not os.path.exists(daemon.socket))
            daemon.process.send_signal(signal.SIGINT)
        assert seconds_until_it_left(daemon, 3) < AT_ONCE_SECONDS * rig.PATIENCE
        assert not os.path.exists(daemon.socket)


@pytest.mark.long
def test_it_waits_ten_seconds_at_most(place, hanging):
    with place.daemon() as daemon:
        attach_to_hanging(daemon, hanging)
        daemon.ask("stop")
        seconds = seconds_until_it_left(daemon, DRAIN_SECONDS + 3)
        assert DRAIN_SECONDS - 1 < seconds < DRAIN_SECONDS + 1


def test_nobody_new_while_it_drains_but_a_new_daemon(place, folder, hanging):
    with place.daemon(name="old") as old:
        there = attach_to_hanging(old, hanging)
        waiting = rig.Control(old.socket)
        old.ask("stop")
        rig.until("a socket that is gone", lambda: not os.path.exists(old.socket))
        with pytest.raises(ConnectionError):
            waiting.ask("attach", **rig.attach_members(folder))
        os.rename(old.log_path, place.path / "first.log")
        with place.daemon(name="old") as new:
            assert attach(new, folder)
            hanging.open()
            assert seconds_until_it_left(old, 3) < AT_ONCE_SECONDS * rig.PATIENCE
            assert os.path.exists(new.socket)
        there.close()


def test_trainers_go_on_with_the_next_daemon(place, folder):
    order = {"dataset": str(folder), "epochs": 1, "pace": "asked"}
    socket_path = str(place.path / "d.sock")
    loader = {"batch_size": 8, "shuffle": True, "seed": 5, "address": socket_path}
    batches = -(-493 // 8)

    def run(stop_at):
        daemon = place.daemon()
        seen = []
        with rig.Trainer({}, **order, loader=loader) as trainer:
            for number in range(batches):
                if number in stop_at:
                    daemon.ask("stop", drain=stop_at[number])
                    daemon.process.wait(5 * rig.PATIENCE)
                    daemon = place.daemon()
                trainer.tell()
                seen.append(trainer.next().facts)
        daemon.stop()
        return seen

    assert run({}) == run({3: True, 17: False, 40: True})


@pytest.mark.parametrize("is_abstract", [False, True])
def test_systemd_is_told(place, folder, is_abstract):
    """Type=notify: READY=1 when it serves, STOPPING=1 when it begins to leave."""
    name = f"\0penstock-test-{os.getpid()}" if is_abstract else str(place.path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell:
        bell.bind(name)
        bell.settimeout(10 * rig.PATIENCE)
        process = rig.subprocess.Popen(
            [rig.daemon_binary(), "--socket", str(place.path / "d.sock"), "--cache", "none"],
            env={**os.environ, "NOTIFY_SOCKET": name.replace("\0", "@")},
            stderr=rig.subprocess.DEVNULL,
        )
        assert bell.recv(100) == b"READY=1"
        with rig.Control(str(place.path / "d.sock")) as control:
            assert control.ask("attach", **rig.attach_members(folder))["ok"]
            process.terminate()
            assert bell.recv(100) == b"STOPPING=1"
            assert process.wait(10 * rig.PATIENCE) == 0
        bell.settimeout(0)
        with pytest.raises(BlockingIOError):
            bell.recv(100)
