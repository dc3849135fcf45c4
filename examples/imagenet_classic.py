#!/usr/bin/env python3
"""The classic ImageNet script, with Penstock in the lines marked "was:" and "new".

    python imagenet_classic.py -a resnet50 /data/imagenet
    torchrun --nproc-per-node 8 imagenet_classic.py -a resnet50 /data/imagenet

ImageFolder, transforms.Compose, DistributedSampler and the loop stay what they are. For what
Penstock can do beyond this (exact resume, validation without repeats) see train_imagenet.py.
"""

import argparse
import os
import time

import penstock  # new
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import StepLR
from torchvision import datasets, models, transforms

parser = argparse.ArgumentParser(description="Train a torchvision model on ImageNet")
parser.add_argument("data", metavar="DIR", help="folder with train/ and val/")
parser.add_argument("-a", "--arch", default="resnet18", choices=models.list_models(models))
parser.add_argument("-j", "--workers", default=4, type=int)
parser.add_argument("--epochs", default=90, type=int)
parser.add_argument("--start-epoch", default=0, type=int)
parser.add_argument("-b", "--batch-size", default=256, type=int, help="of all processes")
parser.add_argument("--lr", default=0.1, type=float)
parser.add_argument("--momentum", default=0.9, type=float)
parser.add_argument("--wd", default=1e-4, type=float)
parser.add_argument("-p", "--print-freq", default=10, type=int)
parser.add_argument("--resume", default="", metavar="PATH")
parser.add_argument("-e", "--evaluate", action="store_true")
parser.add_argument("--checkpoint", default="checkpoint.pth.tar", metavar="PATH")
parser.add_argument("--image-size", default=224, type=int)


def main():
    args = parser.parse_args()
    args.distributed = "WORLD_SIZE" in os.environ
    args.rank, args.world_size = 0, 1
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if args.distributed:
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        args.rank, args.world_size = dist.get_rank(), dist.get_world_size()
        args.batch_size //= args.world_size

    train_loader, train_sampler, val_loader = make_loaders(args)

    model = models.get_model(args.arch, num_classes=len(train_loader.dataset.classes)).to(device)
    if args.distributed:
        model = DistributedDataParallel(model)
    criterion = nn.CrossEntropyLoss().to(device)
    optimizer = torch.optim.SGD(
        model.parameters(), args.lr, momentum=args.momentum, weight_decay=args.wd
    )
    scheduler = StepLR(optimizer, step_size=30, gamma=0.1)
    best_acc1 = 0.0
    if args.resume:
        checkpoint = torch.load(args.resume, map_location=device)
        args.start_epoch, best_acc1 = checkpoint["epoch"], checkpoint["best_acc1"]
        model.load_state_dict(checkpoint["state_dict"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        scheduler.load_state_dict(checkpoint["scheduler"])

    if args.evaluate:
        validate(val_loader, model, criterion, device, args)
        return
    for epoch in range(args.start_epoch, args.epochs):
        if args.distributed:
            train_sampler.set_epoch(epoch)
        train(train_loader, model, criterion, optimizer, epoch, device, args)
        acc1 = validate(val_loader, model, criterion, device, args)
        scheduler.step()
        best_acc1 = max(acc1, best_acc1)
        if args.rank == 0:
            state = {
                "epoch": epoch + 1,
                "state_dict": model.state_dict(),
                "best_acc1": best_acc1,
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
            }
            torch.save(state, args.checkpoint)
    if args.distributed:
        time.sleep(0.2)  # gloo's thread lets go of the last tensors, for which it needs the GIL
        dist.destroy_process_group()


def make_loaders(args):
    normalize = transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    train_dataset = datasets.ImageFolder(
        os.path.join(args.data, "train"),
        transforms.Compose(
            [
                transforms.RandomResizedCrop(args.image_size),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                normalize,
            ]
        ),
    )
    val_dataset = datasets.ImageFolder(
        os.path.join(args.data, "val"),
        transforms.Compose(
            [
                transforms.Resize(args.image_size * 256 // 224),
                transforms.CenterCrop(args.image_size),
                transforms.ToTensor(),
                normalize,
            ]
        ),
    )
    train_sampler = val_sampler = None
    if args.distributed:
        train_sampler = torch.utils.data.distributed.DistributedSampler(train_dataset)
        val_sampler = torch.utils.data.distributed.DistributedSampler(val_dataset, shuffle=False)
    train_loader = penstock.DataLoader(  # was: torch.utils.data.DataLoader(
        train_dataset,
        batch_size=args.batch_size,
        shuffle=(train_sampler is None),
        num_workers=args.workers,
        pin_memory=True,
        sampler=train_sampler,
    )
    val_loader = penstock.DataLoader(  # was: torch.utils.data.DataLoader(
        val_dataset,
        batch_size=args.batch_size,
        shuffle=False,
        num_workers=args.workers,
        pin_memory=True,
        sampler=val_sampler,
    )
    return train_loader, train_sampler, val_loader


def train(loader, model, criterion, optimizer, epoch, device, args):
    data_time, batch_time, losses, top1 = (Average() for _ in range(4))
    model.train()
    end = time.time()
    for i, (images, target) in enumerate(loader):
        data_time.update(time.time() - end)
        images = images.to(device, non_blocking=True)
        target = target.to(device, non_blocking=True)
        output = model(images)
        loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.update(loss.item(), images.size(0))
        top1.update(correct(output, target), images.size(0))
        batch_time.update(time.time() - end)
        end = time.time()
        if i % args.print_freq == 0 and args.rank == 0:
            print(
                f"Epoch: [{epoch}][{i + 1}/{len(loader)}] Time {batch_time} Data {data_time} "
                f"Loss {losses} Acc@1 {top1}"
            )


def validate(loader, model, criterion, device, args):
    losses, top1 = Average(), Average()
    model.eval()
    with torch.no_grad():
        for images, target in loader:
            images = images.to(device, non_blocking=True)
            target = target.to(device, non_blocking=True)
            output = model(images)
            losses.update(criterion(output, target).item(), images.size(0))
            top1.update(correct(output, target), images.size(0))
    if args.distributed:
        losses.all_reduce(device)
        top1.all_reduce(device)
    if args.rank == 0:
        print(f"Test: {top1.count} images, Loss {losses} Acc@1 {top1}")
    return top1.average


def correct(output, target):
    """Percent of the rows whose class comes first."""
    return (output.argmax(dim=1) == target).float().mean().item() * 100


class Average:
    """A running mean, weighted by counts."""

    def __init__(self):
        self.sum, self.count = 0.0, 0

    @property
    def average(self):
        return self.sum / max(self.count, 1)

    def update(self, value, count=1):
        self.sum += value * count
        self.count += count

    def all_reduce(self, device):
        total = torch.tensor([self.sum, self.count], dtype=torch.float64, device=device)
        dist.all_reduce(total)
        self.sum, self.count = total[0].item(), int(total[1].item())

    def __str__(self):
        return f"{self.average:.4f}"


if __name__ == "__main__":
    main()
