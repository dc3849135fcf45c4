"""What the readers read: ten shards of about 100 MB, and small objects, of the same images."""

import io
import json
import os
import shutil
import tarfile

from driver import dataset
from driver.environment import say

BUCKET = "bench"


def prepare(cache, images, shard_count, shard_bytes, object_count):
    """The folder that the origin serves, with BUCKET/shards/*.tar and BUCKET/small/CLASS/*.jpg."""
    root = cache / "s3" / f"{shard_count}x{shard_bytes // 1_000_000}-{object_count}"
    if (root / "complete.json").exists():
        return root
    say(f"  data: {shard_count} shards of {shard_bytes / 1e6:.0f} MB, {object_count} objects")
    shutil.rmtree(root, ignore_errors=True)
    files = dataset.list_images(images.images)
    contents = [path.read_bytes() for path in files]
    names = sorted({path.parent.name for path in files})
    labels = [names.index(path.parent.name) for path in files]
    (root / BUCKET / "shards").mkdir(parents=True)
    position = 0
    for number in range(shard_count):
        target = root / BUCKET / "shards" / f"train-{number:06d}.tar"
        position = _write_shard(target, contents, labels, position, shard_bytes)
    for number in range(object_count):
        path = files[number * 7919 % len(files)]
        folder = root / BUCKET / "small" / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / f"{number:06d}.jpg")
    (root / "complete.json").write_text(json.dumps({"samples": position}))
    return root


def _write_shard(target, contents, labels, position, shard_bytes):
    written = 0
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        while written < shard_bytes:
            image = position * 7919 % len(contents)
            for extension, data in (("jpg", contents[image]), ("cls", b"%d" % labels[image])):
                member = tarfile.TarInfo(f"{position:08d}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
                written += len(data) + 512
            position += 1
    return position


def objects(root, prefix):
    """(key, size) of all objects below a prefix, sorted."""
    folder = root / BUCKET
    found = []
    for place, _, names in os.walk(folder / prefix):
        for name in names:
            path = os.path.join(place, name)
            found.append((os.path.relpath(path, folder), os.path.getsize(path)))
    return sorted(found)


def warm(root):
    """Read everything once, so that the origin has it in memory."""
    for key, _ in objects(root, ""):
        with open(root / BUCKET / key, "rb", buffering=0) as file:
            while file.read(1 << 22):
                pass
