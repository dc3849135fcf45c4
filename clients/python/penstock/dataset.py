"""Dataset: which samples there are, in which order, with which labels."""

from __future__ import annotations

import glob
import hashlib
import io
import logging
import math
import numbers
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._index import NO_LABEL, IndexFile
from ._log import log_once, logger
from ._platform import require_linux
from ._torchvision import Foreign, foreign_from, positions_in_ours, without_subsets
from .errors import (
    ArgumentTypeError,
    DaemonError,
    DatasetError,
    DatasetNotFoundError,
    DependencyError,
    LengthUnknownError,
    ObjectChangedError,
    UsageError,
)

if TYPE_CHECKING:
    from ._client import Client

IMAGE_PATTERN = "jpg;jpeg;png;webp;ppm;pgm;pnm;pbm;bmp;tif;tiff"
_KIND_OF_EXTENSION = {"cls": "label", "txt": "text", "json": "text", "text": "text"}
MISSING_LABEL = -100


class Dataset:
    """A data set, local or behind URLs: a folder with a class per sub-folder, or WebDataset tars.

    Args:
        root: a folder; tar shards as a path, a pattern (``*`` and braces,
            ``"/data/train-{000..146}.tar"``), ``"a::b"``, or a list of these, also behind
            ``s3://``, ``https://``, ``http://``; a prefix ``"s3://bucket/train/"``; a torchvision
            ``ImageFolder``, whose transform a loader then takes over; another ``Dataset``; a torch
            ``Subset`` of either.
        fields: what a batch has, in its order. Default image and label. A mapping from name to
            extensions (``{"image": "jpg;png", "caption": "txt"}``), or a list of names and
            extensions (``["jpg", "cls", "json"]``). ``cls`` is a label (int64), ``txt`` and
            ``json`` are text (str), other non-images bytes; ``(extensions, kind)`` sets the kind.
        size: number of samples, when it should be known before the index is.
        address: socket of the daemon that indexes; default as for ``DataLoader``.

    Samples are numbered in canonical order: folders as ImageFolder lists them (classes sorted,
    then paths), shards as listed, members in file order. Nothing is read before it is needed; the
    first use makes the index, which is kept. Pickles without the index.

    Raises DatasetNotFoundError, UsageError; on first use DatasetError, DaemonError.
    """

    def __init__(
        self,
        root: Any,
        *,
        fields: Mapping[str, Any] | Sequence[str] | None = None,
        size: int | None = None,
        address: str | os.PathLike[str] | None = None,
    ) -> None:
        self._foreign: Foreign | None = None
        self._indices: np.ndarray | None = None
        self._indices_digest: str | None = None
        self._fields = field_specs(fields)
        self.transform: Any = None
        inner, chosen = without_subsets(root)
        if isinstance(inner, Dataset):
            root = inner if chosen is None else inner.subset(chosen)
        if isinstance(root, Dataset):
            self._source, self._indices = root._source, root._indices
            self._foreign, self.transform = root._foreign, root.transform
            self._fields = root._fields if fields is None else self._fields
        else:
            if not isinstance(root, (str, os.PathLike, list, tuple)):
                self._foreign = foreign_from(root)
                if self._foreign is None:
                    raise ArgumentTypeError(
                        f"a data set is a path, a list of paths or an ImageFolder, not {root!r}"
                    )
                self.transform = self._foreign.transform
                root = self._foreign.root
            self._source = _Source(_absolute_urls(root), address)
        if size is not None and (not isinstance(size, numbers.Integral) or size < 1):
            raise UsageError(f"size {size!r}: give the number of samples, at least 1")
        self._size = None if size is None else int(size)

    # ---- what there is ------------------------------------------------------------------------

    def __len__(self) -> int:
        self._settle()
        if self._indices is not None:
            return len(self._indices)
        length = self.known_length
        if length is None:
            raise LengthUnknownError(self.why_length_is_unknown())
        return length

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        urls = self._source.urls
        shown = urls[0] if len(urls) == 1 else f"{urls[0]} and {len(urls) - 1} more"
        known = self._source.index is not None or self._indices is not None
        known = known or self._source.samples is not None
        return f"Dataset({shown}{f', {len(self):,} samples' if known else ''})"

    @property
    def root(self) -> str:
        """The folder, or the first of the given shards or patterns."""
        return self._source.urls[0]

    @property
    def fields(self) -> list[str]:
        """Names of what a batch has, in its order."""
        return [field["name"] for field in self._fields]

    @property
    def classes(self) -> list[str]:
        """Class names by number, sorted; none for tars."""
        return self._index().classes()

    @property
    def class_to_idx(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.classes)}

    @property
    def targets(self) -> list[int]:
        """The label of every sample, in order; -100 where a tar sample has none."""
        labels = self._index().labels()
        self._settle()
        if self._indices is not None:
            labels = labels[self._indices]
        return np.where(labels == NO_LABEL, MISSING_LABEL, labels).tolist()

    @property
    def sample_ids(self) -> np.ndarray:
        """int64, one per sample, in order: what ``batch.sample_ids`` has."""
        ids = self._index().sample_ids()
        self._settle()
        return ids if self._indices is None else ids[self._indices]

    def path(self, sample_id: int) -> str:
        """Where a sample is: the file of a folder's, "SHARD:KEY" of a tar's.

        `sample_id` is an id as in ``batch.sample_ids``, not a position in a subset.
        """
        index = self._index()
        return index.path(index.position_of(int(sample_id)))

    def __getitem__(self, position: int) -> tuple[Any, ...]:
        """The sample as stored: a Pillow image in RGB and the other fields, untransformed.

        Raises IndexError beyond the end, SampleError if the image cannot be read.
        """
        if not isinstance(position, numbers.Integral):
            raise ArgumentTypeError(
                f"a Dataset takes an int, not {position!r}; for several use .subset(indices)"
            )
        count = len(self)
        if not -count <= position < count:
            raise IndexError(f"position {position} of {count} samples")
        canonical = int(position) % count
        if self._indices is not None:
            canonical = int(self._indices[canonical])
        return tuple(self.load_field(canonical, field) for field in self._fields)

    def load_field(self, canonical: int, field: dict[str, str]) -> Any:
        """One field of the sample at a canonical position, untransformed."""
        index = self._index()
        if field["kind"] == "label":
            label = int(index.labels()[canonical])
            return MISSING_LABEL if label == NO_LABEL else label
        member = index.member(canonical, field["pattern"])
        data = b"" if member is None else member.read()
        if field["kind"] == "image":
            return _image(data, index.path(canonical))
        return data if field["kind"] == "bytes" else data.decode(errors="replace")

    # ---- parts --------------------------------------------------------------------------------

    def subset(self, indices: Any) -> Dataset:
        """The samples at these positions of this set, in this order; or where a mask is True."""
        chosen = np.asarray(indices)
        self._index()  # of all shards
        count = len(self)
        if chosen.dtype == np.bool_:
            if chosen.shape != (count,):
                raise UsageError(f"a mask of {chosen.size} values; give {count}, one per sample")
            chosen = np.flatnonzero(chosen)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            raise ArgumentTypeError("indices: give a one-dimensional list of ints, or a mask")
        if chosen.size and (int(chosen.min()) < 0 or int(chosen.max()) >= count):
            raise UsageError(
                f"indices from {chosen.min()} to {chosen.max()} for {count} samples; "
                f"give 0 to {count - 1}"
            )
        chosen = chosen.astype(np.uint64)
        part = Dataset(self)
        part._indices = chosen if self._indices is None else self._indices[chosen]
        return part

    def split(self, fractions: Sequence[float], seed: int = 0) -> list[Dataset]:
        """Cut at random into parts without common samples: ``train, val = full.split([.9, .1])``.

        `fractions` add up to 1 (or are whole numbers that add up to ``len(self)``); the same seed
        gives the same parts. What is left by rounding down goes to the first parts, one each.
        Inside a part the samples stay in order.
        """
        self._index()  # of all shards
        lengths = _lengths(fractions, len(self))
        order = np.random.RandomState(seed).permutation(len(self))
        ends = np.cumsum(lengths)
        starts = ends - lengths
        return [
            self.subset(np.sort(order[start:end])) for start, end in zip(starts, ends, strict=True)
        ]

    # ---- for the loader -----------------------------------------------------------------------

    @property
    def source(self) -> dict[str, Any]:
        """The member "source" of the control protocol."""
        return self._source.members

    @property
    def is_remote(self) -> bool:
        return is_remote(self._source.urls[0])

    def seconds_since_check(self) -> float:
        """Since the versions of remote objects were last looked at."""
        return time.monotonic() - self._source.checked_at

    @property
    def is_remote_tars(self) -> bool:
        """Whether the names are those of tar shards behind URLs."""
        return self._source.is_remote_tars

    @property
    def known_length(self) -> int | None:
        """Samples, without waiting for the index of remote shards; None while that is unknown."""
        self._settle()
        if self._indices is not None:
            return len(self._indices)
        if self._source.index is not None or not self._source.is_remote_tars:
            if self._size is not None and self._source.index is None:
                return self._size
            return self._index().sample_count
        return self._source.count() or self._size

    def why_length_is_unknown(self) -> str:
        return (
            f"{self!r}: how many samples its shards hold is not known before all of them were "
            "read; run 'penstock index' on it once, give Dataset(size=...), or do without the "
            "length"
        )

    @property
    def indices(self) -> np.ndarray | None:
        """uint64 canonical positions of a subset; None for the whole."""
        self._settle()
        return self._indices

    @property
    def field_specs(self) -> list[dict[str, str]]:
        """The member "fields" of the control protocol."""
        return self._fields

    @property
    def fingerprint(self) -> str:
        """Identifies the samples, whatever folder they lie in; hexadecimal."""
        fingerprint = self._source.fingerprint()
        if self.indices is None:
            return fingerprint
        if self._indices_digest is None:
            data = self._indices.astype("<u8", copy=False).tobytes()
            self._indices_digest = hashlib.sha256(data).hexdigest()[:16]
        return f"{fingerprint}-{self._indices_digest}"

    def open(self, client: Client | None = None) -> None:
        """Make sure that the index is there; asks `client`, or a connection of its own."""
        self._source.introduce(client)
        self._settle()
        count = self._source.samples
        if count is not None and self._size not in (None, count) and self._indices is None:
            raise DatasetError(
                f"{self!r} was made with size={self._size} but has {count} samples; "
                "correct size= or leave it out"
            )

    def position_of(self, sample_id: int) -> int:
        """The canonical position of a sample id; UsageError when there is no such sample."""
        return self._index().position_of(sample_id)

    def check_unchanged(self, client: Client) -> None:
        """DatasetError if `client`'s daemon finds other samples than were seen before."""
        answer = client.request("dataset", source=self.source, wait=False)
        self._source.check(answer["fingerprint"], answer["changed"])

    def _index(self) -> IndexFile:
        return self._source.open(None)

    def _settle(self) -> None:
        """Turn a foreign object's list of samples into positions of ours, once."""
        if self._foreign is None:
            return
        foreign, index = self._foreign, self._index()
        paths = [index.path(position) for position in range(index.sample_count)]
        folder = foreign.folder
        positions: Any = positions_in_ours(
            _with_absolute_paths(folder), paths, index.labels().tolist()
        )
        if foreign.indices is not None:
            chosen = np.asarray(foreign.indices, dtype=np.int64)
            positions = chosen if positions is None else np.asarray(positions)[chosen]
        if positions is not None:
            self._indices = np.asarray(positions, dtype=np.uint64)
        self._foreign = None

    def __getstate__(self) -> dict[str, Any]:
        self._settle()
        return {**self.__dict__, "_foreign": None}


