"""Fixtures of the campaigns: a place of its own for each test, and data that several share."""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

pytest.importorskip("numpy")
pytest.importorskip("PIL")

import rig

HERE = pathlib.Path(__file__).resolve().parent


def pytest_collection_modifyitems(config, items):
    """Full campaigns run with ``-m long`` (or any -m) or PENSTOCK_LONG=1 only."""
    if config.option.markexpr or os.environ.get("PENSTOCK_LONG") == "1":
        return
    skip = pytest.mark.skip(reason="a full campaign: run with -m long or PENSTOCK_LONG=1")
    for item in items:
        if HERE in pathlib.Path(item.path).parents and "long" in item.keywords:
            item.add_marker(skip)


@pytest.fixture
def place(monkeypatch):
    """A folder with a short path (sockets have 107 bytes), which is gone after the test."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="penstock-test-", dir="/tmp"))
    place = rig.Place(path)
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)
    for name in ("RANK", "WORLD_SIZE", "PENSTOCK_ADDRESS", "NOTIFY_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    yield place
    place.end_processes()
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """493 pictures in 4 classes; not to be changed."""
    return rig.make_folder(tmp_path_factory.mktemp("data") / "folder", 493)


@pytest.fixture(scope="session")
def tars(tmp_path_factory):
    """The same number in 7 shards of 17 to 123 samples; their pattern."""
    return rig.make_tars(tmp_path_factory.mktemp("data") / "tars", 493)


@pytest.fixture(scope="session")
def datasets(folder, tars):
    return {"folder": str(folder), "tar": tars}
