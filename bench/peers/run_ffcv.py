"""FFCV in its jpg mode: its own file, compiled pipeline, no antialias but area averaging."""

import harness
import numpy
from ffcv.fields.decoders import CenterCropRGBImageDecoder, RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, ToTensor, ToTorchImage
from harness import MEAN, RESIZE_PX, SIZE_PX, STD

EPOCHS_IN_ONE = 200


def _image_steps(spec):
    size = (SIZE_PX, SIZE_PX)
    if spec["transform"] == "train":
        steps = [RandomResizedCropRGBImageDecoder(size), RandomHorizontalFlip()]
    else:
        steps = [CenterCropRGBImageDecoder(size, ratio=SIZE_PX / RESIZE_PX)]
    if spec["dtype"] == "uint8":
        return steps + [ToTensor()]
    mean, std = (255 * numpy.array(values) for values in (MEAN, STD))
    return steps + [NormalizeImage(mean, std, numpy.float32), ToTensor(), ToTorchImage()]


def open_stream(spec):
    pipelines = {"image": _image_steps(spec)}
    # The index is repeated so that no epoch's edge falls into the timed part.
    count = Loader(spec["beton"], spec["batch_size"], 1, pipelines={"image": None}).indices.size
    loader = Loader(
        spec["beton"],
        batch_size=spec["batch_size"],
        num_workers=spec["workers"],
        os_cache=True,
        order=OrderOption.RANDOM,
        indices=numpy.tile(numpy.arange(count, dtype="uint64"), EPOCHS_IN_ONE),
        drop_last=True,
        pipelines=pipelines,
    )
    note = "reads its own file: shrunk to 500 px, re-encoded at quality 90, 4:2:0"
    return harness.Stream((images for images, _ in loader), note=note)


if __name__ == "__main__":
    harness.main(open_stream, ["ffcv", "torch", "numba", "opencv-python", "numpy"])