class _with_absolute_paths:
    """A folder object's samples with absolute paths, as the index has them."""

    def __init__(self, folder: Any) -> None:
        cwd = os.getcwd()
        self.samples = [
            (os.path.normpath(os.path.join(cwd, path)), label) for path, label in folder.samples
        ]


class _Source:
    """The urls of a data set and its index, shared by all its subsets."""

    def __init__(self, urls: list[str], address: Any) -> None:
        self.urls = urls
        self.address = None if address is None else os.fspath(address)
        self.index: IndexFile | None = None
        self.samples: int | None = None  # None while shards are unknown
        self._fingerprint: str | None = None
        self.checked_at = -math.inf  # time.monotonic()
        self.members: dict[str, Any] = {"urls": urls}
        profile = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
        if profile and is_remote(urls[0]):
            self.members["profile"] = profile
        self.is_remote_tars = is_remote(urls[0]) and (
            len(urls) > 1 or urls[0].endswith(".tar") or any(c in urls[0] for c in "{*?[")
        )

    def open(self, client: Client | None) -> IndexFile:
        if self.index is None:
            self._alone(lambda own: self._ask(own, wait=True), client)
        assert self.index is not None
        return self.index

    def introduce(self, client: Client | None) -> None:
        """Have what a loader needs: the index or, of remote shards, their names and versions."""
        if not self.is_remote_tars:
            self.open(client)
        elif self._fingerprint is None:
            self._alone(lambda own: self._ask(own, wait=False), client)

    def fingerprint(self) -> str:
        self.introduce(None)
        assert self._fingerprint is not None
        return self._fingerprint

    def count(self) -> int | None:
        """Samples, None while shards are unknown."""
        if self.samples is None:
            self._alone(lambda own: self._ask(own, wait=False), None)
        return self.samples

    def _alone(self, ask: Callable[[Client], None], client: Client | None) -> None:
        if client is not None:
            ask(client)
            return
        require_linux()
        from ._client import connect
        from ._wire import Disconnected

        with connect(self.address) as own:
            try:
                ask(own)
            except Disconnected:
                raise DaemonError(
                    f"the daemon went away while it indexed {self.urls[0]}; see its log"
                    f"{own.log_hint()} and try again"
                ) from None

    def _ask(self, client: Client, wait: bool) -> None:
        progress = _Progress(self.urls[0])
        answer, fds = client.request_fds(
            "dataset", progress=progress, source=self.members, wait=wait
        )
        progress.end()
        try:
            index = IndexFile(fds[0]) if fds else None
        finally:
            for fd in fds:
                os.close(fd)
        if answer.get("warning"):
            log_once(logging.WARNING, answer["warning"])
        self.check(answer["fingerprint"], answer["changed"])
        self._fingerprint = answer["fingerprint"]
        self.samples = answer["samples"]
        self.index = index if index is not None else self.index
        if self.samples is not None:
            logger.info("%s: %d samples", self.urls[0], self.samples)
        else:
            logger.info("%s: %d shards, not indexed yet", self.urls[0], answer["shards"])

    def check(self, fingerprint: str, what: str | None = None) -> None:
        """DatasetError if the files are not those that were seen before; `what` says which."""
        self.checked_at = time.monotonic()
        if self._fingerprint not in (None, fingerprint):
            kind = ObjectChangedError if is_remote(self.urls[0]) else DatasetError
            what = what or "files were added, removed or replaced ('penstock sync' tells which)"
            raise kind(
                f"{self.urls[0]} has changed since it was opened: {what}; make the Dataset anew"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "index": None, "checked_at": -math.inf}


