"""DALI on the CPU: file reader, decoding of the crop, antialiased resize, mirror."""

import harness
import numpy
import nvidia.dali as dali
from harness import MEAN, RESIZE_PX, SIZE_PX, STD
from nvidia.dali import fn, types


def _resize(images, antialias, **size):
    return fn.resize(
        images, interp_type=types.INTERP_LINEAR, antialias=antialias, device="cpu", **size
    )


def _build(spec):
    train = spec["transform"] == "train"
    encoded, labels = fn.readers.file(
        file_root=spec["images"], random_shuffle=train, initial_fill=512, name="reader"
    )
    if train:
        images = fn.decoders.image_random_crop(
            encoded, device="cpu", random_area=[0.08, 1.0], random_aspect_ratio=[3 / 4, 4 / 3]
        )
        images = _resize(images, spec["antialias"], resize_x=SIZE_PX, resize_y=SIZE_PX)
        mirror = fn.random.coin_flip(probability=0.5)
    else:
        images = fn.decoders.image(encoded, device="cpu")
        images = _resize(images, spec["antialias"], resize_shorter=RESIZE_PX)
        mirror = 0
    if spec["dtype"] == "uint8":
        form = dict(dtype=types.UINT8, output_layout="HWC")
    else:
        form = dict(
            dtype=types.FLOAT,
            output_layout="CHW",
            mean=[255 * value for value in MEAN],
            std=[255 * value for value in STD],
        )
    images = fn.crop_mirror_normalize(images, crop=(SIZE_PX, SIZE_PX), mirror=mirror, **form)
    return images, labels


def _batches(pipeline):
    while True:
        images, _ = pipeline.run()
        yield numpy.asarray(images.as_tensor())  # borrows DALI's memory, valid until the next run


def open_stream(spec):
    pipeline = dali.Pipeline(
        batch_size=spec["batch_size"],
        num_threads=spec["workers"],
        device_id=None,
        seed=1,
        exec_async=True,
        exec_pipelined=True,
        prefetch_queue_depth=2,
    )
    with pipeline:
        pipeline.set_outputs(*_build(spec))
    pipeline.build()
    return harness.Stream(_batches(pipeline))


if __name__ == "__main__":
    harness.main(open_stream, ["nvidia-dali-cuda120", "numpy"])
