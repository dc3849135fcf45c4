"""Batches are the user's: kept, changed, pickled, saved, mapped; the loader never minds."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import sys

import penstock
import pytest
from penstock import transforms as T

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")

LARGE = [T.Resize((224, 224))]
BATCH_BYTES = 4 * 3 * 224 * 224


@pytest.fixture
def loader(folder):
    with penstock.DataLoader(folder, 4, transforms=LARGE) as loader:
        yield loader


def held_slots(loader):
    return loader._session._ring.describe().held_count


def test_is_a_tuple_with_names(loader):
    batch = next(iter(loader))
    assert isinstance(batch, tuple) and len(batch) == 2
    assert batch.names == batch.keys() == ("image", "label")
    assert dict(batch)["label"] is batch[1]
    assert repr(batch) == "Batch(image: uint8[4, 3, 224, 224], label: int64[4], epoch=0, step=0)"
    with pytest.raises(KeyError, match="label"):
        batch["mask"]


def test_tensors_have_storage_of_their_own_size(loader):
    batch = next(iter(loader))
    assert batch[0].untyped_storage().nbytes() == BATCH_BYTES
    assert batch[1].untyped_storage().nbytes() == 4 * 8


def test_slots_are_held_by_large_tensors_alone(loader):
    iterator = iter(loader)
    batch = next(iterator)
    assert held_slots(loader) == 1
    labels, ids, part = batch[1], batch.sample_ids, batch[0][1:2]
    del batch
    assert held_slots(loader) == 1
    del part
    gc.collect()
    assert held_slots(loader) == 0
    assert labels.tolist() == [0] * 4 and ids.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("output", ["torch", "numpy"])
def test_no_interrupt_is_lost_while_a_batch_is_let_go(folder, output):
    """Where a finalizer runs Python code, a signal handler may run, whose exception is dropped."""
    steps = []

    def note(frame, event, _argument):
        if event == "call":
            steps.append(frame.f_code.co_qualname)

    with penstock.DataLoader(folder, 4, transforms=LARGE, output=output) as loader:
        for batch in loader:
            last = batch
        del batch  # the last one, which nothing but this function holds
        sys.setprofile(note)
        del last
        sys.setprofile(None)
        assert held_slots(loader) == 0
    assert steps == []


def test_a_batch_made_ahead_is_like_any_other(loader):
    expected = [batch[0].clone() for batch in loader]
    loader.set_epoch(0)
    session, kept, was_made_ahead = loader._session, None, 0
    for number, batch in enumerate(loader):
        slots = set(session._prepared)
        session._prepare()  # as it does when it must wait for the next one
        was_made_ahead += bool(slots)
        assert torch.equal(batch[0], expected[number])
        assert batch.sample_ids.tolist() == [4 * number + i for i in range(4)]
        assert batch.valid.tolist() == [True] * 4
        assert batch[0].untyped_storage().nbytes() == BATCH_BYTES
        assert batch[1].untyped_storage().nbytes() == 4 * 8
        assert (batch.epoch, batch.step) == (0, number)
        if number == 7:
            kept = batch[0][2]
    assert was_made_ahead > 5
    del batch
    assert held_slots(loader) == 1
    assert torch.equal(kept, expected[7][2])
    loader.close()  # what was made ahead goes; what was given stays
    assert torch.equal(kept, expected[7][2])


def test_kept_batches_are_copied_when_all_slots_are_held(loader, caplog):
    from penstock import _log

    _log._said.clear()
    expected = [batch[0].clone() for batch in loader]
    with caplog.at_level(logging.WARNING, "penstock"):
        loader.set_epoch(0)
        kept = list(loader)
    assert caplog.text.count("slots are held") == 1
    assert held_slots(loader) < 4
    for one, other in zip(kept, expected, strict=True):
        assert torch.equal(one[0], other)
    loader.close()
    assert torch.equal(kept[0][0], expected[0])


def test_changes_stay_in_their_batch(loader):
    expected = [batch[0].clone() for batch in loader]
    loader.set_epoch(0)
    for batch, other in zip(loader, expected, strict=True):
        assert torch.equal(batch[0], other)
        batch[0].fill_(7)
        batch[1].add_(100)
    loader.set_epoch(0)
    assert torch.equal(next(iter(loader))[0], expected[0])


def test_outlives_its_loader(folder):
    loader = penstock.DataLoader(folder, 4, transforms=LARGE)
    batch = next(iter(loader))
    expected = batch[0].clone()
    array = next(iter(penstock.DataLoader(folder, 4, transforms=LARGE, output="numpy")))[0]
    del loader
    gc.collect()
    assert torch.equal(batch[0], expected)
    assert np.array_equal(array, expected.numpy())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))])
def test_copies_and_pickles(loader, copied):
    batch = next(iter(loader))
    other = copied(batch)
    assert torch.equal(other["image"], batch["image"])
    assert other.sample_ids.tolist() == batch.sample_ids.tolist()
    assert (other.epoch, other.step, other.names) == (0, 0, ("image", "label"))
    assert other.state_dict() == batch.state_dict()
    assert len(pickle.dumps(batch)) < BATCH_BYTES + 10_000


def test_torch_save(loader, tmp_path):
    batch = next(iter(loader))
    torch.save({"batch": batch, "image": batch[0][0]}, tmp_path / "batch.pt")
    loaded = torch.load(tmp_path / "batch.pt")
    assert torch.equal(loaded["batch"]["image"], batch[0])
    assert torch.equal(loaded["image"], batch[0][0])


def test_pytree(loader):
    from torch.utils import _pytree

    batch = next(iter(loader))
    doubled = _pytree.tree_map(lambda value: value * 2, batch)
    assert isinstance(doubled, penstock.Batch)
    assert doubled["label"].tolist() == [0, 0, 0, 0] and doubled.names == batch.names
    assert doubled.sample_ids is batch.sample_ids and doubled.state_dict() == batch.state_dict()
    both = _pytree.tree_map(lambda a, b: a is b, batch, batch)
    assert list(both) == [True, True]


def test_to(loader):
    batch = next(iter(loader))
    moved = batch.to("cpu", non_blocking=True)
    assert moved[0] is batch[0] and moved.epoch == batch.epoch
    assert batch.to(torch.float64)[0].dtype == torch.uint8
    floats = batch.map(lambda value: value.float()).to("cpu", dtype=torch.float64)
    assert floats["image"].dtype == floats["label"].dtype == torch.float64
    assert batch.to("meta")[0].device.type == "meta"


def test_from_any_iterable_as_frameworks_make_them():
    batch = penstock.Batch([1, 2])
    assert batch == (1, 2) and type(batch) is penstock.Batch
    with pytest.raises(penstock.StateError):
        batch.state_dict()


def test_small_batches_hold_no_slot(folder):
    loader = penstock.DataLoader(folder, 4, transforms=[T.Resize((8, 8))])
    kept = list(loader)
    assert held_slots(loader) == 0
    assert all(batch[0].untyped_storage().nbytes() == len(batch[0]) * 192 for batch in kept)