class _Progress:
    """Shows the building of an index: on a terminal in place, else in the log."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._said = False
        self._is_on_terminal = False

    def __call__(self, progress: dict[str, Any]) -> None:
        done, total = progress.get("done", 0), progress.get("total", 0)
        text = f"penstock: {progress.get('what', 'indexing')} {self._what}: {done:,}"
        text += f" of {total:,}" if total else ""
        if sys.stderr is not None and sys.stderr.isatty():
            print(f"\r{text}", end="", file=sys.stderr, flush=True)
            self._is_on_terminal = True
        elif not self._said:
            logger.info("%s", text)
            self._said = True

    def end(self) -> None:
        if self._is_on_terminal:
            print(file=sys.stderr)


def field_specs(fields: Mapping[str, Any] | Sequence[str] | None) -> list[dict[str, str]]:
    """The protocol's list of fields for what ``Dataset(fields=)`` was given."""
    if fields is None:
        fields = ["image", "label"]
    if isinstance(fields, str):
        fields = [fields]
    defaults = {"image": IMAGE_PATTERN, "label": "cls"}
    if isinstance(fields, Mapping):
        items = list(fields.items())
    else:
        items = [(name, defaults.get(name, name)) for name in fields]
    specs = []
    for name, value in items:
        pattern, kind = value if isinstance(value, (tuple, list)) else (value, None)
        if not isinstance(name, str) or not isinstance(pattern, str) or not pattern:
            raise ArgumentTypeError(
                f"field {name!r}: {value!r}; give extensions such as 'jpg;png', or "
                "(extensions, kind)"
            )
        kind = kind or _kind_of(pattern)
        if kind not in ("image", "label", "text", "bytes"):
            raise UsageError(f"field {name!r}: kind {kind!r}; use image, label, text or bytes")
        specs.append({"name": name, "kind": kind, "pattern": pattern})
    images = [spec["name"] for spec in specs if spec["kind"] == "image"]
    if len(images) != 1:
        raise UsageError(f"fields {[spec['name'] for spec in specs]}: give exactly one image field")
    return specs


