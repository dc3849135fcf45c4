"""What the daemon says of itself is so: threads before they run, shares of time that are shares."""

from __future__ import annotations

import mmap
import os
import time

import pytest
import rig

WAITED_OFFSET_BYTES = mmap.PAGESIZE + 256 * 4  # struct ring_releases in ipc/layout.h


def wait_ratio(daemon):
    (job,) = daemon.ask("status")["jobs"]
    return job["wait_ratio"]


@pytest.mark.parametrize("threads", [None, 3])
def test_threads_are_told_before_there_are_any(place, folder, threads):
    options = ["--threads", str(threads)] if threads else []
    expected = threads or len(os.sched_getaffinity(0))
    with place.daemon(*options) as daemon:
        without = rig.thread_count(daemon.pid)
        for _ in range(2):
            hello = daemon.ask("hello", protocol=1, version="0", pid=os.getpid())
            assert hello["threads"] == expected
            assert daemon.ask("doctor")["threads"] == expected
            assert daemon.ask("status")["daemon"]["threads"] == expected
            control = rig.Control(daemon.socket)
            assert control.ask("attach", **rig.attach_members(folder))["ok"]
            assert rig.thread_count(daemon.pid) >= without + expected
        control.close()


def test_the_wait_ratio_is_a_share_whatever_the_trainer_says(place, folder):
    with place.daemon() as daemon, rig.Control(daemon.socket) as control:
        answer = control.ask("attach", **rig.attach_members(folder))
        with mmap.mmap(control.fds[0], answer["region_bytes"]) as region:

            def tell(waited_ns):
                region[WAITED_OFFSET_BYTES : WAITED_OFFSET_BYTES + 8] = waited_ns.to_bytes(
                    8, "little"
                )

            assert wait_ratio(daemon) == 0
            tell(1_000)
            assert 0 < wait_ratio(daemon) < 1
            for word in (1 << 63, (1 << 64) - 1):
                tell(word)
                assert wait_ratio(daemon) == 1
            tell(0)
            assert wait_ratio(daemon) == 0


@pytest.mark.long
def test_the_wait_ratio_is_that_of_the_last_seconds(place, folder):
    loader = {"batch_size": 8}
    with place.daemon() as daemon:
        loader["address"] = daemon.socket
        order = {"dataset": str(folder), "epochs": 0, "step_seconds": 0.05, "loader": loader}
        with rig.Trainer({}, **order) as trainer:
            trainer.next()
            daemon.process.send_signal(rig.signal.SIGSTOP)
            time.sleep(3)
            daemon.process.send_signal(rig.signal.SIGCONT)
            for _ in range(20):
                trainer.next()
            assert wait_ratio(daemon) > 0.25
            ends = time.monotonic() + 13 * rig.PATIENCE
            while time.monotonic() < ends:
                trainer.next()
            assert wait_ratio(daemon) < 0.1


def test_rates_fall_when_the_trainer_stops(place, folder):
    loader = {"batch_size": 8}
    with place.daemon() as daemon:
        loader["address"] = daemon.socket
        order = {"dataset": str(folder), "epochs": 0, "pace": "asked", "loader": loader}
        with rig.Trainer({}, **order) as trainer:
            rate = 0
            began = time.monotonic()
            while not rate:
                trainer.tell()
                trainer.next()
                rate = daemon.ask("status")["jobs"][0]["images_per_second"]
                assert time.monotonic() - began < 5 * rig.PATIENCE
            rig.until(
                "a rate of none",
                lambda: daemon.ask("status")["jobs"][0]["images_per_second"] == 0,
                10,
            )
