"""Order hash and pixel hash do not depend on how the samples are made, cut, or resumed."""

from __future__ import annotations

import itertools
import json
import random

import numpy as np
import penstock
import pytest
import rig
from penstock import transforms as T

BATCH = 48
WORLDS = [world for world in range(1, 17) if BATCH % world == 0]
TRAIN = [T.RandomResizedCrop(32), T.RandomHorizontalFlip()]
ORDERS = [False, True, "full", "window"]
TAILS = ["drop", "even", "pad"]


def loaders_of(dataset, daemon, world, **more):
    """One loader per rank of `world`; all of them in this process, each with its own session."""
    arguments = {
        "global_batch_size": BATCH,
        "shuffle": True,
        "seed": 11,
        "transforms": TRAIN,
        "output": "numpy",
        "address": daemon.socket,
        **more,
    }
    return [
        penstock.DataLoader(dataset, rank=rank, world_size=world, **arguments)
        for rank in range(world)
    ]


def hash_epochs(loaders, epochs=3, hashes=None):
    """Run all ranks in step to the end of `epochs`; the hashes of what came."""
    hashes = hashes or rig.Hashes()
    while loaders[0].epoch < epochs:
        for batches in zip(*loaders, strict=True):
            hashes.feed(batches)
    for loader in loaders:
        loader.close()
    return hashes.digests()


def expected_count(tail, samples, epochs=3):
    return epochs * (samples // BATCH * BATCH if tail == "drop" else samples)


# ---- world sizes, orders, tails -----------------------------------------------------------------

SHORT = {("folder", True, "even"), ("tar", "window", "pad"), ("tar", True, "drop")}


def cases():
    for kind, order, tail in itertools.product(("folder", "tar"), ORDERS, TAILS):
        marks = [] if (kind, order, tail) in SHORT else [pytest.mark.long]
        yield pytest.param(kind, order, tail, marks=marks)


@pytest.mark.parametrize(("kind", "order", "tail"), list(cases()))
def test_world_sizes(place, datasets, kind, order, tail):
    with place.daemon() as daemon:
        found = {
            world: hash_epochs(
                loaders_of(datasets[kind], daemon, world, shuffle=order, last_batch=tail)
            )
            for world in WORLDS
        }
    assert found[1][0] == expected_count(tail, 493)
    assert set(found.values()) == {found[1]}, found


@pytest.mark.parametrize("kind", ["folder", "tar"])
@pytest.mark.parametrize("order", ORDERS)
def test_an_epoch_is_every_sample_once(place, datasets, kind, order):
    full = penstock.Dataset(datasets[kind])
    everything = full.sample_ids.tolist()
    with place.daemon() as daemon:
        (loader,) = loaders_of(datasets[kind], daemon, 1, shuffle=order)
        epochs = [[i for batch in loader for i in rig.ids_of(batch)] for _ in range(3)]
        loader.close()
    assert all(sorted(ids) == sorted(everything) for ids in epochs)
    if order is False:
        assert epochs == [everything] * 3
    else:
        assert len({tuple(ids) for ids in epochs}) == 3


def test_true_means_full_for_local_data(place, datasets):
    with place.daemon() as daemon:
        for dataset in datasets.values():
            found = [
                hash_epochs(loaders_of(dataset, daemon, 1, shuffle=order), 1)
                for order in (True, "full")
            ]
            assert found[0] == found[1]


# ---- threads, engines, kernels ------------------------------------------------------------------


def engine_cases():
    short = [(1, "io_uring", "scalar"), (2, "pread", "avx2"), (3, "auto", "auto")]
    short += [(8, "io_uring", "avx512"), (5, "pread", "scalar")]
    full = itertools.product(range(1, 9), ("io_uring", "pread"), ("scalar", "avx2", "avx512"))
    for case in short:
        yield pytest.param([case], id="-".join(map(str, case)))
    yield pytest.param(list(full), id="all", marks=pytest.mark.long)


@pytest.mark.parametrize("some", list(engine_cases()))
@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_threads_engines_and_kernels(place, datasets, kind, some):
    with place.daemon("--threads", "2") as daemon:
        expected = hash_epochs(loaders_of(datasets[kind], daemon, 1))
    for threads, engine, kernels in some:
        options = ["--threads", str(threads), "--io", engine, "--kernels", kernels]
        with place.daemon(*options) as daemon:
            loaders = loaders_of(datasets[kind], daemon, 1)
            next(iter(loaders[0]))
            doctor = daemon.ask("doctor")
            assert doctor["threads"] == threads
            assert engine != "pread" or doctor["engine"] == "pread"
            assert kernels != "scalar" or doctor["kernels"] == "scalar"
            assert hash_epochs(loaders) == expected
            workers = {"num_workers": threads, "prefetch_factor": 2 + threads}
            assert hash_epochs(loaders_of(datasets[kind], daemon, 2, **workers)) == expected


def test_float_pixels_of_every_kernel(place, datasets):
    recipe = [
        T.Resize(40, interpolation="bicubic"),
        T.CenterCrop(32),
        T.Normalize(penstock.IMAGENET_MEAN, penstock.IMAGENET_STD),
    ]
    found = set()
    for kernels in ("scalar", "avx2", "avx512"):
        with place.daemon("--kernels", kernels) as daemon:
            found.add(hash_epochs(loaders_of(datasets["tar"], daemon, 2, transforms=recipe), 1))
    assert len(found) == 1


# ---- resume -------------------------------------------------------------------------------------


def every_place(dataset, daemon, batch, **more):
    """Of one epoch: the state and the hashes after every batch, and the hashes at its end."""
    (loader,) = loaders_of(dataset, daemon, 1, global_batch_size=batch, **more)
    hashes = rig.Hashes()
    places = []
    for one in loader:
        hashes.feed([one])
        places.append((one.state_dict(), hashes.copy()))
    return places


def resumed(loaders, state):
    for loader in loaders:
        loader.load_state_dict(json.loads(json.dumps(state)))
    return loaders


def test_resume_at_every_batch(place, datasets, request):
    """A short look at each place of the epoch; the long form below runs each to its end."""
    worlds = [1, 3, 2]
    with place.daemon() as daemon:
        places = every_place(datasets["folder"], daemon, 6)
        loaders = {
            world: loaders_of(datasets["folder"], daemon, world, global_batch_size=6)
            for world in worlds
        }
        assert len(places) == 83
        for number, (state, hashes) in enumerate(places[:-1]):
            ranks = resumed(loaders[worlds[number % 3]], state)
            steps = zip(*ranks, strict=True)
            for _, later in zip(range(2), places[number + 1 :], strict=False):
                hashes.feed(next(steps))
                assert hashes.digests() == later[1].digests()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["folder", "tar"])
