"""kill -9 of one of two clients: its session ends within 1 s, the other never notices."""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import time

import pytest
import rig

COUNTS = [10, pytest.param(200, marks=pytest.mark.long)]
LOADER = {"batch_size": 12, "shuffle": True, "seed": 4}


def sessions(daemon):
    return daemon.ask("status")["jobs"]


def expected_lines(place, dataset, epochs):
    with (
        place.daemon(name="reference") as daemon,
        rig.Trainer(
            {}, dataset=dataset, epochs=epochs, loader={**LOADER, "address": daemon.socket}
        ) as trainer,
    ):
        return [line.facts for line in trainer.lines()]


@pytest.mark.parametrize("kills", COUNTS)
def test_the_other_never_notices(place, datasets, kills):
    expected = expected_lines(place, datasets["folder"], 2)
    draw = random.Random(kills)
    with place.daemon() as daemon:
        order = {"dataset": datasets["folder"], "loader": {**LOADER, "address": daemon.socket}}
        fds = None
        for _ in range(kills):
            with (
                rig.Trainer({}, **order, epochs=0, pace="free") as victim,
                rig.Trainer({}, **order, epochs=2, pace="asked") as other,
            ):
                victim.next()
                lines = []
                for _batch in range(draw.randrange(1, 30)):
                    other.tell()
                    lines.append(other.next())
                os.kill(victim.pid, signal.SIGKILL)
                killed = time.monotonic()
                rig.until("one session", lambda: len(sessions(daemon)) == 1, 1.0)
                assert time.monotonic() - killed < 1.0 * rig.PATIENCE
                while len(lines) < len(expected):
                    other.tell()
                    lines.append(other.next())
                assert [line.facts for line in lines] == expected
                gaps = [b.at - a.at for a, b in itertools.pairwise(lines)]
                assert max(gaps) < 1.0 * rig.PATIENCE + 0.5
            rig.until("no session", lambda: not sessions(daemon), 1.0)
            if fds is None:
                fds = len(rig.fd_links(daemon.pid))
        rig.until("descriptors are closed", lambda: len(rig.fd_links(daemon.pid)) <= fds + 2, 1.0)


def test_a_stopped_client_disturbs_nobody(place, datasets):
    expected = expected_lines(place, datasets["folder"], 1)
    with place.daemon() as daemon:
        order = {"dataset": datasets["folder"], "loader": {**LOADER, "address": daemon.socket}}
        with rig.Trainer({}, **order, epochs=0) as sleeper:
            sleeper.next()
            os.kill(sleeper.pid, signal.SIGSTOP)
            with rig.Trainer({}, **order, epochs=1) as other:
                assert [line.facts for line in other.lines()] == expected
            os.kill(sleeper.pid, signal.SIGCONT)


def test_a_forked_child_that_holds_everything_does_not_keep_the_session(place, datasets):
    with place.daemon() as daemon:
        order = {"dataset": datasets["folder"], "loader": {**LOADER, "address": daemon.socket}}
        with rig.Trainer({}, **order, epochs=0, at_batch=2, does="fork") as trainer:
            for _ in range(4):
                trainer.next()
            child = int(re.search(r"child (\d+)", trainer.process.stderr.readline())[1])
            try:
                os.kill(trainer.pid, signal.SIGKILL)
                rig.until("the session ends", lambda: not sessions(daemon), 1.0)
            finally:
                os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_give_the_prompt_back(place, datasets, number):
    with place.daemon() as daemon:
        order = {"dataset": datasets["folder"], "loader": {**LOADER, "address": daemon.socket}}
        with rig.Trainer({}, **order, epochs=0) as trainer:
            trainer.next()
            began = time.monotonic()
            os.kill(trainer.pid, number)
            trainer.finish(5)
            assert time.monotonic() - began < 1.5 * rig.PATIENCE
            rig.until("the session ends", lambda: not sessions(daemon), 1.0)


@pytest.mark.parametrize(("does", "status"), [("raise", 1), ("exit", 7)])
def test_an_exception_in_the_loop(place, datasets, does, status):
    with rig.Trainer(
        place.environment(), dataset=datasets["folder"], loader=LOADER, at_batch=3, does=does
    ) as trainer:
        assert len(list(trainer.lines())) == 3
        assert trainer.finish()[0] == status


def test_an_interrupted_loader_goes_on(place, datasets):
    expected = expected_lines(place, datasets["folder"], 1)
    with rig.Trainer(
        place.environment(), dataset=datasets["folder"], loader=LOADER, at_batch=3, does="interrupt"
    ) as trainer:
        facts = [line.facts for line in trainer.lines()]
        assert trainer.finish()[0] == 0
    assert facts == expected[:3] + expected
