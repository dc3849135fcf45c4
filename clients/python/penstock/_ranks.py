"""Which rank of how many this process is."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

from .errors import UsageError


@dataclass(frozen=True)
class Ranks:
    rank: int
    world: int


def resolve_ranks(rank: int | None, world_size: int | None) -> Ranks:
    """The arguments, else torch.distributed, else RANK and WORLD_SIZE, else 0 of 1.

    UsageError when only one of a pair is given, or rank is not below world size.
    """
    if (rank is None) != (world_size is None):
        raise UsageError(f"rank={rank} and world_size={world_size}: give both or none")
    if rank is not None and world_size is not None:
        return _checked(rank, world_size, "rank= and world_size=")
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return Ranks(distributed.get_rank(), distributed.get_world_size())
    in_environment = (os.environ.get("RANK"), os.environ.get("WORLD_SIZE"))
    if in_environment == (None, None):
        return Ranks(0, 1)
    if None in in_environment:
        raise UsageError(
            f"RANK={in_environment[0]} and WORLD_SIZE={in_environment[1]} in the environment: set "
            "both or none, or give rank= and world_size="
        )
    return _checked(*in_environment, "RANK and WORLD_SIZE in the environment")


def _checked(rank: Any, world: Any, where: str) -> Ranks:
    try:
        result = Ranks(int(rank), int(world))
    except (TypeError, ValueError):
        raise UsageError(f"{where}: {rank!r} and {world!r} are no whole numbers") from None
    if not 0 <= result.rank < result.world:
        raise UsageError(f"{where}: rank {result.rank} of {result.world}; ranks count from 0")
    return result


def launcher_run_id() -> str:
    """What the ranks of one run have in common; the process when nothing launched it."""
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "RAY_JOB_ID", "LSB_JOBID", "PBS_JOBID"):
        value = os.environ.get(name)
        if value and value != "none":
            return f"{name}={value}"
    if "MASTER_ADDR" in os.environ and "WORLD_SIZE" in os.environ:
        return f"{os.environ['MASTER_ADDR']}:{os.environ.get('MASTER_PORT', '')}"
    return f"pid={os.getpid()}"
