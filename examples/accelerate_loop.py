#!/usr/bin/env python3
"""A Hugging Face Accelerate training loop, with Penstock in the lines marked "was:" and "new".

    accelerate launch accelerate_loop.py /data/imagenet
    accelerate launch accelerate_loop.py /data/imagenet --resume state

Accelerate rebuilds torch's DataLoader in prepare(), to cut batches over processes and to move
them; Penstock's does both by itself and goes through prepare() as it is.
"""

import argparse
import os

import penstock  # new
import torch
from accelerate import Accelerator
from torch.nn.functional import cross_entropy
from torchvision import datasets, models, transforms


def main():
    parser = argparse.ArgumentParser(description="Train a torchvision model with Accelerate")
    parser.add_argument("data", metavar="DIR", help="folder with train/ and val/")
    parser.add_argument("-a", "--arch", default="resnet18")
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("-b", "--batch-size", type=int, default=256, help="per process")
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--state", default="state", help="folder to save to")
    parser.add_argument("--resume", metavar="FOLDER")
    args = parser.parse_args()

    accelerator = Accelerator(gradient_accumulation_steps=args.accumulate)
    train_set, val_set = make_datasets(args.data, args.image_size)
    train_loader = penstock.DataLoader(  # was: torch.utils.data.DataLoader(
        train_set,
        batch_size=args.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=4,
        device=accelerator.device,  # new
    )
    val_loader = penstock.DataLoader(  # was: torch.utils.data.DataLoader(
        val_set,
        batch_size=args.batch_size,
        num_workers=4,
        device=accelerator.device,  # new
        last_batch="pad",  # new
    )
    model = models.get_model(args.arch, num_classes=len(train_set.classes))
    optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9)
    model, optimizer, train_loader, val_loader = accelerator.prepare(
        model, optimizer, train_loader, val_loader
    )
    accelerator.register_for_checkpointing(train_loader)  # new
    if args.resume:
        accelerator.load_state(args.resume)

    for epoch in range(train_loader.epoch, args.epochs):  # was: range(args.epochs):
        model.train()
        for step, (images, labels) in enumerate(train_loader):
            with accelerator.accumulate(model):
                loss = cross_entropy(model(images), labels)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            if step % 50 == 0:
                accelerator.print(f"epoch {epoch} step {step}: loss {loss.item():.4f}", flush=True)
        accelerator.save_state(args.state)
        right, count = validate(accelerator, model, val_loader)
        accelerator.print(f"epoch {epoch}: {right} of {count} right", flush=True)
    accelerator.end_training()


def make_datasets(root, size):
    normalize = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    train = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
    val = [transforms.Resize(size * 256 // 224), transforms.CenterCrop(size)]
    return (
        datasets.ImageFolder(
            os.path.join(root, name),
            transforms.Compose([*geometry, transforms.ToTensor(), normalize]),
        )
        for name, geometry in (("train", train), ("val", val))
    )


@torch.no_grad()
def validate(accelerator, model, loader):
    model.eval()
    right = count = 0
    for batch in loader:
        images, labels = batch
        hits = model(images).argmax(dim=1) == labels
        hits, valid = accelerator.gather((hits, batch.valid.to(hits.device)))  # new
        hits = hits[valid]  # was: accelerator.gather_for_metrics(hits)
        right += int(hits.sum())
        count += len(hits)
    return right, count


if __name__ == "__main__":
    main()
