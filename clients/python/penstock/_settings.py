"""What a loader was asked for, checked: everything but ranks and the daemon."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from . import _arguments as arguments
from ._arguments import Sampling
from ._log import log_once
from ._recipe import Recipe, recipe_from
from .dataset import Dataset
from .errors import UsageError

SLOTS_DEFAULT, SLOTS_MIN, SLOTS_MAX = 4, 3, 256
_JOB_BYTES_MAX = 63
_POLICIES = ("raise", "skip", "zero", "replace")
_INERT_DEFAULTS = {
    "worker_init_fn": None,
    "multiprocessing_context": None,
    "persistent_workers": False,
    "pin_memory_device": "",
    "in_order": True,
}


@dataclass(frozen=True)
class Settings:
    """One of batch_size and global_batch_size is None. Units: samples, seconds."""

    batch_size: int | None
    global_batch_size: int | None
    tail: str
    sampling: Sampling
    shuffle_window: int
    shard: bool
    workers: int
    timeout_seconds: float
    slots: int
    on_error: str
    max_errors: float | None
    output: str
    device: Any
    pin_memory: bool
    layout: str
    recipe: Recipe
    job: str

    def global_batch(self, world: int) -> int:
        """Samples per batch of all ranks together."""
        if self.global_batch_size is not None:
            return self.global_batch_size
        assert self.batch_size is not None
        return self.batch_size * world


def settings_from(given: dict[str, Any], dataset: Dataset) -> Settings:
    """`given`: the arguments of DataLoader by name. Raises UsageError and its like."""
    batch_size, global_batch_size = _batch_sizes(given["batch_size"], given["global_batch_size"])
    arguments.check_collate(given["collate_fn"])
    arguments.note_inert(
        {name: given[name] for name, default in _INERT_DEFAULTS.items() if given[name] != default}
    )
    arguments.one_of("prepare", given["prepare"], ("auto", "off"))
    if arguments.one_of("quality", given["quality"], ("exact", "fast")) == "fast":
        log_once(logging.WARNING, "quality='fast': this version decodes exactly all the same")
    output = arguments.output_of(given["output"])
    workers = 0 if given["num_workers"] is None else given["num_workers"]
    return Settings(
        batch_size=batch_size,
        global_batch_size=global_batch_size,
        tail=arguments.tail_of(bool(given["drop_last"]), given["last_batch"]),
        sampling=_sampling(given, dataset),
        shuffle_window=arguments.positive_int("shuffle_window", given["shuffle_window"]),
        shard=bool(given["shard"]),
        workers=arguments.positive_int("num_workers", workers, minimum=0),
        timeout_seconds=_seconds("timeout", given["timeout"]),
        slots=_slots(given["prefetch_factor"]),
        on_error=arguments.one_of("on_error", given["on_error"], _POLICIES),
        max_errors=_share("max_errors", given["max_errors"]),
        output=output,
        device=arguments.device_of(given["device"], output),
        pin_memory=bool(given["pin_memory"]),
        layout=arguments.layout_of(given["memory_format"]),
        recipe=_recipe(given["transforms"], dataset, output),
        job=_job(given["job"]),
    )


def _batch_sizes(batch_size: Any, global_batch_size: Any) -> tuple[int | None, int | None]:
    if global_batch_size is not None:
        if batch_size not in (None, 1):
            raise UsageError(
                f"batch_size={batch_size} and global_batch_size={global_batch_size}: give one"
            )
        return None, arguments.positive_int("global_batch_size", global_batch_size)
    if batch_size is None:
        raise UsageError("batch_size=None: samples always come in batches; give at least 1")
    return arguments.positive_int("batch_size", batch_size), None


def _sampling(given: dict[str, Any], dataset: Dataset) -> Sampling:
    names = ("shuffle", "seed", "sampler", "batch_sampler", "generator", "rank", "world_size")
    return arguments.resolve_sampling(
        **{name: given[name] for name in names},
        drop_last=bool(given["drop_last"]),
        dataset_length=lambda: len(dataset),
        is_remote_tars=dataset.is_remote_tars and dataset.indices is None,
    )


def _recipe(transforms: Any, dataset: Dataset, output: str) -> Recipe:
    inherited = dataset.transform
    if transforms is not None and inherited is not None:
        raise UsageError(
            "the ImageFolder has a transform and the loader transforms=; leave one out"
        )
    images = [spec["name"] for spec in dataset.field_specs if spec["kind"] == "image"]
    recipe = recipe_from(inherited if transforms is None else transforms, images)
    if output == "numpy" and _image_dtype(recipe) == "bfloat16":
        raise UsageError(
            "NumPy has no bfloat16; use float16 or float32, or output='torch' with PyTorch"
        )
    return recipe


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise UsageError(f"{name}={value!r}: give seconds of at least 0")
    return float(value)


def _share(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise UsageError(f"{name}={value!r}: give a share of the samples, 0 to 1")
    return float(value)


def _slots(prefetch_factor: Any) -> int:
    if prefetch_factor is None:
        return SLOTS_DEFAULT
    value = arguments.positive_int("prefetch_factor", prefetch_factor)
    if value > SLOTS_MAX:
        raise UsageError(f"prefetch_factor={value}: give at most {SLOTS_MAX}")
    return max(value, SLOTS_MIN)


def _job(job: Any) -> str:
    if job is None:
        return ""
    if not isinstance(job, str) or not 0 < len(job.encode()) <= _JOB_BYTES_MAX:
        raise UsageError(f"job={job!r}: give a name of 1 to {_JOB_BYTES_MAX} bytes")
    return job


def _image_dtype(recipe: list[dict[str, Any]]) -> str:
    dtype = "uint8"
    for step in recipe:
        if step["op"] == "ToDtype":
            dtype = step["dtype"]
        elif step["op"] == "Normalize" and dtype == "uint8":
            dtype = "float32"
    return dtype