@pytest.mark.parametrize("order", [False, True, "window"])
def test_resume_at_every_batch_of_200(place, tmp_path, kind, order):
    """With another world size each time, to the end of the epoch."""
    make = rig.make_folder if kind == "folder" else rig.make_tars
    dataset = str(make(tmp_path / "data", 199 * 6 + 5))
    worlds = itertools.cycle([1, 2, 3, 6])
    with place.daemon() as daemon:
        places = every_place(dataset, daemon, 6, shuffle=order)
        assert len(places) == 200
        for state, hashes in places:
            world = next(worlds)
            loaders = loaders_of(dataset, daemon, world, global_batch_size=6, shuffle=order)
            assert hash_epochs(resumed(loaders, state), 1, hashes) == places[-1][1].digests()


def chain(dataset, daemons, draw, order, tail):
    """Three epochs in pieces: after each another world size, daemon and number of workers."""
    hashes = rig.Hashes()
    state = None
    pieces = 0
    while True:
        world = draw.choice(WORLDS)
        more = {"shuffle": order, "last_batch": tail, "num_workers": draw.randrange(4)}
        loaders = loaders_of(dataset, draw.choice(daemons), world, **more)
        if state is not None:
            resumed(loaders, state)
        left = draw.randrange(1, 12)
        while loaders[0].epoch < 3 and left > 0:
            for batches in zip(*loaders, strict=True):
                hashes.feed(batches)
                states = [batch.state_dict() for batch in batches]
                assert all(other == states[0] for other in states)
                state = states[0]
                left -= 1
                if left == 0:
                    break
        at_end = state["epoch"] >= 3
        for loader in loaders:
            loader.close()
        pieces += 1
        if at_end:
            return pieces, hashes.digests()


@pytest.mark.parametrize("count", [2, pytest.param(20, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("kind", "order", "tail"),
    [("folder", True, "even"), ("tar", "window", "pad"), ("tar", False, "drop")],
)
def test_chains_of_resumes(place, datasets, kind, order, tail, count):
    dataset = datasets[kind]
    with (
        place.daemon("--threads", "1", "--io", "pread", name="a") as a,
        place.daemon("--threads", "4", "--kernels", "scalar", name="b") as b,
    ):
        more = {"shuffle": order, "last_batch": tail}
        expected = hash_epochs(loaders_of(dataset, a, 1, **more))
        for seed in range(count):
            pieces, found = chain(dataset, [a, b], random.Random(seed), order, tail)
            assert found == expected, f"seed {seed}"
            assert pieces >= 3


# ---- parts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "tar"])
@pytest.mark.parametrize("order", [False, True, "window"])
def test_parts(place, datasets, kind, order):
    full = penstock.Dataset(datasets[kind])
    train, held_back = full.split([0.8, 0.2], seed=3)
    assert not set(train.indices.tolist()) & set(held_back.indices.tolist())
    assert len(train) + len(held_back) == len(full)
    with place.daemon() as daemon:
        for part in (train, held_back.subset(range(0, len(held_back), 2))):
            found = {
                world: hash_epochs(loaders_of(part, daemon, world, shuffle=order))
                for world in (1, 2, 16)
            }
            assert set(found.values()) == {found[1]}
            assert found[1][0] == 3 * len(part)
            (loader,) = loaders_of(part, daemon, 1, shuffle=order)
            ids = [i for batch in loader for i in rig.ids_of(batch)]
            loader.close()
            assert sorted(ids) == sorted(np.asarray(part.sample_ids).tolist())


def test_a_sample_replays(place, datasets):
    """loader.sample gives the picture that the batch had."""
    with place.daemon() as daemon:
        for dataset in datasets.values():
            (loader,) = loaders_of(dataset, daemon, 1)
            for epoch in range(2):
                batch = next(iter(loader))
                loader.set_epoch(epoch + 1)
                for row in (0, 17, 47):
                    image, label = loader.sample(batch.sample_ids[row], epoch=epoch)
                    assert (image == batch[0][row]).all() and label == batch[1][row]
            loader.close()
