"""The errors of Penstock: one class per kind, all of them :class:`Error`.

Each message names the object, the place and the reason, and ends with what to do next.
"""

from __future__ import annotations


class Error(Exception):
    """Base of everything that Penstock raises on purpose."""


class UsageError(Error, ValueError):
    """An argument is wrong, or arguments contradict each other."""


class ArgumentTypeError(UsageError, TypeError):
    """An argument is of a type that nothing can be made of."""


class UnsupportedTransformError(ArgumentTypeError):
    """A transform that Penstock does not have, or not in this form."""


class DatasetError(Error):
    """The data set cannot be listed, indexed or used as it is."""


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """There is no such folder or shard."""


class ObjectChangedError(DatasetError):
    """A remote object was replaced while it was in use; an epoch never mixes two versions."""


class AccessError(Error, PermissionError):
    """Credentials are missing, wrong or not enough for a remote object."""


class LengthUnknownError(Error, TypeError):
    """How many samples there are is not known before all shards were seen."""


class SampleError(Error):
    """A sample could not be made, and the policy is ``on_error="raise"``."""


class TooManyBadSamplesError(SampleError):
    """More than ``max_errors`` of an epoch's samples could not be made."""


class ReadError(Error, OSError):
    """Reading failed, also after retries; says nothing about the sample itself."""


class OutOfMemoryError(Error, MemoryError):
    """The ring of batches does not fit into the memory that may be used."""


class StateError(Error):
    """A saved state does not belong to this loader, or an iterator was overtaken."""


class WaitTimeoutError(Error, TimeoutError):
    """No batch arrived within ``timeout=`` seconds."""


class DaemonError(Error):
    """The daemon could not be started or reached, or it failed."""


class ProtocolError(DaemonError):
    """Client and daemon do not understand each other."""


class DeviceError(Error):
    """CUDA refused to take a batch."""


class PlatformError(Error, NotImplementedError):
    """Penstock runs on Linux only; importing it works everywhere."""


class DependencyError(Error, ImportError):
    """Something optional is needed here and not installed."""


_BY_KIND: dict[str, type[Error]] = {
    "usage": UsageError,
    "dataset": DatasetError,
    "sample": SampleError,
    "io": ReadError,
    "memory": OutOfMemoryError,
    "state": StateError,
    "protocol": ProtocolError,
    "internal": DaemonError,
    "changed": ObjectChangedError,
    "access": AccessError,
    "missing": DatasetNotFoundError,
}


def error_from(kind: str, message: str) -> Error:
    """The error for a kind of ``docs/protocol.md``; unknown kinds are the daemon's fault."""
    return _BY_KIND.get(kind, DaemonError)(message)
