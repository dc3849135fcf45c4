"""device="cuda" without a GPU: on a recording double of CUDA (tests/cuda/cuda_double.h).

The double keeps back what is put on a stream until somebody waits for it, so whatever is read,
overwritten or given back too early shows as wrong pixels. The kernel is the real one, on the CPU.
"""

from __future__ import annotations

import ctypes
import logging
import os
import pathlib
from typing import ClassVar

import pytest

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")

import penstock  # noqa: E402
from penstock import _arguments, _cuda, _device, _log  # noqa: E402
from penstock import transforms as T  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("PENSTOCK_BUILD", ROOT / "build" / "release"))
DOUBLE = BUILD / "tests" / "libcudart_double.so"

pytestmark = [
    pytest.mark.skipif(not DOUBLE.exists(), reason=f"{DOUBLE} is not built"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="the double is for machines without CUDA"),
]

SIDE, CONSUMER = 7, 9
NORMALIZE = T.Normalize(penstock.IMAGENET_MEAN, penstock.IMAGENET_STD)


class HostPlace:
    """Takes TorchPlace's part: memory "on the device" is the process's own.

    It is never freed, as the device's is not while something on a stream may still use it.
    """

    kept: ClassVar[list] = []

    def __init__(self, number):
        self.number, self.torch = number, torch

    def _keep(self, tensor):
        self.kept.append(tensor)
        return tensor

    def side_stream(self):
        return SIDE

    def stream(self):
        return CONSUMER

    def staging(self, size_bytes):
        return self._keep(torch.full((size_bytes,), 99, dtype=torch.uint8))

    def give_back(self, staging):
        pass

    def empty(self, shape, dtype):
        return self._keep(torch.zeros(shape, dtype=getattr(torch, dtype)))

    def move(self, tensor):
        return tensor.clone()


@pytest.fixture
def double(monkeypatch):
    """The double's functions, with one device; batches for "cuda" are made with it."""
    control = ctypes.CDLL(str(DOUBLE))
    control.cuda_double_log.restype = ctypes.c_char_p
    control.cuda_double_registered_bytes.restype = ctypes.c_ulong
    control.cuda_double_reset(2)
    HostPlace.kept.clear()
    _cuda._cuda_of.cache_clear()
    monkeypatch.setattr(_arguments, "device_of", lambda device, _: device and torch.device(device))
    monkeypatch.setattr(_device, "TorchPlace", HostPlace)
    monkeypatch.setattr(_device, "own_device", lambda _torch, wanted: wanted or 0)
    monkeypatch.setattr(_cuda.Packer.load.__func__, "__defaults__", (__file__,))
    return control


def lines(double):
    return double.cuda_double_log().decode().splitlines()


def run_all(double):
    while double.cuda_double_step():
        pass


def loader(folder, device=None, **settings):
    given = {"batch_size": 8, "seed": 3, "shuffle": True, "transforms": [T.RandomResizedCrop(32)]}
    return penstock.DataLoader(folder, device=device, **{**given, **settings})


FORMATS = {
    "uint8": [],
    "float32": [T.ToDtype("float32", scale=True)],
    "unscaled": [T.ToDtype("float32", scale=False)],
    "normalized": [NORMALIZE],
    "float16": [T.ToDtype("float16", scale=True), NORMALIZE],
    "bfloat16": [NORMALIZE, T.ToDtype("bfloat16")],
}


@pytest.mark.parametrize("way", ["kernel", "torch"])
@pytest.mark.parametrize("memory_format", [None, "channels_last"])
@pytest.mark.parametrize("name", FORMATS)
def test_batches_on_a_double_equal_the_cpus(double, folder, monkeypatch, name, memory_format, way):
    transforms = [T.RandomResizedCrop(32), T.RandomHorizontalFlip(), *FORMATS[name]]
    settings = {"transforms": transforms, "memory_format": memory_format, "last_batch": "pad"}
    if way == "torch":  # its operations do not wait for the double's streams: run these at once
        monkeypatch.setattr(_cuda.Packer.load.__func__, "__defaults__", ("/no/image",))
        hand_over = _cuda.Transfer.hand_over
        monkeypatch.setattr(
            _cuda.Transfer,
            "hand_over",
            lambda self, stream: (hand_over(self, stream), run_all(double)),
        )
    with loader(folder, **settings) as on_cpu, loader(folder, "cuda", **settings) as on_gpu:
        wanted, made = list(on_cpu), list(on_gpu)
        run_all(double)
        assert len(made) == len(wanted) == 8
        for one, other in zip(made, wanted, strict=True):
            assert one.sample_ids.tolist() == other.sample_ids.tolist()
            assert (one.epoch, one.step) == (other.epoch, other.step)
            assert one.state_dict() == other.state_dict()
            assert one["image"].dtype == other["image"].dtype
            assert one["image"].stride() == other["image"].stride()
            assert torch.equal(one["image"], other["image"])
            assert torch.equal(one["label"], other["label"])
        assert any("pack" in line for line in lines(double)) == (way == "kernel")
    assert double.cuda_double_pushed_contexts() == 0


