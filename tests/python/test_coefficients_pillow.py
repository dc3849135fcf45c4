"""Pixels of coefficient records against Pillow's of the JPEGs they were made from, to the bit.

The C side is the test program imagedump, which makes the records. What is no suitable JPEG is
decoded as it is, so that a folder of anything can be compared.
"""

import os
import pathlib
import random
import subprocess

import pytest

Image = pytest.importorskip("PIL.Image")

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("PENSTOCK_BUILD", ROOT / "build" / "release"))
SHARED = pathlib.Path(os.environ.get("PENSTOCK_SHARED_DATA", ROOT.parent / "shared" / "data"))

FORMS = ["fast", "compact"]
LEVELS = ["scalar", "avx2", "avx512"]
SUFFIXES = {".jpg", ".jpeg"}
SIZES = [(1, 1), (1, 37), (37, 1), (3, 2), (16, 16), (17, 33), (131, 75), (300, 47)]


class Dump:
    """The program imagedump, kept running, on records of one form and kernels of one level."""

    def __init__(self, form, level):
        program = BUILD / "tests" / "imagedump"
        if not program.exists():
            pytest.skip(f"{program} is not built")
        self.process = subprocess.Popen(
            [program, form, level], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def decode(self, path, box=(0, 0, 0, 0), band=16):
        """The pixels of the box, or None where they are refused."""
        line = " ".join(map(str, (*box, band, path))) + "\n"
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()
        head = self.process.stdout.readline().decode(errors="replace")
        assert head, f"imagedump died on {path}"
        word, _, rest = head.strip().partition(" ")
        return self.process.stdout.read(int(rest.split()[2])) if word == "ok" else None

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=10) == 0


@pytest.fixture(scope="module", params=[(f, k) for f in FORMS for k in LEVELS], ids="-".join)
def dump(request):
    program = Dump(*request.param)
    yield program
    program.close()


def check(dump, path, region_count):
    """The whole and random boxes of it."""
    with Image.open(path) as image:
        expected = image.convert("RGB")
    assert dump.decode(path) == expected.tobytes(), path.name
    rng = random.Random(path.name)
    width, height = expected.size
    for _ in range(region_count):
        x, y = rng.randrange(width), rng.randrange(height)
        box = (x, y, rng.randint(1, width - x), rng.randint(1, height - y))
        crop = expected.crop((x, y, x + box[2], y + box[3]))
        got = dump.decode(path, box, rng.choice([1, 7, 64]))
        assert got == crop.tobytes(), f"{path.name}, {box}"


def picture(mode, size):
    rng = random.Random(str(size))
    noise = Image.frombytes("RGB", size, rng.randbytes(size[0] * size[1] * 3))
    ramp = Image.linear_gradient("L").resize(size).convert("RGB")
    return Image.blend(noise, ramp, 0.6).convert(mode)


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
def test_made(dump, tmp_path, size):
    path = tmp_path / "made.jpg"
    options = [
        ("RGB", {"subsampling": s, "progressive": p, "quality": q})
        for s in (0, 1, 2)
        for p in (False, True)
        for q in (20, 90, 100)
    ]
    options += [("RGB", {"subsampling": 2, "restart_marker_blocks": 3})]
    options += [("RGB", {"keep_rgb": True}), ("L", {}), ("L", {"progressive": True})]
    for mode, how in options:
        picture(mode, size).save(path, "JPEG", **how)
        check(dump, path, 4)


def photographs():
    folder = SHARED / "imagenet-sample"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def test_photographs(dump):
    """A quarter of the data set whole, and some boxes of each."""
    paths = [path for path in photographs() if path.suffix.lower() in SUFFIXES]
    if not paths:
        pytest.skip("no shared photographs here")
    for path in paths[::4]:
        check(dump, path, 2)


def test_many_boxes(dump):
    paths = photographs()
    if not paths:
        pytest.skip("no shared photographs here")
    for path in random.Random(5).sample(paths, 3):
        check(dump, path, 1000 // 3)