def _kind_of(pattern: str) -> str:
    extensions = [part.strip().lower().removeprefix(".") for part in pattern.split(";")]
    last = extensions[0].rsplit(".", 1)[-1]
    if last in IMAGE_PATTERN.split(";"):
        return "image"
    return _KIND_OF_EXTENSION.get(last, "bytes")


def _absolute_urls(root: Any) -> list[str]:
    given = list(root) if isinstance(root, (list, tuple)) else [root]
    urls = []
    for one in given:
        if not isinstance(one, (str, os.PathLike)):
            raise ArgumentTypeError(f"a data set's path cannot be {one!r}; give str or Path")
        urls += [_absolute_url(part) for part in _split(os.fspath(one)) if part]
    if not urls:
        raise UsageError("no path given; give a folder or tar shards")
    return urls


def is_remote(url: str) -> bool:
    return url.startswith(("s3://", "https://", "http://"))


def _split(url: str) -> list[str]:
    """The names in "a::b"; the colons of "http://[::1]/" are none that part."""
    return [url] if "://[" in url else url.split("::")


def _absolute_url(url: str) -> str:
    if is_remote(url):
        return url
    url = url.removeprefix("file://")
    if "://" in url:
        raise DatasetError(
            f"{url}: what can be read is local files, s3://, https:// and http://; copy the data "
            "to one of these"
        )
    path = os.path.abspath(os.path.expanduser(url))
    is_pattern = "{" in path or glob.has_magic(path)
    if not os.path.exists(path) and not is_pattern:
        raise DatasetNotFoundError(
            f"{path}: no such folder or file; check the path (relative ones count from "
            f"{os.getcwd()})"
        )
    return path


def _lengths(fractions: Sequence[float], count: int) -> np.ndarray:
    values = list(fractions)
    if not values or not all(isinstance(value, numbers.Real) and value >= 0 for value in values):
        raise UsageError(f"fractions {values}: give numbers of at least 0, such as [0.9, 0.1]")
    if all(isinstance(value, numbers.Integral) for value in values) and sum(values) == count:
        return np.array(values, dtype=np.int64)
    if not math.isclose(sum(values), 1.0, abs_tol=1e-6):
        raise UsageError(
            f"fractions {values} add up to {sum(values):g}; make it 1, or {count} in whole samples"
        )
    lengths = np.array([math.floor(count * value) for value in values], dtype=np.int64)
    for extra in range(count - int(lengths.sum())):
        lengths[extra % len(lengths)] += 1
    return lengths


def _image(data: bytes, path: str) -> Any:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise DependencyError(
            "Dataset[i] needs Pillow; install it with 'pip install pillow', or use a DataLoader"
        ) from None
    from .errors import SampleError

    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise SampleError(
            f"{path}: {error}; replace or remove the file, or use a loader with on_error='skip'"
        ) from error