def test_a_double_sees_one_registration_and_its_end(double, folder):
    with loader(folder, "cuda:1") as on_gpu:
        list(on_gpu)
        registered = [line for line in lines(double) if line.startswith("register")]
        assert len(registered) == 1
        assert double.cuda_double_registered_bytes() > 0
        assert [line for line in lines(double) if "context" in line] == ["context on device 1"]
    assert double.cuda_double_registered_bytes() == 0
    assert double.cuda_double_pending_error() == 0


def test_a_double_that_refuses_to_register_is_said_once(double, folder, caplog, monkeypatch):
    monkeypatch.setattr(_log, "_said", set(), raising=False)
    double.cuda_double_fail_register(2)
    with caplog.at_level(logging.INFO, logger="penstock"):
        for _ in range(2):
            with loader(folder, "cuda") as on_gpu:
                assert len(list(on_gpu)) == 8
    said = [record for record in caplog.records if "pinned" in record.message]
    assert len(said) == 1
    assert double.cuda_double_pending_error() == 0


def test_slots_go_back_on_a_double_only_behind_the_copies(double, folder, monkeypatch):
    """What leaves the ring is scribbled over by the daemon's next batches, for six epochs."""
    held = []
    settle = _device._Buffer.settle

    def watched(self, must_wait):
        before = self.held
        settle(self, must_wait)
        if before is not None and self.held is None:
            held.append(self.transfer.is_copied())

    monkeypatch.setattr(_device._Buffer, "settle", watched)
    with loader(folder) as on_cpu, loader(folder, "cuda") as on_gpu:
        for _ in range(6):
            made = [batch["image"] for batch in on_gpu]
            run_all(double)
            for one, other in zip(made, on_cpu, strict=True):
                assert torch.equal(one, other["image"])
    assert len(held) > 40 and all(held)


def test_order_of_calls_on_a_double(double, folder):
    with loader(folder, "cuda", transforms=[T.RandomResizedCrop(32), NORMALIZE]) as on_gpu:
        next(iter(on_gpu))
        calls = [line for line in lines(double) if not line.startswith(("create", "context"))]
    wanted = [
        "register",
        f"stream {SIDE} waits for event",
        "copy",
        "record",
        f"stream {CONSUMER} waits for event",
        f"pack on stream {CONSUMER}",
        "record",
    ]
    place = 0
    for start in wanted:
        place = next(i for i in range(place, len(calls)) if calls[i].startswith(start)) + 1


def test_states_and_breaks_on_a_double(double, folder):
    """The batch that is on its way already is used if it is the next, and dropped if not."""
    with loader(folder, "cuda") as on_gpu, loader(folder) as on_cpu:
        whole = [batch.sample_ids.tolist() for batch in on_cpu]
        iterator = iter(on_gpu)
        first = next(iterator)
        state = first.state_dict()
        assert [next(iterator).sample_ids.tolist()] == whole[1:2]
        on_gpu.load_state_dict(state)
        assert [batch.sample_ids.tolist() for batch in on_gpu] == whole[1:]
        on_gpu.set_epoch(0)
        for batch in on_gpu:
            assert batch.sample_ids.tolist() == whole[0]
            break
        assert on_gpu.epoch == 0
        assert [batch.sample_ids.tolist() for batch in on_gpu] == whole
        assert on_gpu.epoch == 1


def test_a_bad_sample_is_raised_in_its_turn_on_a_double(double, folder, tmp_path):
    import shutil

    bad = tmp_path / "bad"
    shutil.copytree(folder, bad)
    (bad / "bee" / "005.jpg").write_bytes(b"no picture")
    with loader(bad, "cuda", shuffle=False) as on_gpu:
        taken = 0
        with pytest.raises(penstock.SampleError, match="005"):
            for _batch in on_gpu:
                taken += 1
        assert taken == 3  # 24 samples before the batch with the 26th
    with loader(
        bad, "cuda", shuffle=False, on_error="zero", transforms=[T.RandomResizedCrop(32), NORMALIZE]
    ) as on_gpu:
        batches = list(on_gpu)
        run_all(double)
    assert not batches[3]["image"][1].any()
    assert batches[3]["image"][0].any()


def test_recipes_that_the_daemon_refuses_go_to_it_whole():
    normalize = {"op": "Normalize", "mean": [0.0] * 3, "std": [1.0] * 3}
    zero = {**normalize, "std": [1.0, 0.0, 1.0]}
    to_half = {"op": "ToDtype", "dtype": "float16", "scale": True}
    to_bytes = {"op": "ToDtype", "dtype": "uint8", "scale": True}
    for recipe in ([normalize, normalize], [zero], [to_half, to_bytes]):
        assert _device.split_recipe(recipe, "nchw") is None


def test_the_rank_has_a_gpu_of_its_own(monkeypatch):
    class Module:
        class cuda:
            is_initialized = staticmethod(lambda: True)
            current_device = staticmethod(lambda: Module.current)
            device_count = staticmethod(lambda: 4)

    monkeypatch.setenv("LOCAL_RANK", "3")
    Module.current = 0
    assert _cuda.own_device(Module) == 3
    assert _cuda.own_device(Module, 2) == 2
    Module.current = 1
    assert _cuda.own_device(Module) == 1
    monkeypatch.setenv("LOCAL_RANK", "7")  # sees only GPUs that were given to it
    Module.current = 0
    assert _cuda.own_device(Module) == 0
