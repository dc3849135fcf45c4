"""DataLoader: its arguments, what batches are, ranks, tails, bad samples, errors."""

from __future__ import annotations

import inspect
import logging
import subprocess
import sys

import penstock
import pytest
from conftest import flat, make_folder
from penstock import transforms as T

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")

SMALL = [T.RandomResizedCrop(32), T.RandomHorizontalFlip()]
EVAL = [T.Resize((48, 48))]
LARGE = [T.Resize((224, 224))]  # a batch of 4 is a view: over 64 KiB


def ids_of(loader):
    return [batch.sample_ids.tolist() for batch in loader]


def test_arguments_are_torchs_in_torchs_order():
    theirs = inspect.signature(torch.utils.data.DataLoader.__init__).parameters
    ours = inspect.signature(penstock.DataLoader.__init__).parameters
    names = [name for name in theirs if name in ours]
    assert list(ours)[: len(names)] == names == [*theirs]
    for name in names[1:]:
        assert ours[name].kind == theirs[name].kind, name
        if name != "multiprocessing_context":
            assert ours[name].default == theirs[name].default, name


def test_batches(folder):
    loader = penstock.DataLoader(folder, 8, transforms=EVAL)
    full = penstock.Dataset(folder)
    assert len(loader) == 8
    seen = []
    for step, batch in enumerate(loader):
        images, labels = batch
        assert images.dtype == torch.uint8 and labels.dtype == torch.int64
        assert images.shape == (len(labels), 3, 48, 48) and images.is_contiguous()
        assert batch["image"] is images and batch["label"] is labels
        assert (batch.epoch, batch.step) == (0, step)
        assert batch.valid.all() and batch.valid.dtype == torch.bool
        assert labels.tolist() == [full.targets[i] for i in batch.sample_ids]
        seen += batch.sample_ids.tolist()
    assert seen == list(range(60))
    first = next(iter(loader))
    expected = full[0][0].resize((48, 48), 2)
    assert abs(first[0][0].permute(1, 2, 0).numpy().astype(int) - np.asarray(expected)).max() <= 1


def test_shuffled_epochs_differ_and_repeat(folder):
    loader = penstock.DataLoader(folder, 16, True, seed=5, transforms=SMALL)
    first, second = ids_of(loader), ids_of(loader)
    assert first != second
    for epoch in (first, second):
        assert sorted(flat(epoch)) == list(range(60))
    again = penstock.DataLoader(folder, 16, True, seed=5, transforms=SMALL)
    images = [batch[0] for batch in again]
    again.set_epoch(1)
    assert ids_of(again) == second
    again.set_epoch(0)
    for one, other in zip(images, again, strict=True):
        assert torch.equal(one, other[0])
    assert ids_of(penstock.DataLoader(folder, 16, True, seed=6, transforms=SMALL)) != first


def test_normalised_floats(folder):
    mean, std = torch.tensor(penstock.IMAGENET_MEAN), torch.tensor(penstock.IMAGENET_STD)
    normalize = T.Normalize(penstock.IMAGENET_MEAN, penstock.IMAGENET_STD)
    plain = next(iter(penstock.DataLoader(folder, 4, transforms=EVAL)))[0]
    expected = (plain.float() / 255 - mean[:, None, None]) / std[:, None, None]
    for transforms in ([*EVAL, normalize], [*EVAL, T.ToTensor(), normalize]):
        images = next(iter(penstock.DataLoader(folder, 4, transforms=transforms)))[0]
        assert images.dtype == torch.float32
        assert torch.allclose(images, expected, atol=1e-5)
    for dtype in (torch.float16, torch.bfloat16):
        transforms = [*EVAL, T.ToDtype(dtype, scale=True)]
        images = next(iter(penstock.DataLoader(folder, 4, transforms=transforms)))[0]
        assert images.dtype == dtype
        assert torch.allclose(images.float(), plain / 255, atol=4e-3)


def test_channels_last(folder):
    plain = next(iter(penstock.DataLoader(folder, 4, transforms=LARGE)))[0]
    for memory_format in ("channels_last", torch.channels_last):
        loader = penstock.DataLoader(folder, 4, transforms=LARGE, memory_format=memory_format)
        images = next(iter(loader))[0]
        assert images.shape == (4, 3, 224, 224)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(images, plain)
    sample, _label = loader.sample(2)
    assert torch.equal(sample, plain[2])


