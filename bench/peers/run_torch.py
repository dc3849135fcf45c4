"""PyTorch: DataLoader over torchvision's ImageFolder, with the Pillow of this environment."""

import harness
import torch
import torch_data

torch_data.import_torchvision_transforms()
from torchvision.datasets import ImageFolder  # noqa: E402 (after the import above has mended it)


def open_stream(spec):
    dataset = ImageFolder(spec["images"], torch_data.make_transform(spec))
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=spec["batch_size"],
        sampler=torch_data.LongOrder(len(dataset)),
        num_workers=spec["workers"],
        drop_last=True,
    )
    return harness.Stream((images for images, _ in loader), burst=spec["workers"])


if __name__ == "__main__":
    harness.main(open_stream, ["torch", "torchvision", "pillow", "Pillow-SIMD"])
