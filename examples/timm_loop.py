#!/usr/bin/env python3
"""A timm training loop, with Penstock in the lines marked "was:" and "new".

    python timm_loop.py /data/imagenet --model resnet50
    torchrun --nproc-per-node 8 timm_loop.py /data/imagenet --model resnet50

timm's create_loader() builds data set, transforms and torch's DataLoader, and puts its own
PrefetchLoader around them, which moves uint8 batches to the device and normalizes them there.
That one stays: it takes Penstock's batches as it takes torch's.
"""

import argparse
import os
import time

import penstock  # new
import timm
import torch
import torch.distributed as dist
from penstock import transforms as T  # new
from timm.data import Mixup, resolve_data_config
from timm.data.loader import PrefetchLoader
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, accuracy, reduce_tensor
from torch.nn.parallel import DistributedDataParallel


def main():
    parser = argparse.ArgumentParser(description="Train a timm model")
    parser.add_argument("data_dir", metavar="DIR", help="folder with train/ and val/")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("-b", "--batch-size", type=int, default=128, help="per process")
    parser.add_argument("--input-size", type=int, default=224)
    parser.add_argument("--opt", default="lamb")
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--mixup", type=float, default=0.1)
    args = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rank, world = 0, 1
    if "WORLD_SIZE" in os.environ:
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        rank, world = dist.get_rank(), dist.get_world_size()

    train_set = penstock.Dataset(f"{args.data_dir}/train")  # was: timm.data.create_dataset(...)
    classes = len(train_set.classes)
    model = timm.create_model(args.model, num_classes=classes).to(device)
    config = resolve_data_config({"input_size": (3, args.input_size, args.input_size)}, model=model)
    loader_train, loader_eval = make_loaders(args, train_set, config, device)
    if world > 1:
        model = DistributedDataParallel(model)
    optimizer = create_optimizer_v2(model, opt=args.opt, lr=args.lr)
    scheduler, epochs = create_scheduler_v2(optimizer, num_epochs=args.epochs)
    mixup = Mixup(mixup_alpha=args.mixup, num_classes=classes)

    for epoch in range(epochs):
        loader_train.sampler.set_epoch(epoch)
        train_one_epoch(epoch, model, loader_train, optimizer, mixup, rank)
        top1 = validate(model, loader_eval, world)
        scheduler.step(epoch + 1)
        if rank == 0:
            print(f"epoch {epoch}: top-1 {top1:.2f}", flush=True)
    if world > 1:
        time.sleep(0.2)  # gloo's thread lets go of the last tensors, for which it needs the GIL
        dist.destroy_process_group()


def make_loaders(args, train_set, config, device):
    size, mode = config["input_size"][-1], config["interpolation"]
    loader_train = penstock.DataLoader(  # was: timm.data.create_loader(..., is_training=True
        train_set,
        batch_size=args.batch_size,
        shuffle=True,
        drop_last=True,
        transforms=[T.RandomResizedCrop(size, interpolation=mode), T.RandomHorizontalFlip()],
    )
    loader_eval = penstock.DataLoader(  # was: timm.data.create_loader(..., is_training=False
        f"{args.data_dir}/val",
        batch_size=args.batch_size,
        transforms=[
            T.Resize(int(size / config["crop_pct"]), interpolation=mode),
            T.CenterCrop(size),
        ],
    )
    normalize = {"mean": config["mean"], "std": config["std"], "device": device}
    return PrefetchLoader(loader_train, **normalize), PrefetchLoader(loader_eval, **normalize)


def train_one_epoch(epoch, model, loader, optimizer, mixup, rank):
    model.train()
    losses = AverageMeter()
    criterion = SoftTargetCrossEntropy()
    for step, (images, target) in enumerate(loader):
        images, target = mixup(images, target)
        loss = criterion(model(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.update(loss.item(), len(images))
        if step % 50 == 0 and rank == 0:
            print(f"epoch {epoch} [{step + 1}/{len(loader)}] loss {losses.avg:.4f}", flush=True)


@torch.no_grad()
def validate(model, loader, world):
    model.eval()
    top1 = AverageMeter()
    for images, target in loader:
        (acc1,) = accuracy(model(images), target)
        top1.update(acc1.item(), len(images))
    total = torch.tensor([top1.sum, top1.count], dtype=torch.float64, device=images.device)
    if world > 1:
        total = reduce_tensor(total, 1)
    return (total[0] / total[1]).item()


if __name__ == "__main__":
    main()
