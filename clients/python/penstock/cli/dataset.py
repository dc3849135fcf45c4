"""index, ls, show: what is in a data set."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from .._client import Client, connect
from .._index import NO_LABEL, IndexFile
from .._recipe import Recipe, recipe_from
from ..dataset import IMAGE_PATTERN, Dataset
from ..errors import DependencyError, ReadError, UsageError
from ._index_request import Indexed, request_index
from ._output import human_bytes, print_json, printable
from ._parser import Parser, add_address, add_command, whole
from ._presets import TRANSFORMS, transforms_for

_PICTURE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}
_DATASET_HELP = "a folder with a class per sub-folder, or tar shards: paths, patterns, 'a::b'"


def add_commands(commands: Any) -> None:
    index = add_command(
        commands,
        "index",
        _index,
        "list a data set's samples once and keep the index",
        "penstock index /data/train\npenstock index '/data/train-{000..146}.tar' --rebuild",
        details="A loader does it too, at its first use; an index is made anew when files change.",
    )
    _add_dataset(index)
    index.add_argument("--rebuild", action="store_true", help="make the index anew")
    ls = add_command(
        commands,
        "ls",
        _ls,
        "list the samples of a data set: id, label, bytes, name",
        "penstock ls /data/train --limit 10\npenstock ls /data/train --class n01440764 --json",
    )
    _add_dataset(ls)
    ls.add_argument(
        "--limit", type=whole(0), default=0, metavar="N", help="at most so many (default 0: all)"
    )
    ls.add_argument("--class", dest="label", metavar="NAME", help="of this class or label only")
    show = add_command(
        commands,
        "show",
        _show,
        "save one sample's picture as the trainer gets it",
        "penstock show /data/train 4711 --epoch 3 -o crop.png\n"
        "penstock show /data/train 4711 --transform none -o whole.png",
        details="The same seed, epoch and id give the same crop as in training.",
    )
    show.add_argument("dataset", metavar="DATASET", help=_DATASET_HELP)
    show.add_argument("id", type=whole(0), metavar="ID", help="as in batch.sample_ids")
    add_address(show)
    show.add_argument("--epoch", type=whole(0), default=0, metavar="E", help="default: 0")
    show.add_argument("--seed", type=whole(0), default=0, metavar="S", help="default: 0")
    show.add_argument(
        "--transform",
        choices=(*TRANSFORMS, "none"),
        default="train",
        help="train (RandomResizedCrop and flip; default), eval (Resize and CenterCrop), or none "
        "(as stored)",
    )
    show.add_argument(
        "--size", type=whole(1, 16384), default=224, metavar="N", help="pixels (default: 224)"
    )
    show.add_argument("-o", "--output", metavar="FILE", help="where the picture goes (.png, ...)")


def _add_dataset(parser: Parser) -> None:
    parser.add_argument("dataset", nargs="+", metavar="DATASET", help=_DATASET_HELP)
    add_address(parser)


# ---- index ---------------------------------------------------------------------------------------


def _index(arguments: argparse.Namespace) -> int:
    with connect(arguments.address) as client:
        indexed = request_index(client, arguments.dataset, arguments.rebuild)
    answer = indexed.answer
    if answer["warning"]:
        print(f"penstock: {printable(answer['warning'])}", file=sys.stderr)
    if arguments.json:
        print_json(
            {
                "dataset": indexed.source["urls"],
                **answer,
                "index_bytes": indexed.index_bytes,
                "seconds": round(indexed.seconds, 3),
            }
        )
        return 0
    is_folder = answer["kind"] == "folder"
    parts = [f"{answer['samples']:,} samples"]
    parts.append(f"{answer['classes']:,} classes" if is_folder else f"{answer['shards']:,} shards")
    if answer["data_bytes"]:
        parts.append(human_bytes(answer["data_bytes"]))
    print(f"{printable(indexed.shown)}: {', '.join(parts)}")
    how = f"built in {indexed.seconds:.1f} s" if answer["built"] else "ready"
    where = answer["index_path"] or "in memory only; name a cache folder with PENSTOCK_CACHE"
    print(f"index: {human_bytes(indexed.index_bytes)}, {how}, {printable(where)}")
    return 0


# ---- ls ------------------------------------------------------------------------------------------


def _ls(arguments: argparse.Namespace) -> int:
    with connect(arguments.address) as client:
        indexed = request_index(client, arguments.dataset)
    index = indexed.index
    positions = _chosen(index, arguments.label)
    count = len(positions)
    if arguments.limit:
        positions = positions[: arguments.limit]
    samples = _samples(index, positions)
    if arguments.json:
        # Written piece by piece: there may be millions.
        head = {"dataset": indexed.source["urls"], "total": count}
        print(json.dumps(head)[:-1] + ', "samples": [', end="")
        for number, sample in enumerate(samples):
            print(",\n" if number else "\n", json.dumps(sample), sep="", end="")
        print("]}")
        return 0
    width = len(str(int(index.sample_ids()[-1])))
    for sample in samples:
        label = sample["class"] if sample["class"] is not None else sample["label"]
        size = "-" if sample["bytes"] is None else str(sample["bytes"])
        fields = (f"{sample['id']:>{width}}", str("-" if label is None else label), f"{size:>9}")
        print("  ".join(printable(field) for field in (*fields, sample["name"])))
    return 0


def _chosen(index: IndexFile, label: str | None) -> np.ndarray:
    """Positions of all samples, or of those with a label: a class's name, or its number."""
    if label is None:
        return np.arange(index.sample_count)
    classes = index.classes()
    if label in classes:
        wanted = classes.index(label)
    elif label.isdecimal() and (not classes or int(label) < len(classes)):
        wanted = int(label)
    else:
        known = f"the first of {len(classes)} is {classes[0]!r}" if classes else "give a number"
        raise UsageError(f"there is no class {label!r} ({known}); see 'penstock ls DATASET'")
    return np.flatnonzero(index.labels() == wanted)


