"""Epochs and saved states: every run goes on with exactly the batch that comes next."""

from __future__ import annotations

import hashlib
import json
import pickle

import penstock
import pytest
from conftest import flat
from penstock import transforms as T

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")

TRAIN = [T.RandomResizedCrop(24), T.RandomHorizontalFlip()]


def make(folder, batch_size=7, **more):
    arguments = {"shuffle": True, "seed": 9, "transforms": TRAIN, **more}
    return penstock.DataLoader(folder, batch_size, **arguments)


def facts(batch):
    pixels = hashlib.sha256(batch[0].numpy().tobytes()).hexdigest()
    return (batch.epoch, batch.step, tuple(batch.sample_ids.tolist()), pixels)


def test_a_state_is_small_json(folder):
    loader = make(folder)
    iterator = iter(loader)
    batch = next(iterator)
    state = batch.state_dict()
    assert state == loader.state_dict() == json.loads(json.dumps(state))
    assert (state["epoch"], state["position"]) == (0, 7)
    assert len(json.dumps(state)) < 1000


def test_resume_at_every_batch_of_an_epoch(folder):
    loader = make(folder)
    whole = [(facts(batch), batch.state_dict()) for _ in range(2) for batch in loader]
    resumed = make(folder)
    for place in range(len(whole) // 2):
        resumed.load_state_dict(whole[place][1])
        expected = whole[place + 1][0]
        assert resumed.epoch == expected[0]
        assert facts(next(iter(resumed))) == expected
    resumed.load_state_dict(whole[2][1])
    rest = [facts(batch) for batch in resumed] + [facts(batch) for batch in resumed]
    assert rest == [fact for fact, _state in whole[3:]]


def test_epochs_follow_one_another(folder):
    loader = make(folder)
    assert loader.epoch == 0 and loader.state_dict()["position"] == 0
    for epoch in range(3):
        assert {batch.epoch for batch in loader} == {epoch}
        assert loader.epoch == epoch + 1
        state = loader.state_dict()
        assert (state["epoch"], state["position"]) == (epoch + 1, 0)
    resumed = make(folder)
    resumed.load_state_dict(state)
    assert resumed.epoch == 3 and next(iter(resumed)).epoch == 3


def test_break_abandons_and_the_epoch_restarts(folder):
    loader = make(folder)
    first = []
    for batch in loader:
        first.append(facts(batch))
        if batch.step == 2:
            break
    assert loader.epoch == 0 and loader.state_dict()["position"] == 21
    again = [facts(batch) for batch in loader]
    assert again[:3] == first and len(again) == len(loader)
    assert loader.epoch == 1


def test_set_epoch(folder):
    loader = make(folder)
    epochs = [[facts(batch) for batch in loader] for _ in range(3)]
    loader.set_epoch(1)
    assert loader.epoch == 1 and loader.state_dict()["epoch"] == 1
    assert [facts(batch) for batch in loader] == epochs[1]
    loader.sampler.set_epoch(0)
    assert [facts(batch) for batch in loader] == epochs[0]
    assert loader.epoch == 1
    assert len(loader.sampler) == 60
    with pytest.raises(penstock.UsageError):
        loader.set_epoch(-1)


def test_set_epoch_to_the_next_discards_nothing(folder):
    loader = make(folder)
    streams = set()
    for epoch in range(3):
        loader.set_epoch(epoch)
        for _batch in loader:
            streams.add(loader._session._ring.describe().taken_count)
    assert max(streams) == 3 * len(loader)  # one stream: no seek came between


def test_set_epoch_keeps_a_loaded_position(folder):
    loader = make(folder)
    list(loader)
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    resumed = make(folder)
    resumed.load_state_dict(state)
    for epoch in range(resumed.epoch, 2):
        resumed.set_epoch(epoch)
        assert next(iter(resumed)).step == 1


def test_other_ranks_and_batches_go_on_from_a_state(folder):
    whole = [i for batch in make(folder, 12) for i in batch.sample_ids.tolist()]
    loaders = [make(folder, 4, rank=rank, world_size=3) for rank in range(3)]
    seen = []
    for batches in zip(*loaders, strict=True):
        seen += [i for batch in batches for i in batch.sample_ids.tolist()]
        states = [batch.state_dict() for batch in batches]
        assert states[0] == states[1] == states[2]
        if batches[0].step == 1:
            break
    for batch_size, world in ((6, 2), (12, 1), (10, 1)):
        parts = {}
        for rank in range(world):
            resumed = make(folder, batch_size, rank=rank, world_size=world)
            resumed.load_state_dict(states[0])
            for step, batch in enumerate(resumed):
                parts.setdefault(step, []).extend(batch.sample_ids.tolist())
        assert seen + flat(parts.values()) == whole


def test_a_state_in_the_tail_that_is_dropped(folder):
    loader = make(folder, 7, drop_last=True)
    for batch in loader:
        state = batch.state_dict()
        if batch.step == 6:
            break
    resumed = make(folder, 20, drop_last=True)
    resumed.load_state_dict(state)
    assert list(resumed) == [] and resumed.epoch == 1
    assert {batch.epoch for batch in resumed} == {1}


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"shuffle": False}, "shuffle="),
        ({"seed": 1}, "seed=9"),
        ({"shuffle": "window"}, "shuffle="),
    ],
)
def test_states_of_another_order_are_refused(folder, change, hint):
    state = make(folder).state_dict()
    with pytest.raises(penstock.StateError, match=hint):
        make(folder, **change).load_state_dict(state)


def test_states_of_other_data_and_nonsense_are_refused(folder):
    loader = make(folder)
    state = loader.state_dict()
    part = penstock.Dataset(folder).subset(range(30))
    with pytest.raises(penstock.StateError, match="another data set"):
        make(part).load_state_dict(state)
    for wrong in ({}, {"epoch": 3}, {**state, "version": 9}, {**state, "position": 61}, None):
        with pytest.raises(penstock.StateError):
            loader.load_state_dict(wrong)
    assert next(iter(loader)).step == 0


def test_a_loader_pickles_with_its_place(folder):
    loader = make(folder)
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    other = pickle.loads(pickle.dumps(loader))
    assert other.state_dict() == state
    other.load_state_dict(state)
    assert facts(next(iter(other))) == facts(next(iterator))


def test_loading_overtakes_a_running_iterator(folder):
    loader = make(folder)
    iterator = iter(loader)
    state = next(iterator).state_dict()
    second = facts(next(iterator))
    loader.load_state_dict(state)
    with pytest.raises(penstock.StateError):
        next(iterator)
    assert facts(next(iter(loader))) == second
