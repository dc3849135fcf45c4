"""The arguments of torch's DataLoader that Penstock takes over: honoured, inert, or refused."""

from __future__ import annotations

import logging
import numbers
import sys
from dataclasses import dataclass
from typing import Any

from ._log import log_once
from .errors import ArgumentTypeError, UsageError

SEED_MAX = 2**63 - 1

ORDERS = {"full": "full", "window": "window"}


@dataclass
class Sampling:
    """What sampler, generator, shuffle, rank and their like come to."""

    order: str
    seed: int
    rank: int | None
    world_size: int | None
    epoch_source: Any = None  # the user's DistributedSampler, whose set_epoch is followed


def positive_int(name: str, value: Any, minimum: int = 1) -> int:
    """`value` as an int of at least `minimum`, else UsageError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ArgumentTypeError(f"{name}={value!r}: give a whole number of at least {minimum}")
    if value < minimum:
        raise UsageError(f"{name}={value}: give a whole number of at least {minimum}")
    return int(value)


def one_of(name: str, value: Any, choices: tuple[Any, ...]) -> Any:
    if value not in choices:
        raise UsageError(f"{name}={value!r}: use one of {', '.join(map(repr, choices))}")
    return value


def order_of(shuffle: Any, is_remote_tars: bool = False) -> str:
    """ "sequential", "full" or "window" for ``shuffle=``."""
    if shuffle is None or shuffle is False:
        return "sequential"
    if shuffle is True:
        # Windows need no index of shards that come later: training starts at once.
        return "window" if is_remote_tars else "full"
    if isinstance(shuffle, str) and shuffle in ORDERS:
        return ORDERS[shuffle]
    raise UsageError(f"shuffle={shuffle!r}: use False, True, 'full' or 'window'")


def resolve_sampling(
    *,
    shuffle: Any,
    seed: int | None,
    sampler: Any,
    batch_sampler: Any,
    generator: Any,
    rank: int | None,
    world_size: int | None,
    drop_last: bool,
    dataset_length: Any,
    is_remote_tars: bool,
) -> Sampling:
    """`dataset_length`: a function; it is asked only for a sampler that has a data set."""
    if batch_sampler is not None:
        raise UsageError(
            "batch_sampler= is code of yours that the daemon cannot run; give batch_size, shuffle "
            "and drop_last, or a Dataset.subset(indices) in the order that you want"
        )
    if seed is not None and positive_int("seed", seed, minimum=0) > SEED_MAX:
        raise UsageError(f"seed={seed!r}: give a whole number, 0 to 2^63 - 1")
    result = Sampling(
        order_of(shuffle, is_remote_tars), 0 if seed is None else int(seed), rank, world_size
    )
    if sampler is not None:
        if shuffle:
            raise UsageError("sampler= and shuffle= exclude each other; leave one out")
        _apply_sampler(result, sampler, seed, drop_last, dataset_length)
    if generator is not None:
        _apply_generator(result, generator, seed)
    return result


def _apply_generator(result: Sampling, generator: Any, seed: int | None) -> None:
    if not hasattr(generator, "initial_seed"):
        raise ArgumentTypeError(f"generator={generator!r}: give a torch.Generator, or seed=")
    if seed is not None:
        raise UsageError("generator= and seed= both give the seed; leave one out")
    result.seed = int(generator.initial_seed()) & SEED_MAX


def _apply_sampler(
    result: Sampling, sampler: Any, seed: int | None, drop_last: bool, dataset_length: Any
) -> None:
    data = sys.modules.get("torch.utils.data")
    kind = type(sampler)
    if data is None or kind not in (
        data.SequentialSampler,
        data.RandomSampler,
        data.distributed.DistributedSampler,
    ):
        raise UsageError(
            f"sampler={kind.__module__}.{kind.__qualname__} is code of yours that the daemon "
            "cannot run; give shuffle=, or a Dataset.subset(indices) in the order that you want"
        )
    source = getattr(sampler, "dataset", None) or getattr(sampler, "data_source", None)
    if source is not None and len(source) != dataset_length():
        raise UsageError(
            f"the sampler draws from {len(source)} samples, the data set has {dataset_length()}; "
            "make the sampler for this data set, or leave it out"
        )
    if kind is data.RandomSampler:
        _apply_random(result, sampler, seed, source)
    elif kind is data.distributed.DistributedSampler:
        _apply_distributed(result, sampler, seed, drop_last)


def _apply_random(result: Sampling, sampler: Any, seed: int | None, source: Any) -> None:
    if sampler.replacement or sampler.num_samples != len(source):
        raise UsageError(
            "a RandomSampler with replacement or num_samples is not supported; give shuffle=True, "
            "or a Dataset.subset(indices)"
        )
    result.order = "full"
    if sampler.generator is not None:
        _apply_generator(result, sampler.generator, seed)


def _apply_distributed(result: Sampling, sampler: Any, seed: int | None, drop_last: bool) -> None:
    if result.rank is not None or result.world_size is not None:
        raise UsageError("a DistributedSampler gives rank and world_size; leave these out")
    if sampler.drop_last and not drop_last:
        raise UsageError(
            "the DistributedSampler has drop_last=True; give drop_last=True to the loader too, or "
            "leave it out of the sampler: without it no sample is dropped or counted twice"
        )
    result.order = "full" if sampler.shuffle else "sequential"
    if seed is not None and seed != sampler.seed:
        raise UsageError(f"seed={seed}, but the sampler has seed {sampler.seed}; leave one out")
    result.seed = int(sampler.seed)
    result.rank, result.world_size = int(sampler.rank), int(sampler.num_replicas)
    result.epoch_source = sampler


def check_collate(collate_fn: Any) -> None:
    """Only torch's default is what the daemon does anyway."""
    if collate_fn is None:
        return
    data = sys.modules.get("torch.utils.data")
    if data is not None and collate_fn is data.default_collate:
        return
    raise UsageError(
        f"collate_fn={getattr(collate_fn, '__name__', collate_fn)!r}: the daemon makes whole "
        "batches, so no code of yours runs per sample; give batch_map=, which gets the finished "
        "batch"
    )


