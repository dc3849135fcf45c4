"""The images: real photographs where they are, made ones elsewhere; and the peers' own forms."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import tarfile

from driver.environment import Unavailable, say

IMAGES_WANTED = 2000
SAMPLES_PER_SHARD = 256
EXTENSIONS = {".jpg", ".jpeg"}

# The demo's maker of pictures, run where Pillow and scikit-image are: TOOLS TARGET COUNT.
MAKE = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
import photographs
per_class = -(-int(sys.argv[3]) // len(photographs.PHOTOGRAPHS))
photographs.make(pathlib.Path(sys.argv[2]), per_class)
"""


class Dataset:
    """A folder of JPEGs, a class per folder, with its derived forms beside it."""

    def __init__(self, folder, kind):
        self.folder = folder
        self.images = folder / "images"
        self.kind = kind

    def describe(self):
        files = list_images(self.images)
        sizes = [path.stat().st_size for path in files]
        return {"kind": self.kind, "images": len(files), "bytes_mean": sum(sizes) / len(sizes)}


def list_images(folder):
    return sorted(path for path in folder.glob("*/*") if path.suffix.lower() in EXTENSIONS)


def _ready(folder):
    return (folder / "complete.json").exists()


def _finish(folder, facts):
    (folder / "complete.json").write_text(json.dumps(facts))


def photographs(root):
    """The folder of real photographs named CLASS_name.JPEG, or None."""
    shared = pathlib.Path(os.environ.get("PENSTOCK_SHARED_DATA") or root.parent / "shared/data")
    folder = shared / "imagenet-sample"
    return folder if folder.is_dir() and any(folder.iterdir()) else None


def prepare(root, cache, chosen, ensure_tools):
    """The data set to run on; `chosen` is the folder given by the user or None.

    `ensure_tools()` gives the python that can make pictures; it is called only when needed.
    """
    if chosen:
        return _from_user(cache, pathlib.Path(chosen).resolve())
    source = photographs(root)
    if source:
        return _from_photographs(cache, source)
    return _made(root, cache, ensure_tools)


def _from_user(cache, chosen):
    count = len(list_images(chosen)) if chosen.is_dir() else 0
    if count == 0:
        raise SystemExit(f"{chosen}: no JPEGs in folders below it; lay them out CLASS/NAME.jpg")
    name = "user-" + hashlib.sha256(f"{chosen} {count}".encode()).hexdigest()[:12]
    folder = cache / "data" / name
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "images"
    if not link.is_symlink():
        link.symlink_to(chosen, target_is_directory=True)
    return Dataset(folder, f"{count} images of {chosen.name}")


def _from_photographs(cache, source):
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in EXTENSIONS)
    copies = -(-IMAGES_WANTED // len(files))
    kind = f"{len(files)} ImageNet photographs x {copies}"
    dataset = Dataset(cache / "data" / "photographs", kind)
    if not _ready(dataset.folder):
        say(f"  data: copying {len(files)} photographs {copies} times")
        _copy_classes(files, copies, dataset.images)
        _finish(dataset.folder, {"files": len(files), "copies": copies})
    return dataset


def _copy_classes(files, copies, target):
    shutil.rmtree(target, ignore_errors=True)
    for path in files:
        folder = target / path.name.split("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        for copy in range(copies):
            shutil.copyfile(path, folder / f"{path.stem}_{copy}.JPEG")


def _made(root, cache, ensure_tools):
    dataset = Dataset(cache / "data" / "made", f"{IMAGES_WANTED} made from public photographs")
    if not _ready(dataset.folder):
        say(f"  data: making {IMAGES_WANTED} JPEGs from the photographs in scikit-image")
        shutil.rmtree(dataset.images, ignore_errors=True)
        dataset.folder.mkdir(parents=True, exist_ok=True)
        command = [str(ensure_tools()), "-c", MAKE, str(root / "tools"), str(dataset.images)]
        if subprocess.run([*command, str(IMAGES_WANTED)], check=False).returncode != 0:
            raise SystemExit("the pictures could not be made; name a folder with --dataset")
        _finish(dataset.folder, {"files": IMAGES_WANTED})
    return dataset


def shards(dataset):
    """Tar shards of the same files, as WebDataset reads them."""
    folder = dataset.folder / "shards"
    if not _ready(folder):
        say("  data: writing tar shards")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        files = list_images(dataset.images)
        classes = {name: i for i, name in enumerate(sorted({f.parent.name for f in files}))}
        # Neighbours in a folder are of one class: spread them over the shards.
        count = max(1, len(files) // SAMPLES_PER_SHARD)
        for shard in range(count):
            _write_shard(folder / f"train-{shard:06d}.tar", files[shard::count], classes)
        _finish(folder, {"shards": count})
    return [str(path) for path in sorted(folder.glob("*.tar"))]


def _write_shard(target, files, classes):
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, path in enumerate(files):
            label = target.with_suffix(".cls.tmp")
            label.write_text(str(classes[path.parent.name]))
            tar.add(path, f"{number:06d}.jpg", recursive=False)
            tar.add(label, f"{number:06d}.cls", recursive=False)
            label.unlink()


def beton(dataset, root, python):
    """FFCV's file, written by FFCV in its own environment. Raises Unavailable."""
    folder = dataset.folder / "ffcv"
    target = folder / "train.beton"
    if not _ready(folder):
        say("  data: FFCV writes its file")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        script = root / "bench" / "peers" / "write_ffcv.py"
        command = [str(python), str(script), str(dataset.images), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise Unavailable(f"FFCV could not write its file: {lines[-1]}")
        _finish(folder, {"bytes": target.stat().st_size})
    return str(target)


def warm(dataset):
    """Read every file once, so that every run finds it in the page cache."""
    for path in [
        *list_images(dataset.images),
        *dataset.folder.glob("shards/*.tar"),
        *dataset.folder.glob("ffcv/*.beton"),
    ]:
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 20):
                pass
