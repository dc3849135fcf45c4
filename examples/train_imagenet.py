#!/usr/bin/env python3
"""Train an image classifier on a folder like ImageNet, with Penstock.

    python train_imagenet.py /data/imagenet                              # one GPU, or the CPU
    torchrun --nproc-per-node 8 train_imagenet.py /data/imagenet         # eight
    python train_imagenet.py /data/imagenet --resume checkpoint.pt       # go on, in mid-epoch too

The folder has train/ and val/ with a folder of pictures per class. The arguments are those of
PyTorch's ImageNet example where it has them.

A run that is killed and resumed goes through the same samples, in the same order and with the
same crops, as one that is not. Validation counts every picture once, on any number of processes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from dataclasses import dataclass
from typing import Any

import penstock
import torch
import torch.distributed as dist
from penstock import transforms as T
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

LR_DROP_EPOCHS = 30  # every so many epochs the learning rate falls to a tenth


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("data", metavar="DIR", help="folder with train/ and val/")
    add("-a", "--arch", default="resnet18", help="a torchvision model, or 'small': a built-in CNN")
    add("-j", "--workers", type=int, default=0, help="decode threads per process; 0: no cap")
    add("--epochs", type=int, default=90)
    add("-b", "--batch-size", type=int, default=256, help="samples per step, of all processes")
    add("--accumulate", type=int, default=1, help="batches that a step is cut into")
    add("--lr", type=float, default=0.1)
    add("--momentum", type=float, default=0.9)
    add("--weight-decay", "--wd", type=float, default=1e-4)
    add("-p", "--print-freq", type=int, default=10, help="steps between two lines")
    add("--resume", metavar="PATH", help="a checkpoint to go on from")
    add("-e", "--evaluate", action="store_true", help="only validate")
    add("--seed", type=int, default=0)
    add("--device", help="cpu, cuda, ...; default: cuda if there is one")
    add("--amp", action="store_true", help="forward and loss in bfloat16 where that is safe")
    add("--channels-last", action="store_true", help="NHWC memory for model and pictures")
    add("--image-size", type=int, default=224)
    add("--checkpoint", metavar="PATH", default="checkpoint.pt", help="where to save")
    add("--checkpoint-freq", type=int, default=500, help="steps between two; also every epoch")
    add("--record", metavar="PATH", help="append a line of JSON for each step and validation")
    return parser.parse_args(argv)


# ---- processes and devices --------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Which process of how many this is, and its device."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0


def take_place(wanted: str | None) -> Place:
    """Joins the others that torchrun has started, if it has."""
    kind = wanted or ("cuda" if torch.cuda.is_available() else "cpu")
    if "WORLD_SIZE" not in os.environ:
        return Place(0, 1, torch.device(kind))
    if kind == "cuda":
        kind = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(kind)
    dist.init_process_group("nccl" if kind.startswith("cuda") else "gloo")
    return Place(dist.get_rank(), dist.get_world_size(), torch.device(kind))


def summed(values: torch.Tensor) -> torch.Tensor:
    """`values` of all processes together."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


# ---- data -------------------------------------------------------------------------------------


def make_train_loader(args: argparse.Namespace, place: Place) -> penstock.DataLoader:
    """Global batches, cut over the processes, which the loader finds by itself.

    The samples of a step do not depend on the number of processes, nor on --accumulate.
    """
    return penstock.DataLoader(
        os.path.join(args.data, "train"),
        global_batch_size=args.batch_size // args.accumulate,
        shuffle=True,
        seed=args.seed,
        drop_last=True,
        num_workers=args.workers,
        device=place.device,
        memory_format="channels_last" if args.channels_last else None,
        transforms=[
            T.RandomResizedCrop(args.image_size),
            T.RandomHorizontalFlip(),
            T.Normalize(penstock.IMAGENET_MEAN, penstock.IMAGENET_STD),
        ],
    )


