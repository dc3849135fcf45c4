#!/usr/bin/env python3
"""A Lightning training loop, with Penstock in the lines marked "was:" and "new".

    python lightning_loop.py /data/imagenet --devices 8
    python lightning_loop.py /data/imagenet --resume checkpoints/last.ckpt

The Trainer moves batches to the device, gives each process its part, and keeps the loader's place
in its checkpoints: a run goes on in the middle of an epoch.
"""

import argparse
import os

import lightning
import penstock  # new
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.functional import cross_entropy
from torchvision import datasets, models, transforms


class Classifier(lightning.LightningModule):
    def __init__(self, arch, classes, lr):
        super().__init__()
        self.save_hyperparameters()
        self.model = models.get_model(arch, num_classes=classes)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = cross_entropy(self.model(images), labels)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        output = self.model(images)
        accuracy = (output.argmax(dim=1) == labels).float().mean()
        self.log("val_loss", cross_entropy(output, labels), sync_dist=True)
        self.log("val_acc", accuracy, prog_bar=True, sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.hparams.lr, momentum=0.9)


class ImageNet(lightning.LightningDataModule):
    def __init__(self, root, batch_size, image_size):
        super().__init__()
        self.root, self.batch_size, self.image_size = root, batch_size, image_size
        self.normalize = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

    def train_dataloader(self):
        transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(self.image_size),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                self.normalize,
            ]
        )
        dataset = datasets.ImageFolder(os.path.join(self.root, "train"), transform)
        return penstock.DataLoader(  # was: torch.utils.data.DataLoader(
            dataset, batch_size=self.batch_size, shuffle=True, drop_last=True, num_workers=4
        )

    def val_dataloader(self):
        transform = transforms.Compose(
            [
                transforms.Resize(self.image_size * 256 // 224),
                transforms.CenterCrop(self.image_size),
                transforms.ToTensor(),
                self.normalize,
            ]
        )
        dataset = datasets.ImageFolder(os.path.join(self.root, "val"), transform)
        return penstock.DataLoader(  # was: torch.utils.data.DataLoader(
            dataset, batch_size=self.batch_size, num_workers=4
        )


def main():
    parser = argparse.ArgumentParser(description="Train a torchvision model with Lightning")
    parser.add_argument("data", metavar="DIR", help="folder with train/ and val/")
    parser.add_argument("-a", "--arch", default="resnet18")
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("-b", "--batch-size", type=int, default=256, help="per process")
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--devices", default="auto")
    parser.add_argument("--checkpoint-freq", type=int, default=500, help="steps between two")
    parser.add_argument("--folder", default=".", help="for logs and checkpoints")
    parser.add_argument("--resume", metavar="PATH")
    args = parser.parse_args()

    classes = sum(entry.is_dir() for entry in os.scandir(os.path.join(args.data, "train")))
    saver = ModelCheckpoint(
        os.path.join(args.folder, "checkpoints"),
        every_n_train_steps=args.checkpoint_freq,
        save_last=True,
        save_top_k=-1,
    )
    trainer = lightning.Trainer(
        max_epochs=args.epochs,
        devices=args.devices,
        default_root_dir=args.folder,
        callbacks=[saver],
        log_every_n_steps=1,
    )
    trainer.fit(
        Classifier(args.arch, classes, args.lr),
        datamodule=ImageNet(args.data, args.batch_size, args.image_size),
        ckpt_path=args.resume,
    )
    metrics = {name: round(float(value), 4) for name, value in trainer.logged_metrics.items()}
    print("metrics:", metrics)


if __name__ == "__main__":
    main()
