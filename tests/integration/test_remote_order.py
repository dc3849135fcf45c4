"""Data behind s3:// and http://: the same samples, pixels and states as from local files."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile

import pytest
import rig
from web_origin import Origin

_PYTHON_TESTS = pathlib.Path(__file__).resolve().parent.parent / "python"
sys.path.append(str(_PYTHON_TESTS))  # for what its conftest imports
_spec = importlib.util.spec_from_file_location("pictures", _PYTHON_TESTS / "conftest.py")
_pictures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_pictures)
make_folder = _pictures.make_folder

penstock = pytest.importorskip("penstock")
from penstock import transforms as T  # noqa: E402

SHARDS, BATCH = 10, 16
TARS = "shard-{000..009}.tar"

pytestmark = pytest.mark.skipif(bool(Origin.missing()), reason=Origin.missing())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _make_shards(folder: pathlib.Path, pictures: list[pathlib.Path]) -> None:
    for shard in range(SHARDS):
        with tarfile.open(folder / f"shard-{shard:03}.tar", "w") as tar:
            for number in range(13 + shard):
                data = pictures[(shard * 13 + number) % len(pictures)].read_bytes()
                _add(tar, f"{shard:03}{number:04}.jpg", data)
                _add(tar, f"{shard:03}{number:04}.cls", str(number % 3).encode())


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A bucket with ten shards and a prefix of pictures, and the environment that leads there."""
    root = tmp_path_factory.mktemp("origin") / "root"
    (root / "bucket").mkdir(parents=True)
    make_folder(root / "bucket" / "train")
    _make_shards(root / "bucket", sorted((root / "bucket" / "train").rglob("*.jpg")))
    saved = dict(os.environ)
    with Origin(root.parent / "server", root) as server:
        os.environ.update(
            AWS_ENDPOINT_URL=server.endpoint,
            AWS_NO_SIGN_REQUEST="true",
            AWS_REGION="us-east-1",
            AWS_EC2_METADATA_DISABLED="true",
        )
        yield server
    os.environ.clear()
    os.environ.update(saved)


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A daemon that knows nothing: a cache folder of its own."""
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))


def _loader(dataset, **options):
    return penstock.DataLoader(
        dataset, seed=3, transforms=[T.RandomResizedCrop(32)], output="numpy", **options
    )


def _bytes_of(batch) -> bytes:
    return batch.sample_ids.astype("<u8").tobytes() + batch[0].tobytes() + batch[1].tobytes()


def _run(dataset, epochs: int = 2, **options) -> str:
    digest = hashlib.sha256()
    with _loader(dataset, batch_size=BATCH, **options) as loader:
        for _epoch in range(epochs):
            for batch in loader:
                digest.update(_bytes_of(batch))
    return digest.hexdigest()


@pytest.mark.parametrize("window", [1, 3, 16])
def test_window_order_of_shards_that_nobody_indexed(origin, fresh, window):
    local = str(origin.root / "bucket" / TARS)
    options = {"shuffle_window": window}
    assert _run(f"s3://bucket/{TARS}", shuffle=True, **options) == _run(
        local, shuffle="window", **options
    )


@pytest.mark.parametrize("tail", ["even", "pad", "drop"])
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_and_tails(origin, fresh, tail, world):
    local = str(origin.root / "bucket" / TARS)
    options = {"shuffle": "window", "shuffle_window": 3, "last_batch": tail, "world_size": world}
    for rank in range(world):
        assert _run(f"s3://bucket/{TARS}", rank=rank, **options) == _run(
            local, rank=rank, **options
        )


@pytest.mark.parametrize("shuffle", [False, "full"])
@pytest.mark.parametrize("source", ["s3 braces", "s3 pattern", "http", "a::b"])
def test_whole_orders(origin, fresh, shuffle, source):
    names = [f"shard-{number:03}.tar" for number in range(SHARDS)]
    url = {
        "s3 braces": f"s3://bucket/{TARS}",
        "s3 pattern": "s3://bucket/shard-*.tar",
        "http": [f"{origin.endpoint}/bucket/{name}" for name in names],
        "a::b": "::".join(f"s3://bucket/{name}" for name in names),
    }[source]
    local = str(origin.root / "bucket" / TARS)
    assert _run(url, 1, shuffle=shuffle) == _run(local, 1, shuffle=shuffle)


def test_prefix_is_a_folder(origin, fresh):
    local = penstock.Dataset(origin.root / "bucket" / "train")
    remote = penstock.Dataset("s3://bucket/train/")
    assert (remote.classes, remote.targets) == (local.classes, local.targets)
    assert _run(remote, shuffle=True) == _run(local, shuffle=True)


def test_resume_at_every_batch_without_earlier_windows(origin, fresh, monkeypatch, tmp_path):
    url = f"s3://bucket/{TARS}"
    options = {"shuffle": "window", "shuffle_window": 2, "batch_size": BATCH}
    with _loader(url, **options) as loader:
        batches = [(batch.state_dict(), _bytes_of(batch)) for batch in loader]
    for number, (state, _content) in enumerate(batches[:-1]):
        monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / f"cache-{number}"))
        with _loader(url, **options) as loader:
            loader.load_state_dict(state)
            assert [_bytes_of(batch) for batch in loader] == [
                content for _state, content in batches[number + 1 :]
            ]


def test_resume_in_the_tail_that_drop_last_leaves_out(origin, fresh, monkeypatch, tmp_path):
    """How much of the epoch is left is known only once its last shards are."""
    url = f"s3://bucket/{TARS}"
    options = {"shuffle": "window", "shuffle_window": 1, "batch_size": BATCH}
    with _loader(url, **options) as loader:
        *_others, full, _tail = list(loader)
        next_epoch = [_bytes_of(batch) for batch in loader]
    for number, is_under_way in enumerate((True, False)):
        monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / f"cache-{number}"))
        with _loader(url, drop_last=True, **options) as loader:
            if is_under_way:
                next(iter(loader))  # so that it seeks where else it would attach
            loader.load_state_dict(full.state_dict())
            assert list(loader) == []
            assert loader.epoch == 1
            assert [_bytes_of(batch) for batch in loader] == next_epoch[:-1]


@pytest.fixture(scope="module")
def damaged(origin):
    """The URL of 6 shards with 10 samples each, of which one in every second shard is bad."""
    picture = next((origin.root / "bucket" / "train").rglob("*.jpg")).read_bytes()
    (origin.root / "damaged").mkdir()
    for shard in range(6):
        with tarfile.open(origin.root / "damaged" / f"shard-{shard}.tar", "w") as tar:
            for number in range(10):
                is_bad = shard % 2 == 0 and number == 3
                _add(tar, f"{number}.jpg", b"x" if is_bad else picture)
                _add(tar, f"{number}.cls", b"1")
    origin.listed()
    return "s3://damaged/shard-{0..5}.tar"


@pytest.mark.parametrize("size", [None, 60])
def test_max_errors_while_the_length_is_unknown(damaged, fresh, size):
    """What is too many depends on the length, so that it may be certain at the end only."""
    options = {"shuffle": "window", "shuffle_window": 1, "batch_size": 4, "on_error": "skip"}
    for allowed, is_raised in ((0.05, False), (0.049, True)):
        dataset = penstock.Dataset(damaged, size=size)
        with _loader(dataset, max_errors=allowed, **options) as loader:
            if not is_raised:
                assert sum(len(batch.sample_ids) for batch in loader) == 57
                continue
            with pytest.raises(penstock.TooManyBadSamplesError, match="3 of 60"):
                list(loader)


def test_max_errors_of_an_epoch_that_was_resumed(damaged, fresh, monkeypatch, tmp_path):
    options = {"shuffle": "window", "shuffle_window": 1, "batch_size": 4, "on_error": "skip"}
    with _loader(damaged, **options) as loader:
        *_batches, late, _, _, _ = list(loader)
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "another"))
    with _loader(damaged, max_errors=0.0, **options) as loader:
        loader.load_state_dict(late.state_dict())
        with pytest.raises(penstock.TooManyBadSamplesError, match="1 of 60"):
            list(loader)


def test_length_is_known_when_all_shards_are(origin, fresh):
    with _loader(f"s3://bucket/{TARS}", batch_size=BATCH, shuffle=True, shuffle_window=1) as loader:
        with pytest.raises(TypeError, match="penstock index"):
            len(loader)
        count = len(list(loader))
        assert len(loader) == count


def test_what_is_not_there(origin, fresh):
    for url, said in (
        ("s3://bucket/shard-{008..012}.tar", "3 of 5"),
        ("s3://bucket/none-*.tar", "no object matches"),
        ("s3://bucket/none/", "nothing is there"),
    ):
        with pytest.raises(penstock.DatasetNotFoundError, match=said):
            _loader(url)


def test_the_way_to_s3_is_in_the_daemons_configuration(origin, place, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    config = place.path / "penstock.yaml"
    config.write_text(
        f"s3-endpoint: {origin.endpoint}/\ns3-region: eu-west-9\ns3-addressing: path\n"
        "s3-anonymous: yes\ns3-requester-pays: no\nconnections: 8\n"
    )
    with place.daemon("--config", str(config)) as daemon:
        remote = penstock.Dataset(f"s3://bucket/{TARS}", address=daemon.socket)
        assert _run(remote, 1, shuffle=True, address=daemon.socket) == _run(
            str(origin.root / "bucket" / TARS), 1, shuffle="window"
        )


@pytest.mark.parametrize(
    "line",
    ["s3-endpoint: ftp://x", "s3-addressing: no", "s3-anonymous: maybe", "ca-file: /absent"],
)
def test_a_wrong_way_to_s3_stops_the_daemon(tmp_path, line):
    config = tmp_path / "penstock.yaml"
    config.write_text(line + "\n")
    command = [rig.daemon_binary(), "--socket", str(tmp_path / "s"), "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert line.split(": ")[1] in done.stderr, done.stderr


def _replace(origin, name: str, content: bytes) -> bytes:
    path = origin.root / "bucket" / name
    before = path.read_bytes()
    path.write_bytes(content)
    origin.listed()
    return before


@pytest.mark.parametrize("consistency", ["pinned", "error"])
def test_a_shard_that_was_replaced_is_noticed(origin, fresh, monkeypatch, consistency):
    monkeypatch.setattr("penstock.loader.VERSIONS_SECONDS", 0.0)
    name = "shard-007.tar"
    other = (origin.root / "bucket" / "shard-003.tar").read_bytes()
    options = {"shuffle": "window", "consistency": consistency, "batch_size": BATCH}
    with _loader(f"s3://bucket/{TARS}", **options) as loader:
        first = [_bytes_of(batch) for batch in loader]
        before = _replace(origin, name, other)
        try:
            with pytest.raises(penstock.ObjectChangedError, match=rf"{name}.*anew"):
                list(loader)
            with _loader(f"s3://bucket/{TARS}", **options) as anew:
                assert [_bytes_of(batch) for batch in anew] != first
        finally:
            _replace(origin, name, before)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("bee/000.jpg", b"other", "was replaced"),
        ("bee/000.jpg", None, "was removed"),
        ("bee/0005.jpg", b"new", "was added"),
        ("zebra/000.jpg", b"new", "was added"),
    ],
)
def test_a_change_below_a_prefix_is_named(
    origin, fresh, monkeypatch, tmp_path, name, content, said
):
    monkeypatch.setattr("penstock.loader.VERSIONS_SECONDS", 0.0)
    path = origin.root / "bucket" / "train" / name
    before = path.read_bytes() if path.exists() else None
    with _loader("s3://bucket/train/", batch_size=BATCH) as loader:
        list(loader)
        try:
            if content is None:
                path.unlink()
            else:
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
            origin.listed()
            with pytest.raises(
                penstock.ObjectChangedError, match=f"s3://bucket/train/{name} {said}"
            ):
                list(loader)
        finally:
            if before is None:
                path.unlink()
            else:
                path.write_bytes(before)
            if name.startswith("zebra"):
                path.parent.rmdir()
            origin.listed()


def test_preload_fetches_each_byte_once(origin, fresh, capsys):
    from penstock.cli import main

    url = f"s3://bucket/{TARS}"
    assert main(["preload", url, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["failed"], answer["missing_bytes"]) == (0, 0)
    before = len(origin.requests())
    _run(url, 1, shuffle=True)
    assert [r.path for r in origin.requests()[before:] if r.method == "GET" and r.range] == []
    assert main(["stat", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fetched_bytes"] >= answer["bytes"]
