"""Every training loop of examples/ runs, small; the ImageNet one resumes exactly."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import rig

torch = pytest.importorskip("torch")

EXAMPLES = rig.ROOT / "examples"
SCHEMAS = rig.ROOT / "tests" / "tools" / "torchvision_schemas"
KILLED_RUN = ["-a", "small", "--image-size", "32", "-b", "4", "--device", "cpu"]
KILLED_RUN += ["--lr", "0.01", "--checkpoint-freq", "5"]
SMALL = ["--image-size", "32", "--epochs", "1", "-b", "16"]

pytestmark = pytest.mark.skipif(rig.IS_SANITIZED, reason="they exercise the client, slowly")


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A folder like ImageNet: train/ of 96 and val/ of 37 pictures in 4 classes."""
    root = tmp_path_factory.mktemp("imagenet")
    rig.make_folder(root / "train", 96)
    rig.make_folder(root / "val", 37)
    return root


def environment(place):
    return {
        **os.environ,
        **place.environment(),
        "PYTHONPATH": python_path(),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


@functools.cache
def python_path():
    """Where torchvision cannot be imported because it is built for CUDA, with what mends that."""
    path = os.environ.get("PYTHONPATH", "")
    tried = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True)
    return path if tried.returncode == 0 else os.pathsep.join([str(SCHEMAS), path])


def run(place, script, *arguments, processes=1, cwd=None):
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(processes)]
    result = subprocess.run(
        [*command, str(EXAMPLES / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(place),
        cwd=cwd,
        timeout=240,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout + result.stderr


def records(path):
    """What the example recorded; a line that a kill cut short does not count."""
    if not pathlib.Path(path).exists():
        return []
    lines = pathlib.Path(path).read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def train_imagenet(place, imagenet, folder, *more, processes=1, epochs=2):
    folder.mkdir(exist_ok=True)
    run(
        place,
        "train_imagenet.py",
        *[imagenet, "-a", "small", "--image-size", "32", "--epochs", epochs, "-b", "16"],
        *["--lr", "0.01", "--device", "cpu", "--record", "record.json", *more],
        processes=processes,
        cwd=folder,
    )
    return records(folder / "record.json")


def test_imagenet_resumes_in_mid_epoch(place, imagenet, tmp_path):
    whole = train_imagenet(place, imagenet, tmp_path / "whole")
    part = tmp_path / "part"
    train_imagenet(place, imagenet, part, "--checkpoint-freq", 4, epochs=1)
    assert (part / "checkpoint.pt").exists()
    resumed = train_imagenet(place, imagenet, part, "--resume", "checkpoint.pt")
    assert resumed == whole


def kill_after(place, imagenet, folder, record, steps, *more):
    """The example, killed once it has recorded `steps` steps; the records."""
    command = [sys.executable, str(EXAMPLES / "train_imagenet.py"), str(imagenet), *KILLED_RUN]
    process = subprocess.Popen(
        [*command, "--epochs", "1000", "--record", record, *more],
        env=environment(place),
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        rig.until(
            f"{steps} steps",
            lambda: len(records(folder / record)) >= steps or process.poll() is not None,
            60,
        )
    finally:
        process.kill()
        errors = process.communicate()[1]
    assert process.returncode == -signal.SIGKILL, errors
    return records(folder / record)


def test_imagenet_killed_in_mid_epoch_goes_on_exactly(place, imagenet, tmp_path):
    """Epochs of 24 steps, a checkpoint every 5; killed, resumed from the last, killed again."""
    first = kill_after(place, imagenet, tmp_path, "first.json", 31)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"]
    assert 25 <= saved <= first[-1].get("step", saved)
    resume = ["--resume", "checkpoint.pt"]
    second = kill_after(place, imagenet, tmp_path, "second.json", 31, *resume)
    epochs = 1 + max(record["epoch"] for record in first + second)
    whole = tmp_path / "whole"
    whole.mkdir()
    command = [imagenet, *KILLED_RUN, "--epochs", epochs, "--record", "record.json"]
    run(place, "train_imagenet.py", *command, cwd=whole)
    expected = records(whole / "record.json")
    assert first == expected[: len(first)]
    begin = [record.get("step") for record in expected].index(saved + 1)
    assert second == expected[begin : begin + len(second)]


def test_imagenet_accumulates_and_counts_each_once(place, imagenet, tmp_path):
    plain = train_imagenet(place, imagenet, tmp_path / "plain", epochs=1)
    cut = train_imagenet(place, imagenet, tmp_path / "cut", "--accumulate", 2, epochs=1)
    assert len(plain) == len(cut)


def test_imagenet_on_two_processes(place, imagenet, tmp_path):
    one = train_imagenet(place, imagenet, tmp_path / "one", epochs=1)
    two = train_imagenet(place, imagenet, tmp_path / "two", epochs=1, processes=2)
    assert len(one) == len(two)
    for alone, together in zip(one, two, strict=True):
        for name in ("epoch", "step", "evaluated"):
            assert alone.get(name) == together.get(name)
    assert one[-1]["evaluated"] == 37


def test_imagenet_with_channels_last_and_amp(place, imagenet, tmp_path):
    made = train_imagenet(place, imagenet, tmp_path / "a", "--channels-last", "--amp", epochs=1)
    assert made[-1]["evaluated"] == 37


def test_classic_script(place, imagenet, tmp_path):
    run(place, "imagenet_classic.py", imagenet, "-a", "resnet18", *SMALL, cwd=tmp_path)
    assert (tmp_path / "checkpoint.pth.tar").exists()


def test_classic_script_on_two_processes(place, imagenet, tmp_path):
    arguments = [imagenet, "-a", "resnet18", *SMALL]
    run(place, "imagenet_classic.py", *arguments, processes=2, cwd=tmp_path)


def test_timm(place, imagenet, tmp_path):
    arguments = [imagenet, "--model", "resnet18", "--epochs", 1, "-b", 16, "--input-size", 64]
    assert "top-1" in run(place, "timm_loop.py", *arguments, cwd=tmp_path)


def test_timm_on_two_processes(place, imagenet, tmp_path):
    arguments = [imagenet, "--model", "resnet18", "--epochs", 1, "-b", 16, "--input-size", 64]
    said = run(place, "timm_loop.py", *arguments, processes=2, cwd=tmp_path)
    assert said.count("top-1") == 1


def test_lightning(place, imagenet, tmp_path):
    arguments = [imagenet, *SMALL, "--devices", 1, "--folder", tmp_path]
    run(place, "lightning_loop.py", *arguments, cwd=tmp_path)


def test_lightning_on_two_processes(place, imagenet, tmp_path):
    """Lightning starts the second process itself."""
    arguments = [imagenet, *SMALL, "--devices", 2, "--folder", tmp_path]
    assert "MEMBER: 2/2" in run(place, "lightning_loop.py", *arguments, cwd=tmp_path)


def test_accelerate(place, imagenet, tmp_path):
    run(place, "accelerate_loop.py", imagenet, *SMALL, cwd=tmp_path)


def test_accelerate_on_two_processes(place, imagenet, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # which makes its processes one group
    said = run(place, "accelerate_loop.py", imagenet, *SMALL, processes=2, cwd=tmp_path)
    assert "of 37 right" in said


def test_hugging_face_trainer(place, imagenet, tmp_path):
    pytest.importorskip("transformers")
    arguments = [imagenet, *SMALL, "--folder", tmp_path]
    assert "eval_accuracy" in run(place, "hf_trainer_loop.py", *arguments, cwd=tmp_path)