def make_val_loader(args: argparse.Namespace, place: Place) -> penstock.DataLoader:
    """Every process gets as many batches of the same shape; padding is not in ``batch.valid``."""
    return penstock.DataLoader(
        os.path.join(args.data, "val"),
        global_batch_size=args.batch_size // args.accumulate,
        last_batch="pad",
        num_workers=args.workers,
        device=place.device,
        memory_format="channels_last" if args.channels_last else None,
        transforms=[
            T.Resize(args.image_size * 256 // 224),
            T.CenterCrop(args.image_size),
            T.Normalize(penstock.IMAGENET_MEAN, penstock.IMAGENET_STD),
        ],
    )


# ---- model ------------------------------------------------------------------------------------


def small_cnn(classes: int) -> nn.Module:
    """Something that learns a little, quickly, on a CPU, without torchvision."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (16, 32, 64):
        layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def make_model(arch: str, classes: int) -> nn.Module:
    if arch == "small":
        return small_cnn(classes)
    try:
        from torchvision import models
    except ImportError as error:
        raise SystemExit(
            f"--arch {arch} needs torchvision ({error}); install it, or use small"
        ) from error
    if arch not in models.list_models(models):
        raise SystemExit(f"--arch {arch}: torchvision has {', '.join(models.list_models(models))}")
    return models.get_model(arch, num_classes=classes)


# ---- the run ----------------------------------------------------------------------------------


class Run:
    """Model, optimizer, loaders, and what is saved of them."""

    def __init__(self, args: argparse.Namespace, place: Place) -> None:
        if args.batch_size % (args.accumulate * place.world):
            parts = f"{args.accumulate} batches on {place.world} processes"
            raise SystemExit(f"--batch-size {args.batch_size} cannot be cut into {parts}")
        torch.manual_seed(args.seed)  # the same first weights in every process
        self.args, self.place = args, place
        self.val = make_val_loader(args, place)
        self.train = make_train_loader(args, place)
        form = torch.channels_last if args.channels_last else torch.contiguous_format
        self.model = make_model(args.arch, len(self.train.dataset.classes))
        self.model = self.model.to(place.device, memory_format=form)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), args.lr, args.momentum, weight_decay=args.weight_decay
        )
        self.step = 0  # of the optimizer
        self.best = 0.0
        if args.resume:
            self.load(args.resume)
        is_alone = place.world == 1
        self.forward = self.model if is_alone else DistributedDataParallel(self.model)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.place.device.type, torch.bfloat16, enabled=self.args.amp)

    def save(self, data: dict[str, Any]) -> None:
        """`data`: the loader's state; it is the same in every process."""
        if not self.place.is_first:
            return
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "data": data,
            "step": self.step,
            "best": self.best,
        }
        torch.save(state, self.args.checkpoint + ".new")
        os.replace(self.args.checkpoint + ".new", self.args.checkpoint)  # never half of one

    def load(self, path: str) -> None:
        state = torch.load(path, map_location=self.place.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.train.load_state_dict(state["data"])
        self.step, self.best = state["step"], state["best"]
        self.say(f"going on after step {self.step}, in epoch {self.train.epoch}")

    def say(self, text: str) -> None:
        if self.place.is_first:
            print(text, flush=True)

    def record(self, **values: Any) -> None:
        if self.place.is_first and self.args.record:
            with open(self.args.record, "a") as file:
                file.write(json.dumps(values) + "\n")


def backward(run: Run, batch: penstock.Batch, is_last: bool) -> torch.Tensor:
    """Adds this batch's part of the step's gradients; returns its part of the loss.

    `is_last`: of the step; only then are gradients averaged over the processes.
    """
    if isinstance(run.forward, DistributedDataParallel):
        run.forward.require_backward_grad_sync = is_last
    # Dropout and the like depend on the place alone, so nothing of them need be saved.
    torch.manual_seed(hash((run.args.seed, batch.epoch, batch.step, run.place.rank)))
    images, labels = batch
    with run.autocast():
        loss = cross_entropy(run.forward(images), labels) / run.args.accumulate
    loss.backward()
    return loss.detach()


def train_epoch(run: Run, epoch: int) -> None:
    args = run.args
    for group in run.optimizer.param_groups:
        group["lr"] = args.lr * 0.1 ** (epoch // LR_DROP_EPOCHS)
    run.forward.train()
    meter = Meter(args.batch_size)
    losses: list[torch.Tensor] = []  # of the step that is being made
    ids: list[torch.Tensor] = []
    for batch in run.train:
        state = batch.state_dict()
        is_end = state["epoch"] != epoch  # what comes after this batch is another epoch
        is_last = len(losses) + 1 == args.accumulate or is_end
        losses.append(backward(run, batch, is_last))
        ids.append(batch.sample_ids)
        if not is_last:
            continue
        run.optimizer.step()
        run.optimizer.zero_grad()
        run.step += 1
        meter.step()
        if args.record:
            record_step(run, epoch, sum(losses), torch.cat(ids))
        if run.step % args.print_freq == 0:
            rate = meter.images_per_second()
            run.say(f"epoch {epoch} step {run.step}: loss {sum(losses):.4f}, {rate:,.0f} images/s")
        if run.step % args.checkpoint_freq == 0 and not is_end:
            run.save(state)
        losses, ids = [], []


class Meter:
    """The rate since it was last asked for."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size, self.steps, self.began = batch_size, 0, time.perf_counter()

    def step(self) -> None:
        self.steps += 1

    def images_per_second(self) -> float:
        now = time.perf_counter()
        rate = self.steps * self.batch_size / (now - self.began)
        self.steps, self.began = 0, now
        return rate


def record_step(run: Run, epoch: int, loss: torch.Tensor, ids: torch.Tensor) -> None:
    """The loss over all processes, and a hash of this one's samples, to compare runs by."""
    samples = hashlib.sha256(repr(ids.tolist()).encode()).hexdigest()[:16]
    mean = summed(loss.double()).item() / run.place.world
    run.record(epoch=epoch, step=run.step, loss=mean, samples=samples)


@torch.no_grad()
def evaluate(run: Run, epoch: int) -> float:
    """Share of the pictures in val/ whose class comes first; each counts once."""
    run.forward.eval()
    counts = torch.zeros(4, dtype=torch.float64, device=run.place.device)
    for batch in run.val:
        valid = batch.valid.to(run.place.device)
        images, labels = batch
        with run.autocast():
            output = run.forward(images)
        output, labels = output[valid].float(), labels[valid]
        best = output.topk(min(5, output.shape[1])).indices == labels[:, None]
        counts[0] += len(labels)
        counts[1] += cross_entropy(output, labels, reduction="sum")
        counts[2] += best[:, 0].sum()
        counts[3] += best.any(dim=1).sum()
    count, loss, top1, top5 = summed(counts).tolist()
    top1, top5, loss = top1 / count, top5 / count, loss / count
    run.say(
        f"epoch {epoch}: {count:.0f} pictures of val/: top-1 {top1:.2%}, top-5 {top5:.2%}, "
        f"loss {loss:.4f}"
    )
    run.record(epoch=epoch, evaluated=int(count), val_loss=loss, top1=top1, top5=top5)
    return top1


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    run = Run(args, take_place(args.device))
    if args.evaluate:
        evaluate(run, run.train.epoch)
    else:
        for epoch in range(run.train.epoch, args.epochs):
            train_epoch(run, epoch)
            run.best = max(run.best, evaluate(run, epoch))
            run.save(run.train.state_dict())  # the start of the next epoch
        run.say(f"best top-1 {run.best:.2%}; data: {run.train.stats()}")
    if dist.is_initialized():
        time.sleep(0.2)  # gloo's thread lets go of the last tensors, for which it needs the GIL
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
