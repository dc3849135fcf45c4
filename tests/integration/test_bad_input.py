"""Bad input: a clear error that names what and says what to do, or the policy; nothing hangs."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile

import numpy as np
import penstock
import pytest
import rig
from penstock import transforms as T
from PIL import Image

CROP = [T.Resize((32, 32))]


def png_header(width, height):
    """A PNG that announces a size and has no pixels."""
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


BAD_FILES = {
    "truncated": (rig.jpeg(1, 200, 200)[:-700], "truncated"),
    "corrupt": (b"\xff\xd8\xff\xe0" + b"\x00" * 300, ""),
    "huge": (png_header(60000, 60000), "too_large"),
    "text": (b"this is no image at all, whatever its name says", "not an image"),
    "empty": (b"", "no bytes"),
    "gif": (b"GIF89a" + b"\0" * 100, "GIF"),
}


@pytest.fixture
def bad_folder(tmp_path, request):
    root = rig.make_folder(tmp_path / "data", 24)
    data, _says = BAD_FILES[request.param]
    (root / "class1" / "bad.jpg").write_bytes(data)
    return root


def load(root, daemon, **more):
    arguments = {"transforms": CROP, "output": "numpy", "address": daemon.socket, **more}
    return penstock.DataLoader(root, 5, **arguments)


@pytest.mark.parametrize("bad_folder", BAD_FILES, indirect=True)
def test_raise_names_the_file(place, bad_folder, request):
    says = BAD_FILES[request.node.callspec.params["bad_folder"]][1]
    with place.daemon() as daemon:
        loader = load(bad_folder, daemon)
        with pytest.raises(penstock.SampleError, match=r"class1/bad\.jpg, byte \d+") as caught:
            list(loader)
        assert says in str(caught.value)
        assert "on_error" in str(caught.value)
        assert daemon.ask("errors")["errors"][-1]["name"].endswith("class1/bad.jpg")


@pytest.mark.parametrize("bad_folder", BAD_FILES, indirect=True)
@pytest.mark.parametrize("policy", ["skip", "zero", "replace"])
def test_policies_act_and_count(place, bad_folder, policy):
    with place.daemon() as daemon:
        loader = load(bad_folder, daemon, on_error=policy)
        batches = list(loader)
        ids = np.concatenate([batch.sample_ids for batch in batches])
        assert len(ids) == (24 if policy == "skip" else 25)
        assert loader.stats()["bad_samples"] == 1
        (bad,) = [i for i in range(25) if "bad.jpg" in str(loader.dataset.path(i))]
        if policy == "zero":
            labels = np.concatenate([batch["label"] for batch in batches])
            images = np.concatenate([batch["image"] for batch in batches])
            assert labels[bad] == -100 and not images[bad].any()
        else:
            assert bad not in ids
        assert daemon.ask("status")["ok"]


def test_max_errors(place, tmp_path):
    root = rig.make_folder(tmp_path / "data", 20)
    for name in ("a", "b", "c"):
        (root / "class0" / f"{name}.jpg").write_bytes(b"x")
    with place.daemon() as daemon, pytest.raises(penstock.Error, match="max_errors"):
        list(load(root, daemon, on_error="skip", max_errors=0.05))


# ---- tars ---------------------------------------------------------------------------------------


def tar_of(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            rig.add_member(tar, name, data)
    return path


def raw_change(path, offset, data):
    """Overwrite bytes of a header and mend its checksum."""
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    path.write_bytes(content)


GOOD = [("a.jpg", rig.jpeg(1)), ("a.cls", b"1"), ("b.jpg", rig.jpeg(2)), ("b.cls", b"2")]


def refused(place, path, says):
    with place.daemon() as daemon:
        with pytest.raises(penstock.DatasetError) as caught:
            load(str(path), daemon)
        assert os.path.basename(path) in str(caught.value)
        assert says in str(caught.value).lower(), str(caught.value)
        assert daemon.ask("status")["ok"]


def test_tar_cut_in_mid_record(place, tmp_path):
    path = tar_of(tmp_path / "cut.tar", GOOD)
    path.write_bytes(path.read_bytes()[:1300])
    refused(place, path, "")


@pytest.mark.parametrize("name", ["/etc/a.jpg", "../a.jpg", "x/../../a.jpg"])
def test_tar_with_names_that_lead_out(place, tmp_path, name):
    refused(place, tar_of(tmp_path / "names.tar", [(name, rig.jpeg(1))]), "")


def test_tar_with_a_negative_size(place, tmp_path):
    path = tar_of(tmp_path / "negative.tar", GOOD)
    raw_change(path, 124, b"\xff" * 12)
    refused(place, path, "size")


def test_tar_with_a_key_twice(place, tmp_path):
    refused(place, tar_of(tmp_path / "twice.tar", [*GOOD, *GOOD]), "")


def test_tar_that_is_compressed(place, tmp_path):
    path = tmp_path / "packed.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        rig.add_member(tar, *GOOD[0])
    refused(place, path, "compress")


def test_tar_sample_without_an_image(place, tmp_path):
    path = tar_of(tmp_path / "lacks.tar", [*GOOD, ("c.cls", b"3"), ("d.jpg", rig.jpeg(4))])
    with place.daemon() as daemon:
        with pytest.raises(penstock.SampleError, match=r"lacks\.tar"):
            list(load(str(path), daemon))
        assert sum(len(b["label"]) for b in load(str(path), daemon, on_error="skip")) == 3


# ---- folders, arguments, resources --------------------------------------------------------------


def test_folder_without_images(place, tmp_path):
    (tmp_path / "none" / "class").mkdir(parents=True)
    with place.daemon() as daemon:
        with pytest.raises(penstock.DatasetError, match="none"):
            load(tmp_path / "none", daemon)
        with pytest.raises(penstock.DatasetError, match="absent"):
            load(tmp_path / "absent", daemon)


def test_no_batch_with_drop_last(place, datasets):
    with place.daemon() as daemon:
        loader = penstock.DataLoader(
            datasets["folder"], 5000, drop_last=True, transforms=CROP, address=daemon.socket
        )
        with pytest.raises(penstock.Error, match="drop_last"):
            len(loader)
        with pytest.raises(penstock.Error, match="drop_last"):
            iter(loader)


def test_transforms_without_a_fixed_shape(place, datasets):
    with (
        place.daemon() as daemon,
        pytest.raises(penstock.Error, match=r"Resize|shape|CenterCrop"),
    ):
        iter(load(datasets["folder"], daemon, transforms=[T.Resize(64)]))


def test_a_ring_larger_than_memory(place, datasets):
    with place.daemon() as daemon:
        loader = penstock.DataLoader(
            datasets["folder"],
            60000,
            transforms=[T.Resize((512, 512)), T.ToDtype("float32", scale=True)],
            address=daemon.socket,
        )
        with pytest.raises(penstock.Error, match=r"MiB.*batch_size"):
            iter(loader)
        assert daemon.is_alive()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_for_the_index(place, tmp_path):
    root = rig.make_folder(tmp_path / "data", 60)
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", small])
    if mounted.returncode != 0:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        with place.daemon("--cache", str(small)) as daemon:
            assert sum(len(b["label"]) for b in load(root, daemon)) == 60
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_second_daemon_on_the_socket(place):
    with place.daemon() as daemon:
        second = subprocess.run(
            [rig.daemon_binary(), "--socket", daemon.socket],
            capture_output=True,
            text=True,
            timeout=10,
        )
        assert second.returncode != 0
        assert daemon.socket in second.stderr and "stop" in second.stderr
        assert daemon.ask("status")["ok"]


def test_what_a_crash_leaves(place, datasets):
    """A dead socket is taken over; a damaged index is built again."""
    first = place.daemon()
    expected = [rig.facts(batch) for batch in load(datasets["folder"], first)]
    first.kill()
    assert os.path.exists(first.socket)
    for path in (place.cache / "index").iterdir():
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data[: -len(data) // 3] if len(data) % 2 else data)
    with place.daemon() as second:
        assert [rig.facts(batch) for batch in load(datasets["folder"], second)] == expected
        assert len(list((place.cache / "index").iterdir())) == 1


def test_a_file_that_vanished_is_no_bad_sample(place, tmp_path):
    root = rig.make_folder(tmp_path / "data", 24)
    with place.daemon() as daemon:
        loader = load(root, daemon, on_error="skip")
        next(iter((root / "class2").iterdir())).unlink()
        with pytest.raises(penstock.ReadError, match="class2"):
            list(loader)
