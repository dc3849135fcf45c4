"""Reading an index file (ipc/index_format.h): which samples there are, and where."""

from __future__ import annotations

import fnmatch
import mmap
import os
import struct
from dataclasses import dataclass

import numpy as np

from .errors import DatasetError, UsageError

VERSION = 2
MAGIC = b"PSINDEX\x01"
KIND_FOLDER, KIND_TAR = 1, 2
NO_LABEL = -1

_HEADER = struct.Struct("<8sIIQQQ16Q16sQQ")
_STRINGS = 7  # the last of the sections; those before it are arrays of these:
_DTYPES = [
    np.dtype(
        [
            ("path", "<u8"),
            ("first", "<u8"),
            ("bytes", "<u8"),
            ("mtime_ns", "<i8"),
            ("tag", "<u8"),
        ]
    ),
    np.dtype([("path", "<u8"), ("mtime_ns", "<i8")]),
    np.dtype("<u8"),
    np.dtype("<u8"),
    np.dtype(
        [
            ("name", "<u8"),
            ("member_first", "<u8"),
            ("member_count", "<u4"),
            ("place", "<u4"),
            ("label", "<i8"),
        ]
    ),
    np.dtype([("offset", "<u8"), ("bytes", "<u8"), ("extension", "<u4"), ("reserved", "<u4")]),
    np.dtype([("tag", "<u8"), ("bytes", "<u8")]),
]


@dataclass(frozen=True)
class Member:
    """Bytes of one file: of a shard, or a whole file (offset 0, size None)."""

    path: str
    offset_bytes: int
    size_bytes: int | None

    def read(self) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(self.offset_bytes)
            data = file.read(-1 if self.size_bytes is None else self.size_bytes)
        if self.size_bytes is not None and len(data) != self.size_bytes:
            raise DatasetError(
                f"{self.path} ends at offset {self.offset_bytes + len(data)}, before the member "
                f"at {self.offset_bytes} does; the file changed: make the Dataset anew"
            )
        return data


class IndexFile:
    """A mapped index. Positions are canonical: 0 .. sample_count - 1."""

    def __init__(self, fd: int) -> None:
        """Map the file behind `fd`, which stays the caller's."""
        size = os.fstat(fd).st_size
        if size < _HEADER.size:
            raise DatasetError(f"the index has {size} bytes only; rebuild it: penstock index")
        self._map = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
        header = _HEADER.unpack_from(self._map)
        magic, version, self.kind, file_bytes, self.sample_count, self.data_bytes = header[:6]
        if magic != MAGIC or version != VERSION:
            raise DatasetError(
                f"the daemon's index has version {version}, this client reads {VERSION}; install "
                "the same version of both"
            )
        sections = list(zip(header[6:22:2], header[7:22:2], strict=True))
        if file_bytes > size or any(offset + length > size for offset, length in sections):
            raise DatasetError("the index is cut off; rebuild it: penstock index")
        self.fingerprint: str = header[22].hex()
        arrays = [
            np.frombuffer(self._map, dtype, length // dtype.itemsize, offset)
            for dtype, (offset, length) in zip(_DTYPES, sections[:_STRINGS], strict=True)
        ]
        self._shards, self._directories, self._classes, self._extensions = arrays[:4]
        self._samples, self._members, self._objects = arrays[4:]
        self._strings_offset = sections[_STRINGS][0]
        if len(self._samples) != self.sample_count:
            raise DatasetError("the index contradicts itself; rebuild it: penstock index")

    def _string(self, offset: int) -> str:
        start = self._strings_offset + int(offset)
        return os.fsdecode(self._map[start : self._map.find(b"\0", start)])

    @property
    def is_folder(self) -> bool:
        return self.kind == KIND_FOLDER

    def classes(self) -> list[str]:
        """Names by class number; tars have none."""
        return [self._string(offset) for offset in self._classes]

    def labels(self) -> np.ndarray:
        """int64, one per sample, a read-only view; NO_LABEL where there is none."""
        return self._samples["label"]

    def shards(self) -> list[str]:
        """Absolute paths; a folder's only shard is its root."""
        return [self._string(offset) for offset in self._shards["path"]]

    def sample_ids(self) -> np.ndarray:
        """int64, one per sample: shard << 32 | position in the shard."""
        positions = np.arange(self.sample_count, dtype=np.int64)
        if self.is_folder:
            return positions
        shard = self._samples["place"].astype(np.int64)
        return (shard << 32) | (positions - self._shards["first"].astype(np.int64)[shard])

    def position_of(self, sample_id: int) -> int:
        """The canonical position of a sample id; UsageError if there is no such sample."""
        shard, place = sample_id >> 32, sample_id & 0xFFFFFFFF
        position = self.sample_count
        if sample_id >= 0 and shard < len(self._shards):
            position = int(self._shards["first"][shard]) + place
        if position < self.sample_count and (
            self.is_folder or int(self._samples["place"][position]) == shard
        ):
            return position
        raise UsageError(
            f"there is no sample {sample_id} among {self.sample_count}; ids are those of "
            "batch.sample_ids"
        )

    def path(self, position: int) -> str:
        """Folder: the file. Tar: "SHARD:KEY"."""
        sample = self._samples[position]
        name = self._string(sample["name"])
        if self.is_folder:
            directory = self._string(self._directories["path"][sample["place"]])
            return os.path.join(self._string(self._shards["path"][0]), directory, name)
        return f"{self._string(self._shards['path'][sample['place']])}:{name}"

    def member(self, position: int, pattern: str) -> Member | None:
        """Where the first of the extensions in `pattern` ("jpg;png") lies; None if nowhere."""
        if self.is_folder:
            return Member(self.path(position), 0, None)
        sample = self._samples[position]
        first, count = int(sample["member_first"]), int(sample["member_count"])
        members = self._members[first : first + count]
        names = [self._string(self._extensions[member["extension"]]) for member in members]
        for wanted in pattern.split(";"):
            for name, member in zip(names, members, strict=True):
                if fnmatch.fnmatchcase(name.lower(), wanted.strip().lower()):
                    return Member(
                        self._string(self._shards["path"][sample["place"]]),
                        int(member["offset"]),
                        int(member["bytes"]),
                    )
        return None