def test_numpy_output(folder):
    loader = penstock.DataLoader(folder, 4, transforms=LARGE, output="numpy")
    batch = next(iter(loader))
    assert type(batch[0]) is np.ndarray and batch[0].dtype == np.uint8
    assert batch[1].dtype == np.int64 and batch.valid.dtype == np.bool_
    assert batch[0].flags.writeable and batch[1].flags.writeable
    theirs = next(iter(penstock.DataLoader(folder, 4, transforms=LARGE)))
    assert np.array_equal(batch[0], theirs[0].numpy())
    with pytest.raises(penstock.UsageError, match="bfloat16"):
        transforms = [*EVAL, T.ToDtype("bfloat16", True)]
        penstock.DataLoader(folder, transforms=transforms, output="numpy")
    with pytest.raises(penstock.UsageError, match="torch tensors"):
        batch.to("cpu")


def test_works_without_torch(folder):
    script = f"""
import sys
sys.modules["torch"] = None
import penstock
from penstock import transforms as T
loader = penstock.DataLoader({str(folder)!r}, 30, transforms=[T.Resize((8, 8))])
print([type(batch[0]).__name__ for batch in loader])
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "['ndarray', 'ndarray']", result.stderr


def test_importing_is_light():
    script = "import sys, penstock; print('numpy' in sys.modules, 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.strip() == "False False", result.stderr


def test_elsewhere_only_making_a_loader_fails(folder, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    dataset = penstock.Dataset(folder)
    with pytest.raises(penstock.PlatformError, match="Linux"):
        penstock.DataLoader(dataset, transforms=EVAL)


@pytest.mark.parametrize("last_batch", ["even", "pad"])
@pytest.mark.parametrize(("world", "batch"), [(1, 16), (3, 7), (4, 7), (8, 1), (7, 3)])
def test_ranks_share_an_epoch(folder, world, batch, last_batch):
    seen, lengths = [], set()
    for rank in range(world):
        loader = penstock.DataLoader(
            folder,
            batch,
            True,
            rank=rank,
            world_size=world,
            last_batch=last_batch,
            transforms=[T.Resize((8, 8))],
        )
        batches = list(loader)
        lengths.add((len(batches), len(loader)))
        for one in batches:
            assert len(one[0]) == len(one[1]) == len(one.valid) == len(one.sample_ids)
            assert last_batch == "even" or len(one[0]) == batch
            assert (one.sample_ids[~one.valid] == -1).all()
            assert (one["label"][~one.valid] == -100).all()
            seen += one.sample_ids[one.valid].tolist()
    assert sorted(seen) == list(range(60))
    steps = -(-60 // (world * batch))
    assert lengths == {(steps, steps)}


def test_global_batch_size_is_cut_over_ranks(folder):
    def run(world):
        order = {}
        for rank in range(world):
            loader = penstock.DataLoader(
                folder,
                shuffle=True,
                global_batch_size=12,
                rank=rank,
                world_size=world,
                transforms=[T.Resize((8, 8))],
            )
            assert loader.batch_size == -(-12 // world)
            for one in loader:
                order.setdefault(one.step, []).extend(one.sample_ids.tolist())
        return order

    assert run(1) == run(3) == run(4) == run(5)


def test_drop_last(folder):
    loader = penstock.DataLoader(folder, 16, drop_last=True, transforms=EVAL)
    assert [len(batch[0]) for batch in loader] == [16, 16, 16]
    assert len(loader) == 3
    with pytest.raises(penstock.DatasetError, match="drop_last"):
        len(penstock.DataLoader(folder, 61, drop_last=True, transforms=EVAL))
    with pytest.raises(penstock.DatasetError, match="drop_last"):
        iter(penstock.DataLoader(folder, 61, drop_last=True, transforms=EVAL))
    with pytest.raises(penstock.UsageError, match="contradict"):
        penstock.DataLoader(folder, drop_last=True, last_batch="pad", transforms=EVAL)
    assert len(penstock.DataLoader(folder, 16, last_batch="drop", transforms=EVAL)) == 3


def test_ranks_come_from_the_environment(folder, monkeypatch, caplog):
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(penstock.UsageError, match="both or none"):
        len(penstock.DataLoader(folder, 5, transforms=EVAL))
    monkeypatch.setenv("WORLD_SIZE", "4")
    with caplog.at_level(logging.INFO, "penstock"):
        loader = penstock.DataLoader(folder, 5, transforms=EVAL)
        assert ids_of(loader) == [[15, 16, 17, 18, 19], [35, 36, 37, 38, 39], [55, 56, 57, 58, 59]]
    assert "rank 3 of 4: 15 of 60 samples" in caplog.text
    assert len(penstock.DataLoader(folder, 5, transforms=EVAL, shard=False)) == 12
    assert len(penstock.DataLoader(folder, 5, transforms=EVAL, rank=0, world_size=1)) == 12


def test_ranks_come_from_torch_distributed(folder, monkeypatch):
    distributed = torch.distributed
    loader = penstock.DataLoader(folder, 5, transforms=EVAL)
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    assert next(iter(loader)).sample_ids.tolist() == [5, 6, 7, 8, 9]
    assert len(loader) == 6


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"batch_size": None},
        {"batch_size": 4, "global_batch_size": 8},
        {"shuffle": "random"},
        {"seed": -1},
        {"seed": 1.5},
        {"seed": 2**63},
        {"num_workers": -1},
        {"prefetch_factor": 0},
        {"prefetch_factor": 257},
        {"timeout": -1},
        {"last_batch": "keep"},
        {"on_error": "ignore"},
        {"max_errors": 2},
        {"output": "jax"},
        {"memory_format": "nhwc!"},
        {"quality": "best"},
        {"prepare": "now"},
        {"shuffle_window": 0},
        {"job": ""},
        {"rank": 1},
        {"rank": 2, "world_size": 2},
        {"sampler": [1, 2, 3]},
        {"batch_sampler": [[1, 2]]},
        {"collate_fn": list},
        {"generator": 3},
        {"address": "tcp://host:1"},
        {"transforms": [T.Resize(64)]},
        {"device": "no such"},
    ],
)
def test_wrong_arguments_are_refused(folder, arguments):
    with pytest.raises(penstock.UsageError):
        len(penstock.DataLoader(folder, **{"transforms": EVAL, **arguments}))


def test_inert_arguments_are_named_once(folder, caplog):
    from penstock import _log

    _log._said.clear()
    with caplog.at_level(logging.INFO, "penstock"):
        for _ in range(2):
            penstock.DataLoader(
                folder, transforms=EVAL, persistent_workers=True, worker_init_fn=print
            )
    assert caplog.text.count("worker_init_fn, persistent_workers") == 1


@pytest.mark.parametrize("world", [1, 3, 7, 8])
@pytest.mark.parametrize("tail", [{}, {"last_batch": "pad"}, {"drop_last": True}])
def test_a_sampler_is_as_long_as_torchs(folder, world, tail):
    for rank in range(world):
        loader = penstock.DataLoader(
            folder, 2, rank=rank, world_size=world, transforms=EVAL, **tail
        )
        with loader:
            theirs = torch.utils.data.DistributedSampler(
                range(60), world, rank, drop_last=tail.get("drop_last", False)
            )
            assert len(loader.sampler) == len(theirs)
            if not loader.drop_last:  # the question that pytorch/examples' validate() asks
                assert len(loader.sampler) * world >= len(loader.dataset)


def test_torch_samplers(folder):
    data = torch.utils.data
    source = range(60)
    sequential = penstock.DataLoader(
        folder, 20, sampler=data.SequentialSampler(source), transforms=EVAL
    )
    assert flat(ids_of(sequential)) == list(range(60))
    generator = torch.Generator().manual_seed(11)
    shuffled = penstock.DataLoader(folder, 20, True, seed=11, transforms=EVAL)
    expected = ids_of(shuffled)
    sampler = data.RandomSampler(source, generator=generator)
    assert ids_of(penstock.DataLoader(folder, 20, sampler=sampler, transforms=EVAL)) == expected
    given = penstock.DataLoader(folder, 20, True, generator=generator, transforms=EVAL)
    assert ids_of(given) == expected
    with pytest.raises(penstock.UsageError, match="replacement"):
        sampler = data.RandomSampler(source, replacement=True)
        penstock.DataLoader(folder, sampler=sampler, transforms=EVAL)
    with pytest.raises(penstock.UsageError, match="WeightedRandomSampler"):
        sampler = data.WeightedRandomSampler([1.0] * 60, 60)
        penstock.DataLoader(folder, sampler=sampler, transforms=EVAL)
    with pytest.raises(penstock.UsageError, match="10 samples"):
        sampler = data.SequentialSampler(range(10))
        penstock.DataLoader(folder, sampler=sampler, transforms=EVAL)


def test_distributed_sampler_is_followed(folder):
    samplers = [
        torch.utils.data.distributed.DistributedSampler(range(60), 2, rank, seed=4)
        for rank in range(2)
    ]
    loaders = [
        penstock.DataLoader(folder, 10, sampler=sampler, transforms=EVAL) for sampler in samplers
    ]
    halves = [flat(ids_of(loader)) for loader in loaders]
    assert sorted(halves[0] + halves[1]) == list(range(60))
    samplers[0].set_epoch(7)
    iter(loaders[0])
    assert loaders[0].epoch == 7


def test_text_of_a_bad_sample_and_policies(tmp_path):
    folder = make_folder(tmp_path / "data", per_class=4)
    bad = folder / "bee" / "001.jpg"
    bad.write_bytes(b"not a picture")

    def make(policy, **more):
        return penstock.DataLoader(folder, 4, transforms=EVAL, on_error=policy, **more)

    with pytest.raises(penstock.SampleError, match=r"bee/001\.jpg") as caught:
        list(make("raise"))
    assert "on_error" in str(caught.value)
    loader = make("skip")
    assert ids_of(loader) == [[0, 1, 2, 3], [4, 6, 7], [8, 9, 10, 11]]
    assert loader.stats()["bad_samples"] == 1
    zeroed = list(make("zero"))[1]
    assert zeroed.sample_ids.tolist() == [4, 5, 6, 7]
    assert zeroed["label"].tolist() == [1, -100, 1, 1]
    assert not zeroed["image"][1].any() and zeroed["image"][0].any()
    replaced = [batch for batch in make("replace")][1]
    assert len(replaced[0]) == 4 and 5 not in replaced.sample_ids.tolist()
    assert replaced.sample_ids.tolist() == list(make("replace"))[1].sample_ids.tolist()
    with pytest.raises(penstock.TooManyBadSamplesError, match="max_errors"):
        list(make("skip", max_errors=0.01))
    assert len(list(make("skip", max_errors=0.1))) == 3


def test_batch_map(folder):
    def halves(batch):
        images, labels = batch
        return images.float() / 2, labels

    loader = penstock.DataLoader(folder, 6, transforms=EVAL, batch_map=halves)
    batch = next(iter(loader))
    assert isinstance(batch, penstock.Batch) and batch["image"].dtype == torch.float32
    assert batch.sample_ids.tolist() == [0, 1, 2, 3, 4, 5]
    other = penstock.DataLoader(folder, 6, transforms=EVAL, batch_map=lambda b: {"x": b[0]})
    assert set(next(iter(other))) == {"x"}


def test_replay_of_one_sample(folder):
    loader = penstock.DataLoader(folder, 7, True, seed=3, transforms=SMALL)
    for _ in range(2):
        for batch in loader:
            for place in (0, -1):
                image, label = loader.sample(batch.sample_ids[place], epoch=batch.epoch)
                assert torch.equal(image, batch[0][place])
                assert label == batch[1][place]
    with pytest.raises(penstock.UsageError, match="no sample"):
        loader.sample(60)


def test_stats(folder):
    loader = penstock.DataLoader(folder, 16, transforms=EVAL)
    assert "nothing yet" in loader.stats()["limited_by"]
    list(loader)
    stats = loader.stats()
    assert (stats["batches"], stats["samples"], stats["bad_samples"]) == (4, 60, 0)
    assert 0 <= stats["wait_ratio"] <= 1 and stats.wait_seconds > 0
    assert stats["images_per_second"] > 0 and stats["cache_hit_ratio"] is None
    assert "images/s" in str(stats) and len(stats["limited_by"]) > 20


def test_several_loaders_at_once(folder):
    train = penstock.DataLoader(folder, 8, True, transforms=SMALL)
    val = penstock.DataLoader(folder, 4, transforms=EVAL)
    for step, batch in enumerate(train):
        assert batch.step == step
        if step == 3:
            assert flat(ids_of(val)) == list(range(60))
    assert step == 7


def test_an_overtaken_iterator_says_so(folder):
    loader = penstock.DataLoader(folder, 8, transforms=EVAL)
    first = iter(loader)
    next(first)
    second = iter(loader)
    assert next(second).step == 0
    with pytest.raises(penstock.StateError, match="overtaken"):
        next(first)
    assert next(second).step == 1
    loader.close()
    with pytest.raises(penstock.StateError):
        next(second)
    assert len(ids_of(loader)) == 8


def test_subset_orders(folder):
    part = penstock.Dataset(folder).subset([9, 50, 3, 7])
    assert ids_of(penstock.DataLoader(part, 3, transforms=EVAL)) == [[9, 50, 3], [7]]
    shuffled = penstock.DataLoader(part, 4, True, transforms=EVAL)
    epochs = [ids_of(shuffled)[0] for _ in range(8)]
    assert all(sorted(epoch) == [3, 7, 9, 50] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_window_order(folder):
    loader = penstock.DataLoader(folder, 16, "window", transforms=EVAL)
    assert sorted(flat(ids_of(loader))) == list(range(60))


def test_no_daemon_at_an_address(folder, tmp_path):
    with pytest.raises(penstock.DaemonError, match="penstock serve"):
        penstock.DataLoader(folder, transforms=EVAL, address=tmp_path / "none.sock")


def test_context_manager(folder):
    with penstock.DataLoader(folder, 8, transforms=EVAL) as loader:
        batch = next(iter(loader))
    assert batch[0].float().mean() > 0
