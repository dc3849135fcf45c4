"""tools/demo.py, the first thing a new user runs, on a small data set."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

for package in ("penstock", "torch", "torchvision", "skimage"):
    if find_spec(package) is None:
        pytest.skip(f"the demo needs {package}; tools/demo installs it", allow_module_level=True)


@pytest.fixture
def folder(tmp_path):
    """120 photographs in the demo's six classes."""
    code = "import photographs, pathlib, sys; photographs.make(pathlib.Path(sys.argv[1]), 20)"
    path = tmp_path / "photographs"
    subprocess.run([sys.executable, "-c", code, path], cwd=ROOT / "tools", check=True)
    return path


def test_demo_trains_compares_and_says_what_comes_next(folder, tmp_path):
    environment = os.environ | {"PENSTOCK_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "tools/demo.py", folder]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = dict(line.split(maxsplit=1) for line in ran.stdout.splitlines() if line[0] != " ")
    assert list(said) == ["data", "torch", "penstock", "limit", "pixels", "cache", "next"]
    assert said["data"] == f"120 images of 6 classes in {folder}"
    for loader in ("torch", "penstock"):
        assert re.search(r"[1-9]\d* images/s, +\d+% of the time waiting", said[loader])
    assert int(re.search(r"at most (\d+) of 255", said["pixels"])[1]) <= 1
    assert said["cache"].startswith(str(tmp_path / "cache"))


def test_photographs_are_the_same_for_the_same_seed(folder, tmp_path):
    again = tmp_path / "again"
    code = "import photographs, pathlib, sys; photographs.make(pathlib.Path(sys.argv[1]), 20)"
    subprocess.run([sys.executable, "-c", code, again], cwd=ROOT / "tools", check=True)
    for path in sorted(folder.rglob("*.jpg")):
        assert path.read_bytes() == (again / path.relative_to(folder)).read_bytes()
