"""Write FFCV's file of a folder of images: write_ffcv.py IMAGES TARGET.

As FFCV's own ImageNet script does for its "jpg" mode: sides of at most 500 px, JPEG quality 90.
"""

import sys

import torch_data
from ffcv.fields import IntField, RGBImageField
from ffcv.writer import DatasetWriter

torch_data.import_torchvision_transforms()
from torchvision.datasets import ImageFolder  # noqa: E402 (after the import has been mended)


def main():
    images, target = sys.argv[1:]
    fields = {
        "image": RGBImageField(write_mode="jpg", max_resolution=500, jpeg_quality=90),
        "label": IntField(),
    }
    DatasetWriter(target, fields, num_workers=2).from_indexed_dataset(ImageFolder(images))


if __name__ == "__main__":
    main()
