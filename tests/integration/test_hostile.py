"""Clients that break every rule: the daemon lives, and the well-behaved one beside sees nothing."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import mmap
import os
import random
import socket

import pytest
import rig

ROUNDS = [20, pytest.param(400, marks=pytest.mark.long)]
LOADER = {"batch_size": 12, "shuffle": True, "seed": 4}
PAGE = 4096


def expected_lines(place, dataset):
    with (
        place.daemon(name="reference") as daemon,
        rig.Trainer(
            {}, dataset=dataset, epochs=2, loader={**LOADER, "address": daemon.socket}
        ) as trainer,
    ):
        return [line.facts for line in trainer.lines()]


def scribble(memory, draw, slot_count):
    """Words of every sort over everything that can be written."""
    kind = draw.randrange(4)
    if kind == 0:  # the release page: generations near the true ones
        for slot in range(slot_count):
            word = draw.choice([0, 1, 2, 3, 2**32 - 1, draw.getrandbits(32)])
            memory[PAGE + 4 * slot : PAGE + 4 * slot + 4] = word.to_bytes(4, "little")
    elif kind == 1:  # the header: counts, entries
        at = draw.randrange(0, PAGE - 8)
        memory[at : at + 8] = draw.randbytes(8)
    elif kind == 2:  # all of the first two pages
        memory[: 2 * PAGE] = draw.randbytes(2 * PAGE)
    else:  # slots, their headers included
        for _ in range(50):
            at = draw.randrange(2 * PAGE, len(memory) - 64)
            memory[at : at + 64] = draw.randbytes(64)


def attack(daemon, dataset, draw):
    """Attach, scribble, ring, seek, leave."""
    with rig.Control(daemon.socket) as control:
        answer = control.ask("attach", **rig.attach_members(dataset, slots=4))
        assert answer["ok"], answer
        memory_fd, release_fd = control.fds[:2]
        with mmap.mmap(memory_fd, answer["region_bytes"]) as memory:
            for _ in range(draw.randrange(5, 40)):
                scribble(memory, draw, 4)
                with contextlib.suppress(OSError):
                    os.write(release_fd, draw.choice([1, 2**40]).to_bytes(8, "little"))
                if draw.random() < 0.2:
                    control.ask(
                        "seek",
                        epoch=draw.randrange(4),
                        position=draw.randrange(600),
                        taken=draw.getrandbits(draw.choice([2, 32])),
                    )
                if draw.random() < 0.1:
                    assert control.ask("stats")["ok"]
        flags = fcntl.fcntl(release_fd, fcntl.F_GETFL)
        fcntl.fcntl(release_fd, fcntl.F_SETFL, flags & ~os.O_NONBLOCK)
        for size in (0, PAGE, answer["region_bytes"] * 2):
            with contextlib.suppress(OSError):
                os.ftruncate(memory_fd, size)
        assert os.fstat(memory_fd).st_size == answer["region_bytes"]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_a_scribbling_client(place, datasets, rounds):
    expected = expected_lines(place, datasets["folder"])
    draw = random.Random(7)
    with place.daemon() as daemon:
        order = {"dataset": datasets["folder"], "loader": {**LOADER, "address": daemon.socket}}
        with rig.Trainer({}, **order, epochs=2, pace="asked") as good:
            lines = []
            for number in itertools.count():
                if number < rounds:
                    attack(daemon, datasets["folder"], draw)
                elif len(lines) == len(expected):
                    break
                if len(lines) < len(expected):
                    good.tell()
                    lines.append(good.next().facts)
            assert lines == expected
        assert daemon.is_alive()


def garbage(draw):
    """Bytes for the control socket."""
    kind = draw.randrange(5)
    if kind == 0:
        return draw.randbytes(draw.randrange(1, 4000))
    if kind == 1:
        return draw.choice([2**32 - 1, 2**24, 16 * 2**20 + 1]).to_bytes(4, "little") + b"x" * 100
    if kind == 2:
        body = b'{"op": "attach"'
        return (len(body) + 50).to_bytes(4, "little") + body  # half a message
    body = draw.choice(
        [b"[]", b"null", b'{"op": 5}', b'{"op": "hello", "protocol": "x"}', b"{" * 5000, b""]
    )
    return len(body).to_bytes(4, "little") + body


@pytest.mark.parametrize("rounds", [200, pytest.param(5000, marks=pytest.mark.long)])
def test_garbage_on_the_socket(place, datasets, rounds):
    draw = random.Random(11)
    with place.daemon() as daemon:
        fds = len(rig.fd_links(daemon.pid))
        for _ in range(rounds):
            with rig.Control(daemon.socket) as control:
                with contextlib.suppress(OSError):
                    many = [0] * draw.choice([0, 0, 1, 4, 60])
                    control.send_bytes(garbage(draw), many)
                if draw.random() < 0.3:
                    control.socket.shutdown(socket.SHUT_WR)
                    with contextlib.suppress(OSError, ConnectionError, ValueError):
                        control.receive()
        with rig.Control(daemon.socket) as control:
            assert control.ask("hello", protocol=1, version="0", pid=1)["ok"]
        rig.until("all descriptors are closed", lambda: len(rig.fd_links(daemon.pid)) <= fds + 1)


def test_thousands_of_connections(place, datasets):
    with place.daemon() as daemon, contextlib.ExitStack() as stack:
        for _ in range(800):
            stack.enter_context(rig.Control(daemon.socket))
        assert daemon.ask("attach", **rig.attach_members(datasets["folder"]))["slots"] == 4


def test_requests_before_the_answer(place, datasets):
    with place.daemon() as daemon:
        with rig.Control(daemon.socket) as control, contextlib.suppress(OSError):
            for _ in range(50):
                control.send({"op": "dataset", "source": {"urls": [datasets["folder"]]}})
            while True:
                control.receive()
        assert daemon.ask("status")["ok"]


def test_a_subset_that_is_none(place, datasets):
    with place.daemon() as daemon:
        for data in (b"", b"123", (493).to_bytes(8, "little"), b"\xff" * 80):
            fd = os.memfd_create("subset")
            os.write(fd, data)
            with rig.Control(daemon.socket) as control:
                members = rig.attach_members(datasets["folder"], subset=True)
                answer = control.ask("attach", fds=[fd], **members)
                assert not answer["ok"] and answer["error"]["message"]
            os.close(fd)
        with rig.Control(daemon.socket) as control:
            assert not control.ask("attach", **rig.attach_members(datasets["folder"], subset=True))[
                "ok"
            ]
