"""The main job, run small: train a model from photographs on disk, with each of two loaders.

    .venv/bin/python tools/demo.py [DATASET]

DATASET is a folder with a sub-folder of images per class. Both loaders feed the same `train`;
`torch_loader` and `penstock_loader` are all that differs.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import penstock
import photographs
import torch
from penstock import transforms as T
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
PENSTOCK = Path(sys.executable).parent / "penstock"
WORKERS = len(os.sched_getaffinity(0))
BATCH_SIZE = 64
SIZE_PX = 224
EPOCHS = 3
BATCHES_PER_EPOCH_MAX = 50  # so that large data sets end soon too
PIXEL_SAMPLES = 64


def import_torchvision():
    """torchvision, also where it is a CUDA build beside a CPU torch: its import then fails on
    two operators, which its transforms do not need, unless they are declared."""
    try:
        import torchvision
    except RuntimeError:
        library = import_torchvision.library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision


def torch_loader(folder):
    import_torchvision()
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    steps = [v2.RandomResizedCrop(SIZE_PX), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    return torch.utils.data.DataLoader(
        ImageFolder(folder, v2.Compose(steps)),
        batch_size=BATCH_SIZE,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
    )


def penstock_loader(folder):
    return penstock.DataLoader(
        folder,
        batch_size=BATCH_SIZE,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        transforms=[T.RandomResizedCrop(SIZE_PX), T.RandomHorizontalFlip()],
    )


class SmallModel(nn.Module):
    """Looks at every 8th pixel: cheap even on a CPU, so that the loaders are what is compared."""

    def __init__(self, classes):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, classes),
        )

    def forward(self, images):
        return self.layers(images[:, :, 4::8, 4::8].float() / 255)


@dataclass
class Report:
    first_batch_seconds: float
    images_per_second: float  # after the first batch
    wait_share: float  # of that time, spent waiting for the next batch
    first_loss: float
    last_loss: float

    def __str__(self):
        return (
            f"{self.images_per_second:7,.0f} images/s, {self.wait_share:4.0%} of the time waiting "
            f"for data, first batch after {self.first_batch_seconds:.2f} s, "
            f"loss {self.first_loss:.2f} to {self.last_loss:.2f}"
        )


def timed(batches):
    """Each batch with the seconds that it was waited for."""
    iterator = iter(batches)
    while True:
        begun = time.perf_counter()
        try:
            batch = next(iterator)
        except StopIteration:
            return
        yield batch, time.perf_counter() - begun


def train(make_loader, folder, classes):
    torch.set_num_threads(1)  # the cores are the loader's, as where a GPU trains
    torch.manual_seed(0)
    model = SmallModel(classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    waits, losses = [], []
    begun = time.perf_counter()
    loader = make_loader(folder)
    for _ in range(EPOCHS):
        for (images, labels), waited in timed(islice(loader, BATCHES_PER_EPOCH_MAX)):
            if not waits:
                first_seconds = time.perf_counter() - begun
                begun = time.perf_counter()
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            waits.append(waited)
            losses.append(loss.item())
    seconds = time.perf_counter() - begun
    images_per_second = (len(waits) - 1) * BATCH_SIZE / seconds
    last_loss = sum(losses[-5:]) / len(losses[-5:])
    share = sum(waits[1:]) / seconds
    return loader, Report(first_seconds, images_per_second, share, losses[0], last_loss)


def largest_pixel_difference(folder):
    """Penstock against torchvision on Pillow, for the transform of an evaluation."""
    import_torchvision()
    from PIL import Image
    from torchvision.transforms import v2

    reference = v2.Compose([v2.Resize(256), v2.CenterCrop(SIZE_PX), v2.PILToTensor()])
    dataset = penstock.Dataset(folder)
    count = min(PIXEL_SAMPLES, len(dataset))
    spread = [i * len(dataset) // count for i in range(count)]
    transforms = [T.Resize(256), T.CenterCrop(SIZE_PX)]
    largest = 0
    for batch in penstock.DataLoader(dataset.subset(spread), batch_size=16, transforms=transforms):
        for image, sample_id in zip(batch["image"], batch.sample_ids.tolist(), strict=True):
            expected = reference(Image.open(dataset.path(sample_id)).convert("RGB"))
            largest = max(largest, (image.int() - expected.int()).abs().max().item())
    return largest, count


def short(path):
    """As seen from the checkout, where tools/demo is run."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def ask_penstock(*arguments):
    """What `penstock ARGUMENTS --json` prints."""
    command = [PENSTOCK, *arguments, "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True).stdout)


def cache_place(folder):
    """Where the daemon keeps indexes, at most how much, and how much is there."""
    checks = {check["name"]: check["text"] for check in ask_penstock("doctor")["checks"]}
    index_path = ask_penstock("index", folder)["index_path"]
    if index_path is None:
        return checks["cache folder"]
    files = [path for path in Path(index_path).parents[1].rglob("*") if path.is_file()]
    size_bytes = sum(path.stat().st_size for path in files)
    return f"{checks['cache folder']}; {size_bytes / 1e3:,.0f} kB now"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", type=Path, default=ROOT / "build/photographs")
    folder = parser.parse_args().dataset
    if folder == parser.get_default("dataset"):
        photographs.make(folder)
    dataset = penstock.Dataset(folder)
    print(f"data      {len(dataset):,} images of {len(dataset.classes)} classes in {short(folder)}")

    _, before = train(torch_loader, folder, len(dataset.classes))
    print(f"torch     {before}")
    loader, after = train(penstock_loader, folder, len(dataset.classes))
    print(f"penstock  {after}")
    print(f"          {after.images_per_second / before.images_per_second:.1f} times the rate")
    print(f"limit     {loader.stats()['limited_by']}")

    largest, count = largest_pixel_difference(folder)
    print(f"pixels    {count} samples: at most {largest} of 255 away from torchvision's")
    print(f"cache     {cache_place(folder)}")
    print(f"next      {short(PENSTOCK)} bench {short(folder)} --against torch")


if __name__ == "__main__":
    main()
