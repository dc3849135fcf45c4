"""Faults between the daemon and the object store: no wrong byte reaches a trainer.

Every byte of the pictures is a pixel (PNG that is stored, not compressed), so that the hashes of
the batches cover every byte of the shards that matters. Each kind of fault strikes at random
places: of which request, and where in it. The short form has a few, the long one 50 of each kind.
"""

from __future__ import annotations

import concurrent.futures
import io
import os
import pathlib
import random
import sys
import tarfile
import time

import numpy as np
import penstock
import pytest
import rig
import web_origin
from penstock import transforms as T
from PIL import Image

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "tools"))

from faulty_origin import FaultyOrigin
from s3_servers import free_port

SHARDS, SAMPLES, EDGE, BATCH = 3, 30, 480, 6
CHUNK_BYTES = 8 << 20
PARTS = SHARDS * 3  # each shard is a bit smaller than three chunks
TOGETHER = 8  # epochs at a time
PLACES = [3, pytest.param(50, marks=pytest.mark.long)]

pytestmark = pytest.mark.timeout(1800)


def stored_png(seed: int) -> bytes:
    """A picture of noise, as large as its pixels."""
    pixels = np.random.default_rng(seed).integers(0, 255, (EDGE, EDGE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()


def make_shards(folder: pathlib.Path) -> None:
    folder.mkdir(parents=True)
    for shard in range(SHARDS):
        with tarfile.open(folder / f"s-{shard}.tar", "w") as tar:
            for number in range(SAMPLES):
                rig.add_member(tar, f"{number:03}.png", stored_png(shard * SAMPLES + number))
                rig.add_member(tar, f"{number:03}.cls", str(number).encode())


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    root = tmp_path_factory.mktemp("faults")
    make_shards(root / "bucket" / "set")
    with FaultyOrigin(root) as server:
        yield server


def names(folder: pathlib.Path | str) -> str:
    return f"{folder}/s-{{0..{SHARDS - 1}}}.tar"


def fresh_copy(origin: FaultyOrigin, name: str) -> str:
    """The same objects by names that no cache knows."""
    folder = origin.root / "bucket" / name
    folder.mkdir()
    for path in (origin.root / "bucket" / "set").iterdir():
        os.link(path, folder / path.name)
    return names(f"s3://bucket/{name}")


def loader_of(dataset: str, daemon: rig.Daemon | None, **options) -> penstock.DataLoader:
    if daemon is not None:
        options["address"] = daemon.socket
    return penstock.DataLoader(
        dataset, batch_size=BATCH, shuffle="window", shuffle_window=2, seed=5, output="numpy",
        transforms=[T.CenterCrop(EDGE)], **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def expected(origin, tmp_path_factory):
    """What each batch of the epoch is, read from local files."""
    place = rig.Place(tmp_path_factory.mktemp("d"))
    with (
        place.daemon(name="local") as daemon,
        loader_of(names(origin.root / "bucket" / "set"), daemon) as loader,
    ):
        return [rig.facts(batch) for batch in loader]


@pytest.fixture
def daemon(place, origin):
    with place.daemon("--cache-memory", "256M", environment=origin.environment()) as daemon:
        yield daemon


def part_name(number: int) -> str:
    return f"part-{number:04}-{random.getrandbits(40):010x}"


def read_epoch(dataset: str, daemon: rig.Daemon) -> tuple[list, list[float]]:
    """The facts of each batch and when it came."""
    found, times = [], []
    with loader_of(dataset, daemon) as loader:
        for batch in loader:
            found.append(rig.facts(batch))
            times.append(time.monotonic())
    return found, times


FAULTS = {
    "reset in the head": {"kind": "reset", "at": -1},
    "reset in the body": {"kind": "reset", "at": None},
    "truncated body": {"kind": "close", "at": None},
    "500": {"kind": "status", "status": 500},
    "503 for 10 s": {"kind": "status", "status": 503, "code": "SlowDown", "seconds": 10},
    "drip": {"kind": "drip", "at": None},
    "stall": {"kind": "stall", "at": None},
    "stall in the head": {"kind": "stall", "at": -1},
    "short 206": {"kind": "short206", "at": None},
    "wrong range": {"kind": "wrongrange", "at": None},
    "200 for a range": {"kind": "whole200"},
}
#: Outages are one per epoch; of other faults an epoch can bear several.
PER_EPOCH = {"503 for 10 s": 1}


def place_faults(fault: dict, count: int, path: str, chance: random.Random) -> list[dict]:
    """The fault at `count` random requests of those for one copy of the data; None: where."""
    faults = []
    for skip in chance.sample(range(PARTS - count), count):
        placed = dict(fault, path=path, skip=skip)
        if fault.get("at", 0) is None:
            placed["at"] = chance.randrange(1, CHUNK_BYTES - 1)
        faults.append(placed)
    return faults


def check_gap(faults: list[dict], times: list[float]) -> None:
    """Batches come again within 5 s of an outage's end."""
    for fault in faults:
        if "seconds" in fault and fault["struck"]:
            end = fault["first"] + fault["seconds"]
            after = [at - end for at in times if at > end]
            assert not after or min(after) < 5 * rig.PATIENCE


def check_no_wrong_byte(origin, daemon, expected, kinds, places) -> None:
    chance = random.Random(f"{kinds} {places}")
    faults: dict[str, list[dict]] = {}
    for kind in kinds:
        left = places
        while left > 0:
            name, count = part_name(len(faults)), min(left, PER_EPOCH.get(kind, 3))
            faults[name] = place_faults(FAULTS[kind], count, f"/{name}/", chance)
            left -= count
    origin.faults(*(fault for several in faults.values() for fault in several))
    urls = [fresh_copy(origin, name) for name in faults]
    with concurrent.futures.ThreadPoolExecutor(TOGETHER) as pool:
        results = list(pool.map(lambda url: read_epoch(url, daemon), urls))
    struck = origin.struck()
    assert all(fault["struck"] for fault in struck), struck
    for name, (found, times) in zip(faults, results, strict=True):
        assert found == expected
        check_gap([fault for fault in struck if fault["path"] == f"/{name}/"], times)


def test_no_wrong_byte(origin, daemon, expected):
    check_no_wrong_byte(origin, daemon, expected, list(FAULTS), 2)


@pytest.mark.long
@pytest.mark.parametrize("kind", FAULTS)
def test_no_wrong_byte_at_50_places(origin, daemon, expected, kind):
    check_no_wrong_byte(origin, daemon, expected, [kind], 50)


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("kind", ["changed", "replaced"])
def test_versions_are_never_mixed(origin, daemon, expected, kind, places):
    chance = random.Random(f"{kind} {places}")
    copies = [part_name(number) for number in range(places)]
    origin.faults(*(
        {"kind": kind, "path": f"/{name}/", "skip": chance.randrange(PARTS), "count": -1}
        for name in copies
    ))  # fmt: skip
    told = 0
    for name in copies:
        found = []
        try:
            with loader_of(fresh_copy(origin, name), daemon) as loader:
                found.extend(rig.facts(batch) for batch in loader)
            assert found == expected
        except penstock.ObjectChangedError as error:
            told += 1
            assert f"s3://bucket/{name}/s-" in str(error)
            assert found == expected[: len(found)]
    assert told >= places // 2


@pytest.mark.parametrize("places", PLACES)
def test_a_token_that_expires_is_renewed(place, origin, expected, places):
    chance = random.Random(places)
    program = place.path / "keys"
    program.write_text(
        f"""#!/bin/sh
n=$(wc -l < {place.path}/count); echo >> {place.path}/count
echo '{{"Version": 1, "AccessKeyId": "KEY'$n'", "SecretAccessKey": "secret-word-'$n'",'
echo ' "SessionToken": "token-word-'$n'"}}'
"""
    )
    program.chmod(0o755)
    (place.path / "config").write_text(f"[default]\ncredential_process = {program}\n")
    environment = {
        **origin.environment(),
        "AWS_NO_SIGN_REQUEST": "false",
        "AWS_CONFIG_FILE": str(place.path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
    expired = {"kind": "status", "status": 400, "code": "ExpiredToken", "count": -1}
    origin.faults(*(
        dict(expired, key=f"KEY{n}", skip=chance.randrange(1, PARTS)) for n in range(places)
    ))  # fmt: skip
    (place.path / "count").write_text("")
    with place.daemon(environment=environment) as daemon:
        for number in range(places // 3 + 1):
            assert read_epoch(fresh_copy(origin, part_name(number)), daemon)[0] == expected
        assert sum(fault["struck"] > 0 for fault in origin.struck()) >= min(places, 2)
        assert "secret-word" not in daemon.said() and "token-word" not in daemon.said()


# ---- what cannot work ---------------------------------------------------------------------------


def refused(place, environment: dict[str, str], dataset: str, seconds: float) -> str:
    """What a daemon in that environment says of the data set."""
    begin = time.monotonic()
    with (
        place.daemon(name=part_name(0), environment=environment) as daemon,
        pytest.raises(penstock.Error) as told,
    ):
        list(loader_of(dataset, daemon))
    assert time.monotonic() - begin < seconds * rig.PATIENCE
    return str(told.value)


def test_a_certificate_that_nobody_vouches_for(place, origin, expected):
    if reason := web_origin.Origin.missing():
        pytest.skip(reason)
    paths = web_origin.make_certificates(place.path / "ca")
    pair = (paths["certificate"], paths["key"])
    with web_origin.Origin(place.path / "nginx", origin.root, tls=pair) as server:
        dataset = names("s3://bucket/set")
        said = refused(place, server.environment(), dataset, 20)
        assert "certificate" in said and "AWS_CA_BUNDLE" in said
        assert [r for r in server.requests() if r.method == "GET"] == []
        trusted = {**server.environment(), "AWS_CA_BUNDLE": str(paths["ca"])}
        with place.daemon(environment=trusted) as daemon:
            assert read_epoch(dataset, daemon)[0] == expected


def test_a_proxy(place, origin, expected):
    with FaultyOrigin(origin.root) as proxy:
        environment = {
            **origin.environment(),
            "AWS_ENDPOINT_URL": "http://store.invalid",
            "http_proxy": proxy.endpoint,
            "no_proxy": "",
        }
        with place.daemon(environment=environment) as daemon:
            dataset = fresh_copy(origin, part_name(0))
            assert read_epoch(dataset, daemon)[0] == expected
            assert len([r for r in proxy.requests() if r["method"] == "GET"]) >= PARTS


def test_what_cannot_be_reached(place, origin):
    nowhere = {**origin.environment(), "AWS_ENDPOINT_URL": "http://store.invalid"}
    gone = {**nowhere, "http_proxy": f"http://127.0.0.1:{free_port()}", "no_proxy": ""}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        said = list(
            pool.map(lambda e: refused(place, e, "s3://bucket/set/s-0.tar", 20), (nowhere, gone))
        )
    assert "store.invalid" in said[0] and "DNS" in said[0]
    assert "proxy" in said[1]
