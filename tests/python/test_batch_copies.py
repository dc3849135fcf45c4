"""What is made of a batch stays as it was when its slot holds other batches, and other processes.

Every test compares with an epoch that was cloned batch by batch, after all slots have been
written several times.
"""

from __future__ import annotations

import copy
import gc
import io
import pickle

import penstock
import pytest
from penstock import transforms as T

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")

import torch.multiprocessing as mp  # noqa: E402

BATCH = 4
SLOTS = 4
SECONDS_MAX = 60


def make(folder, **more):
    return penstock.DataLoader(folder, BATCH, transforms=[T.Resize((224, 224))], **more)


def plain(batch):
    """Values of a batch that refer to nothing."""
    fields = [np.asarray(field).copy() for field in batch]
    return (batch.epoch, batch.step, batch.sample_ids.tolist(), *fields)


def same(one, other):
    return one[:3] == other[:3] and all(map(np.array_equal, one[3:], other[3:]))


@pytest.fixture(scope="module")
def expected(folder):
    """The first epoch."""
    return [plain(batch) for batch in make(folder)]


def overwrite_slots(loader):
    """Take and change batches until every slot has been filled again, several times."""
    for epoch in range(2):
        loader.set_epoch(epoch)
        for batch in loader:
            batch[0][:] = 255
    gc.collect()


def save_and_load(batch):
    file = io.BytesIO()
    torch.save(batch, file)
    file.seek(0)
    return torch.load(file)


COPIES = {
    "deepcopy": copy.deepcopy,
    "torch.save": save_and_load,
    "clone": lambda batch: batch.map(torch.clone),
    "to another dtype and back": lambda batch: batch.map(lambda v: v.double().to(v.dtype)),
    **{
        f"pickle protocol {protocol}": lambda batch, protocol=protocol: pickle.loads(
            pickle.dumps(batch, protocol)
        )
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_refer_to_nothing(folder, expected, name):
    loader = make(folder)
    copies = []
    for batch in loader:
        copies.append(COPIES[name](batch))
        batch[0].zero_()
    del batch
    overwrite_slots(loader)
    assert loader._session._ring.describe().held_count == 0
    assert all(isinstance(one, penstock.Batch) for one in copies)
    assert all(map(same, map(plain, copies), expected))
    loader.close()
    assert all(map(same, map(plain, copies), expected))


@pytest.mark.parametrize("keep", [copy.copy, list, tuple, lambda batch: batch[0][1:]])
def test_what_shares_memory_keeps_the_slot(folder, expected, keep):
    loader = make(folder)
    iterator = iter(loader)
    next(iterator)
    kept = keep(next(iterator))
    image = kept if torch.is_tensor(kept) else kept[0]
    image[-1] = 7
    overwrite_slots(loader)
    wanted = torch.from_numpy(expected[1][3].copy())[-len(image) :]
    wanted[-1] = 7
    assert torch.equal(image, wanted)
    assert loader._session._ring.describe().held_count == 1
    del kept, image
    gc.collect()
    assert loader._session._ring.describe().held_count == 0


def test_kept_and_changed_over_epochs(folder, expected):
    """Every third batch is kept, every second one of them changed in place."""
    loader = make(folder)
    kept = []
    for _ in range(3):
        loader.set_epoch(0)
        for batch in loader:
            if batch.step % 3 == 0:
                kept.append(batch)
                if len(kept) % 2 == 0:
                    batch[0].add_(1)
                    batch[1].mul_(2)
    overwrite_slots(loader)
    for number, batch in enumerate(kept, 1):
        epoch, step, ids, images, labels = expected[batch.step]
        if number % 2 == 0:
            images, labels = images + np.uint8(1), labels * 2
        assert same(plain(batch), (epoch, step, ids, images, labels))


def test_buffers_out_of_band_hold_the_slot(folder, expected):
    """Pickle's protocol 5 may hand out the memory itself."""
    loader = make(folder, output="numpy")
    buffers = []
    data = pickle.dumps(next(iter(loader)), 5, buffer_callback=buffers.append)
    overwrite_slots(loader)
    assert same(plain(pickle.loads(data, buffers=buffers)), expected[0])


# ---- other processes ----------------------------------------------------------------------------


def read_batches(queue, may_look, results):
    """Receive, wait until the sender has written over its slots, then look."""
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork: it would wait for them
    batches = [queue.get(timeout=SECONDS_MAX) for _ in range(2 * SLOTS)]
    results.put("received")
    may_look.wait(SECONDS_MAX)
    results.put([pickle.dumps(plain(batch)) for batch in batches])
    batches[0][0].fill_(9)  # theirs to change


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_through_queues_to_another_process(folder, expected, method):
    context = mp.get_context(method)
    queue, results, may_look = context.Queue(), context.Queue(), context.Event()
    process = context.Process(target=read_batches, args=(queue, may_look, results))
    process.start()
    loader = make(folder)
    iterator = iter(loader)
    for _ in range(2 * SLOTS):
        queue.put(next(iterator))
    assert results.get(timeout=SECONDS_MAX) == "received"
    overwrite_slots(loader)
    may_look.set()
    received = [pickle.loads(data) for data in results.get(timeout=SECONDS_MAX)]
    process.join(SECONDS_MAX)
    assert process.exitcode == 0
    assert len(received) == 2 * SLOTS and all(map(same, received, expected))
    loader.set_epoch(0)
    assert all(same(plain(batch), other) for batch, other in zip(loader, expected, strict=True))


def send_batches(folder, queue, may_end):
    torch.set_num_threads(1)
    loader = make(folder)
    for batch in loader:
        queue.put(batch)
    overwrite_slots(loader)
    may_end.wait(SECONDS_MAX)


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_through_queues_from_another_process(folder, expected, method):
    context = mp.get_context(method)
    queue, may_end = context.Queue(), context.Event()
    process = context.Process(target=send_batches, args=(folder, queue, may_end))
    process.start()
    received = [queue.get(timeout=SECONDS_MAX) for _ in expected]
    may_end.set()
    process.join(SECONDS_MAX)
    assert process.exitcode == 0
    assert all(isinstance(one, penstock.Batch) for one in received)
    assert all(map(same, map(plain, received), expected))


def test_a_batch_that_was_sent_stays_usable(folder, expected):
    """Sending moves a tensor's storage to memory of torch's; the sender's view goes with it."""
    context = mp.get_context("fork")
    queue = context.SimpleQueue()
    loader = make(folder)
    batch = next(iter(loader))
    queue.put(batch)
    other = queue.get()
    assert same(plain(batch), expected[0])
    batch[0].zero_()
    overwrite_slots(loader)
    assert int(batch[0].sum()) == int(other[0].sum()) == 0  # shared, as torch's own tensors are
    assert loader._session._ring.describe().held_count == 0