def _samples(index: IndexFile, positions: np.ndarray) -> Iterator[dict[str, Any]]:
    ids, labels, classes = index.sample_ids(), index.labels(), index.classes()
    roots = index.shards()
    for position in positions:
        label = int(labels[position])
        path = index.path(position)
        name = os.path.relpath(path, roots[0]) if index.is_folder else os.path.basename(path)
        yield {
            "id": int(ids[position]),
            "name": name,
            "path": path,
            "label": None if label == NO_LABEL else label,
            "class": classes[label] if 0 <= label < len(classes) else None,
            "bytes": _image_bytes(index, position),
        }


def _image_bytes(index: IndexFile, position: int) -> int | None:
    member = index.member(position, IMAGE_PATTERN)
    if member is None:
        return None
    if member.size_bytes is not None:
        return member.size_bytes
    try:
        return os.stat(member.path).st_size
    except OSError:
        return None


# ---- show ----------------------------------------------------------------------------------------


def _show(arguments: argparse.Namespace) -> int:
    picture_format = _picture_format(arguments.output)
    image_module = _pillow()
    with connect(arguments.address) as client:
        indexed = request_index(client, [arguments.dataset])
        position = indexed.index.position_of(arguments.id)
        if arguments.transform == "none":
            stored = Dataset(arguments.dataset)
            stored.open(client)
            picture = stored.load_field(position, {"kind": "image", "pattern": IMAGE_PATTERN})
        else:
            recipe = recipe_from(transforms_for(arguments.transform, arguments.size))
            picture = image_module.fromarray(_pixels(client, indexed, arguments, recipe))
    label = int(indexed.index.labels()[position])
    facts = {
        "id": arguments.id,
        "path": indexed.index.path(position),
        "label": None if label == NO_LABEL else label,
        "epoch": arguments.epoch,
        "seed": arguments.seed,
        "transform": arguments.transform,
        "width": picture.width,
        "height": picture.height,
        "output": arguments.output,
    }
    if arguments.output:
        _save(picture, arguments.output, picture_format)
    if arguments.json:
        print_json(facts)
        return 0
    where = arguments.output or "not saved; give -o FILE.png"
    print(
        f"{printable(facts['path'])}: label {'-' if facts['label'] is None else label}, "
        f"{picture.width}x{picture.height}, {printable(where)}"
    )
    return 0


def _picture_format(output: str | None) -> str:
    if output is None:
        return ""
    extension = os.path.splitext(output)[1].lower()
    if extension not in _PICTURE_FORMATS:
        raise UsageError(f"-o {output}: end it with one of {', '.join(_PICTURE_FORMATS)}")
    return _PICTURE_FORMATS[extension]


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise DependencyError(
            "'penstock show' needs Pillow; install it with 'pip install pillow'"
        ) from None
    return Image


def _pixels(
    client: Client, indexed: Indexed, arguments: argparse.Namespace, recipe: Recipe
) -> np.ndarray:
    """The picture from the daemon, uint8, (height, width, 3)."""
    answer, fds = client.request_fds(
        "sample",
        source=indexed.source,
        seed=arguments.seed,
        epoch=arguments.epoch,
        sample_id=arguments.id,
        transforms=recipe,
        layout="nhwc",
    )
    try:
        channels, height, width = answer["shape"]
        count = height * width * channels
        data = os.pread(fds[0], count, 0)
    finally:
        for fd in fds:
            os.close(fd)
    return np.frombuffer(data, np.uint8, count).reshape(height, width, channels)


def _save(picture: Any, path: str, picture_format: str) -> None:
    """Write the whole file or none."""
    data = io.BytesIO()
    picture.save(data, picture_format)
    folder = os.path.dirname(os.path.abspath(path))
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".penstock-", delete=False) as file:
            try:
                file.write(data.getbuffer())
                file.flush()
                umask = os.umask(0)
                os.umask(umask)
                os.fchmod(file.fileno(), 0o666 & ~umask)
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise ReadError(
            f"cannot write {path}: {error.strerror}; choose another place with -o"
        ) from error
