"""kill -9 of the daemon: the trainer goes on with exactly the next batch, within 2 s."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import queue
import random
import threading
import time

import penstock
import pytest
import rig
from penstock import transforms as T

BATCH = 12
WAIT_SECONDS_MAX = 2.0
TRAIN = [T.RandomResizedCrop(96), T.RandomHorizontalFlip()]
COUNTS = [10, pytest.param(200, marks=pytest.mark.long)]


def make(dataset, **more):
    arguments = {"shuffle": True, "seed": 4, "transforms": TRAIN, "output": "numpy", **more}
    return penstock.DataLoader(dataset, BATCH, **arguments)


def uninterrupted(place, dataset, epochs, **more):
    """What `epochs` epochs are when nothing happens."""
    with place.daemon(name="reference") as daemon:
        loader = make(dataset, address=daemon.socket, **more)
        result = [[rig.facts(batch) for batch in loader] for _ in range(epochs)]
        loader.close()
    return result


class Killer:
    """Kills what `find` names, a random few milliseconds after it is asked to; then `after()`."""

    def __init__(self, find, seed, after=None):
        self.find, self.after = find, after
        self.count = 0
        self.failure = None
        self._draw = random.Random(seed)
        self._asked = queue.Queue()
        self._thread = threading.Thread(target=self._run)

    def ask(self):
        """One more kill, soon."""
        self._asked.put(True)

    def _run(self):
        while self._asked.get():
            try:
                time.sleep(self._draw.choice([0, 0.001, 0.005, 0.02]) * self._draw.random())
                os.kill(rig.until("a daemon to kill", self._found, 20), 9)
                self.count += 1
                if self.after is not None:
                    self.after()
            except BaseException as failure:
                self.failure = failure
                return

    def _found(self):
        with contextlib.suppress(OSError, ValueError):
            return self.find()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._asked.put(False)
        self._thread.join()
        assert self.failure is None, self.failure


def train_under_fire(loader, killer, kills, expected, seed):
    """Epochs of `loader` until `kills` were asked for; the longest wait for a batch."""
    draw = random.Random(seed)
    asked, until_next = 0, draw.randrange(1, 8)
    longest = 0.0
    kept = []
    while asked < kills:
        epoch = loader.epoch
        found = []
        batches = iter(loader)
        while True:
            begun = time.monotonic()
            batch = next(batches, None)
            longest = max(longest, time.monotonic() - begun)
            if batch is None:
                break
            found.append(rig.facts(batch))
            kept = [(found[-1], batch), *kept[:2]]
            until_next -= 1
            if until_next == 0 and asked < kills:
                killer.ask()
                asked += 1
                until_next = draw.randrange(1, 12)
        same = [(epoch, *fact[1:]) for fact in expected[epoch % len(expected)]]
        assert [fact[1:3] for fact in found] == [fact[1:3] for fact in same]
        assert found == same
        if loader.epoch == len(expected):
            loader.set_epoch(0)
    assert all(rig.facts(batch) == fact for fact, batch in kept)
    return longest


def nothing_is_left(links_before, shm_before):
    """Neither descriptors nor mappings nor names of ours in this process or /dev/shm."""
    links = rig.fd_links(os.getpid())
    new = collections.Counter(links) - collections.Counter(links_before)
    assert [link for link in new if "penstock" in link] == []
    assert len(links) <= len(links_before)
    with open("/proc/self/maps") as maps:
        assert "penstock-ring" not in maps.read()
    assert sorted(os.listdir("/dev/shm")) == shm_before


@pytest.mark.parametrize("kills", COUNTS)
@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_private_daemon(place, datasets, kind, kills):
    expected = uninterrupted(place, datasets[kind], 3)
    links, shm = rig.fd_links(os.getpid()), sorted(os.listdir("/dev/shm"))
    loader = make(datasets[kind])
    with Killer(place.private_pid, seed=1) as killer:
        longest = train_under_fire(loader, killer, kills, expected, seed=2)
    assert killer.count == kills
    assert longest < WAIT_SECONDS_MAX * rig.PATIENCE
    loader.close()
    del loader
    nothing_is_left(links, shm)
    pid = place.private_pid()
    os.kill(pid, 15)
    rig.until("the last daemon ends", lambda: not place.processes())
    kinds = {path.suffix for path in (place.runtime / "penstock").iterdir()}
    assert kinds <= {".lock", ".log"}


@pytest.mark.parametrize("kills", COUNTS)
def test_served_daemon_that_is_started_again(place, datasets, kills):
    """As systemd would do it; the socket that the dead one left is taken over."""
    expected = uninterrupted(place, datasets["folder"], 3)
    daemons = [place.daemon()]

    def start_again():
        daemons[-1].process.wait()
        daemons.append(place.daemon())

    loader = make(datasets["folder"], address=daemons[0].socket)
    with Killer(lambda: daemons[-1].pid, seed=5, after=start_again) as killer:
        longest = train_under_fire(loader, killer, kills, expected, seed=6)
    loader.close()
    assert longest < WAIT_SECONDS_MAX * rig.PATIENCE
    assert daemons[-1].stop() == 0
    assert not rig.FINDING.search(daemons[-1].said().encode())


@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.long)])
def test_ranks_in_processes_of_their_own(place, datasets, kills):
    """All ranks go on, together with one new daemon."""
    members = {"batch_size": BATCH, "shuffle": True, "seed": 4, "world_size": 2}
    expected = []
    with place.daemon(name="reference") as daemon:
        for rank in range(2):
            more = {**members, "address": daemon.socket, "rank": rank}
            with rig.Trainer({}, dataset=datasets["folder"], epochs=3, loader=more) as trainer:
                expected.append([line.facts for line in trainer.lines()])
    per_run = 5
    for number in range(kills // per_run):
        with contextlib.ExitStack() as stack:
            trainers = [
                stack.enter_context(
                    rig.Trainer(
                        {},
                        dataset=datasets["folder"],
                        epochs=3,
                        step_seconds=0.01,
                        loader={**members, "rank": rank},
                    )
                )
                for rank in range(2)
            ]
            seen = [[trainer.next()] for trainer in trainers]
            readers = [
                threading.Thread(target=lambda s=s, t=t: s.extend(t.lines()))
                for s, t in zip(seen, trainers, strict=True)
            ]
            for reader in readers:
                reader.start()
            with Killer(place.private_pid, seed=number) as killer:
                for _ in range(per_run):
                    killer.ask()
            for reader, trainer in zip(readers, trainers, strict=True):
                reader.join()
                status, errors = trainer.finish()
                assert status == 0, errors
        assert [[line.facts for line in lines] for lines in seen] == expected
        for lines in seen:
            gaps = [b.at - a.at for a, b in itertools.pairwise(lines)]
            assert max(gaps) < WAIT_SECONDS_MAX * rig.PATIENCE
        rig.until("one daemon", lambda: len(place.processes()) <= 1)


def test_killed_while_it_indexes(place, tmp_path):
    """Before there is an index, or a first batch: the client starts another and asks again."""
    expected = uninterrupted(place, rig.make_folder(tmp_path / "data", 60), 1)[0]
    for number in range(6):
        dataset = rig.make_folder(tmp_path / f"data{number}", 60)
        loaders = []
        with Killer(place.private_pid, seed=number) as killer:
            killer.ask()
            loader = make(dataset)
            loaders.append(loader)
            assert [rig.facts(batch) for batch in loader] == expected
            loader.close()
