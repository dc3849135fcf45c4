#!/usr/bin/env python3
"""Hugging Face's Trainer, with Penstock in the lines marked "was:" and "new".

    python hf_trainer_loop.py /data/imagenet
    torchrun --nproc-per-node 8 hf_trainer_loop.py /data/imagenet

The Trainer asks for its loaders by two methods. Penstock's find the processes by themselves, so
they are not "prepared" once more; batches become the dict that models of transformers take.
"""

import argparse
import os

import penstock  # new
import torch
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments


def as_inputs(batch):
    return {"pixel_values": batch["image"], "labels": batch["label"]}


class PenstockTrainer(Trainer):
    """Trainer(train_dataset=..., eval_dataset=...) with penstock.Dataset objects."""

    def __init__(self, *args, image_size, **kwargs):
        super().__init__(*args, **kwargs)
        self.image_size = image_size

    def make_loader(self, dataset, batch_size, **more):
        return penstock.DataLoader(
            dataset,
            batch_size=batch_size,
            seed=self.args.data_seed or self.args.seed,
            device=self.args.device,
            batch_map=as_inputs,
            **more,
        )

    def get_train_dataloader(self):
        # was: super().get_train_dataloader(), with a collate_fn and transforms of the data set
        return self.make_loader(
            self.train_dataset,
            self.args.train_batch_size,
            shuffle=True,
            drop_last=True,
            transforms=[
                penstock.transforms.RandomResizedCrop(self.image_size),
                penstock.transforms.RandomHorizontalFlip(),
                penstock.transforms.Normalize(penstock.IMAGENET_MEAN, penstock.IMAGENET_STD),
            ],
        )

    def get_eval_dataloader(self, eval_dataset=None):
        return self.make_loader(
            eval_dataset or self.eval_dataset,
            self.args.eval_batch_size,
            transforms=[
                penstock.transforms.Resize(self.image_size * 256 // 224),
                penstock.transforms.CenterCrop(self.image_size),
                penstock.transforms.Normalize(penstock.IMAGENET_MEAN, penstock.IMAGENET_STD),
            ],
        )


def accuracy(prediction):
    return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", metavar="DIR", help="folder with train/ and val/")
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("-b", "--batch-size", type=int, default=64, help="per process")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--folder", default="checkpoints")
    args = parser.parse_args()
    train_set = penstock.Dataset(os.path.join(args.data, "train"))  # new
    val_set = penstock.Dataset(os.path.join(args.data, "val"))  # new
    trainer = PenstockTrainer(
        ResNetForImageClassification(ResNetConfig(num_labels=len(train_set.classes))),
        TrainingArguments(
            args.folder,
            num_train_epochs=args.epochs,
            per_device_train_batch_size=args.batch_size,
            per_device_eval_batch_size=args.batch_size,
            bf16=torch.cuda.is_available(),
            eval_strategy="epoch",
            report_to=[],
        ),
        train_dataset=train_set,
        eval_dataset=val_set,
        compute_metrics=accuracy,
        image_size=args.image_size,
    )
    trainer.train()
    print(trainer.evaluate())


if __name__ == "__main__":
    main()
