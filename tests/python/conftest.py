"""What the Python tests share: a data set of small pictures, and a daemon of their own."""

from __future__ import annotations

import importlib.util
import itertools
import os
import pathlib
import shutil
import tempfile

import command_line
import pytest

CLASSES = ("ant", "bee", "cat")
PER_CLASS = 20


def flat(lists) -> list:
    """One list of the items of several."""
    return list(itertools.chain.from_iterable(lists))


def make_picture(seed: int, width: int, height: int):
    """A smooth picture that differs with `seed`."""
    import numpy as np
    from PIL import Image

    x = np.linspace(0, 3, width)[None, :]
    y = np.linspace(0, 2, height)[:, None]
    waves = [
        np.sin(x * (1 + seed % 5) + channel + seed) + np.cos(y * 2 + seed) for channel in range(3)
    ]
    pixels = np.stack(waves, axis=-1) * 60 + 128
    return Image.fromarray(pixels.clip(0, 255).astype("uint8"))


def make_folder(root: pathlib.Path, per_class: int = PER_CLASS, classes=CLASSES) -> pathlib.Path:
    """A class per sub-folder, `per_class` JPEGs of differing sizes in each."""
    seed = 0
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            width, height = 64 + 8 * (seed % 7), 56 + 8 * (seed % 5)
            picture = make_picture(seed, width, height)
            picture.save(root / name / f"{number:03}.jpg", quality=90)
            seed += 1
    return root


@pytest.fixture(scope="session", autouse=True)
def own_daemon(tmp_path_factory):
    """Private daemons of the tests have a cache and a runtime folder of their own."""
    base = tmp_path_factory.mktemp("penstock")
    runtime = base / "run"
    runtime.mkdir(mode=0o700)
    saved = dict(os.environ)
    os.environ["PENSTOCK_CACHE"] = str(base / "cache")
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    for name in ("RANK", "WORLD_SIZE", "PENSTOCK_ADDRESS"):
        os.environ.pop(name, None)
    # Choosing the binary keeps them off the daemon of a `penstock serve`: they kill theirs.
    if importlib.util.find_spec("penstock") is not None:
        from penstock._daemon import daemon_binary

        os.environ["PENSTOCK_DAEMON"] = daemon_binary()
    yield
    os.environ.clear()
    os.environ.update(saved)


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> pathlib.Path:
    """60 pictures in 3 classes; do not change it."""
    pytest.importorskip("PIL")
    return make_folder(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def torchvision():
    """The module; skips where it cannot be imported."""
    torch = pytest.importorskip("torch")
    for schema in ("nms(Tensor a, Tensor b, float c)", "qnms(Tensor a, Tensor b, float c)"):
        try:  # a torchvision built for CUDA expects these operators of its own library
            name, arguments = schema.split("(", 1)
            torch.library.define(f"torchvision::{name}", f"({arguments} -> Tensor")
        except RuntimeError:
            pass
    try:
        import torchvision
    except Exception as error:  # whatever is wrong with it
        pytest.skip(f"torchvision: {error}")
    return torchvision


@pytest.fixture
def tool():
    """`tmp_path` may be too long for a socket."""
    with tempfile.TemporaryDirectory(prefix="ps-", dir="/tmp") as folder:
        tool = command_line.Tool(pathlib.Path(folder))
        yield tool
        for daemon in tool.daemons:
            daemon.terminate()
            daemon.communicate(timeout=command_line.SECONDS_MAX)
        for path in tool.runtime.glob("*.sock"):
            if command_line.is_answered(path):
                tool("stop", "--address", path)


@pytest.fixture
def bad_folder(folder, tmp_path) -> pathlib.Path:
    """60 pictures and a cut one."""
    root = tmp_path / "pictures"
    shutil.copytree(folder, root)
    whole = (folder / "ant" / "000.jpg").read_bytes()
    (root / "ant" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return root
