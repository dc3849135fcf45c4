"""The index of random folders and tars against Python's own listings of them.

Needs the program `indexdump` of the C build: named by PENSTOCK_INDEXDUMP, else looked for under
build/*/tests/. Skipped without it.
"""

import io
import os
import pathlib
import random
import re
import subprocess
import tarfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@pytest.fixture(scope="module")
def indexdump():
    named = os.environ.get("PENSTOCK_INDEXDUMP")
    found = [named] if named else sorted(map(str, ROOT.glob("build/*/tests/indexdump")))
    if not found:
        pytest.skip("indexdump is not built and PENSTOCK_INDEXDUMP is not set")

    def run(*arguments):
        done = subprocess.run([found[0], *map(str, arguments)], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        head, *lines = os.fsdecode(done.stdout).splitlines()
        return head.split("\t"), [line.split("\t") for line in lines]

    return run


def image_folder(root):
    """(path, class number) in the order in which torchvision's ImageFolder has them."""
    samples = []
    for number, name in enumerate(sorted(e.name for e in os.scandir(root) if e.is_dir())):
        for folder, _, names in sorted(os.walk(os.path.join(root, name), followlinks=True)):
            for file in sorted(names):
                if file.lower().endswith(EXTENSIONS):
                    samples.append((os.path.join(folder, file), number))
    return samples


def random_name(draw):
    alphabet = "abAB01-_. +é東🐈~"
    name = "".join(draw.choices(alphabet, k=draw.randint(1, 5))).strip()
    return name if name.strip(".") else "x" + name


def random_tree(draw, folder, depth):
    folder.mkdir(exist_ok=True)
    for _ in range(draw.randint(0, 12)):
        suffix = draw.choice([*EXTENSIONS, ".JPG", ".Jpeg", ".txt", "", ".jpg.gz", "."])
        path = folder / (random_name(draw) + suffix)
        if not path.exists():
            path.touch()
    for _ in range(draw.randint(0, 3) if depth > 0 else 0):
        path = folder / random_name(draw)
        if not path.exists():
            random_tree(draw, path, depth - 1)


@pytest.mark.parametrize("seed", range(12))
def test_order_is_image_folders(indexdump, tmp_path, seed):
    draw = random.Random(seed)
    root = tmp_path / "root"
    root.mkdir()
    (root / "always").mkdir()
    (root / "always" / "one.jpg").touch()
    for _ in range(8):
        name = random_name(draw)
        if not (root / name).exists():
            random_tree(draw, root / name, 3)
    if seed % 2:  # links to files, to folders outside, and to nothing
        random_tree(draw, tmp_path / "outside", 2)
        os.symlink(tmp_path / "outside", root / "a linked class")
        os.symlink(tmp_path / "outside", root / "always" / "linked")
        os.symlink("one.jpg", root / "always" / "two.jpg")
        os.symlink("nothing", root / "always" / "three.jpg")
    head, lines = indexdump("--threads", 1 + seed % 4, root)
    expected = image_folder(root)
    assert [(path, int(label)) for _, label, path in lines] == expected
    assert [int(number) for number, _, _ in lines] == list(range(len(expected)))
    assert int(head[2]) == sum(entry.is_dir() for entry in os.scandir(root))


def grouped(path):
    """(key, {extension: (offset, size)}) of runs of members, as WebDataset groups them."""
    samples = []
    with tarfile.open(path) as archive:
        for member in archive:
            match = re.match(r"^((?:.*/|)[^./]+)[.]([^/]+)$", member.name, re.DOTALL)
            if not member.isreg() or not match:
                continue
            key, extension = match.group(1), match.group(2).lower()
            if not samples or samples[-1][0] != key:
                samples.append((key, {}))
            samples[-1][1][extension] = (member.offset_data, member.size)
    return samples


def random_tar(draw, path, form):
    with tarfile.open(path, "w", format=form) as archive:
        directory = tarfile.TarInfo("d")
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
        for number in range(draw.randint(1, 40)):
            length = draw.choice([0, 3, 40, 99, 100, 101, 155, 200])
            folder = "/".join("d" * draw.randint(1, 30) for _ in range(4)) + "/"
            if form != tarfile.USTAR_FORMAT:
                folder += "x" * length + draw.choice(["", "é/"])
            for extension in draw.sample(["jpg", "CLS", "json", "seg.png", "txt"], 3):
                data = b"%d" % number if extension == "CLS" else bytes(draw.randint(0, 3000))
                info = tarfile.TarInfo(f"{folder}{number:06d}.{extension}")
                info.size = len(data)
                info.mtime = draw.choice([0, 2**32, 1.5 if form == tarfile.PAX_FORMAT else 7])
                archive.addfile(info, io.BytesIO(data))
            if draw.random() < 0.2:
                archive.addfile(tarfile.TarInfo(f"noextension{number}"))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("seed", range(4))
def test_samples_are_those_of_tarfile(indexdump, tmp_path, form, seed):
    draw = random.Random(seed)
    paths = [tmp_path / f"{number}.tar" for number in range(3)]
    expected = []
    for shard, path in enumerate(paths):
        random_tar(draw, path, form)
        expected += [(shard << 32 | i, str(path), *s) for i, s in enumerate(grouped(path))]
    fields = sorted({extension for _, _, _, members in expected for extension in members})
    arguments = [part for field in fields for part in ("--field", field)]
    _, lines = indexdump("--threads", 2, *arguments, tmp_path / "{0..2}.tar")
    assert len(lines) == len(expected)
    for (number, label, name, *places), (sample_id, path, key, members) in zip(
        lines, expected, strict=True
    ):
        assert int(number) == sample_id
        assert name == f"{path}:{key}"
        assert (int(label) >= 0) == ("cls" in members)
        for field, place in zip(fields, places, strict=True):
            if field not in members:
                assert place == "-"
                continue
            offset, size = map(int, place.split("+"))
            assert size == members[field][1]
            assert size == 0 or offset == members[field][0]