def note_inert(given: dict[str, Any]) -> None:
    """Say once which arguments have nothing to do here; `given`: those that are not defaults."""
    if given:
        names = ", ".join(given)
        log_once(
            logging.INFO,
            f"accepted without effect: {names} (Penstock has no worker processes, and batches "
            "come in order)",
        )


def tail_of(drop_last: bool, last_batch: str | None) -> str:
    """The member "tail" of the protocol; UsageError when the two contradict each other."""
    if last_batch is not None:
        one_of("last_batch", last_batch, ("even", "pad", "drop"))
        if drop_last and last_batch != "drop":
            raise UsageError(
                f"drop_last=True and last_batch={last_batch!r} contradict each other; leave one out"
            )
        return last_batch
    return "drop" if drop_last else "even"


def layout_of(memory_format: Any) -> str:
    """ "nchw" or "nhwc" for ``memory_format=``, a name or torch's."""
    name = str(memory_format).removeprefix("torch.")
    if memory_format is None or name in ("contiguous_format", "preserve_format"):
        return "nchw"
    if name == "channels_last":
        return "nhwc"
    raise UsageError(
        f"memory_format={memory_format!r}: use 'channels_last', 'contiguous_format' or None"
    )


def output_of(output: str | None) -> str:
    """ "torch" or "numpy"; by default torch if it is installed."""
    one_of("output", output, (None, "torch", "numpy"))
    if output == "numpy":
        return "numpy"
    import importlib.util

    if importlib.util.find_spec("torch") is not None:
        return "torch"
    if output == "torch":
        from .errors import DependencyError

        raise DependencyError(
            "output='torch' needs PyTorch; install it with 'pip install torch', or use "
            "output='numpy'"
        )
    return "numpy"


def device_of(device: Any, output: str) -> Any:
    """None for batches on the CPU, else a torch.device that exists."""
    if device is None or str(device) == "cpu":
        return None
    if output != "torch":
        raise UsageError(f"device={device!r} needs torch tensors; leave output= out")
    import torch

    try:
        result = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise UsageError(f"device={device!r}: {error}; use 'cuda', 'cuda:0' or None") from None
    if result.type == "cpu":
        return None
    if result.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"device={device!r}: torch sees no CUDA device; leave device= out for batches on the "
            "CPU, or run 'penstock doctor'"
        )
    return result
