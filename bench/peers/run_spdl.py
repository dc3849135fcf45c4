"""SPDL: FFmpeg decodes, crops, scales and mirrors; threads take 32 images a task."""

import math
import pathlib
import random

import harness
import numpy
import spdl.io
import spdl.pipeline
from harness import MEAN, RESIZE_PX, SIZE_PX, STD

IMAGES_PER_TASK = 32


def _draw_crop(width, height):
    """RandomResizedCrop's rectangle, drawn as torchvision draws it."""
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1.0)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return w, h, random.randint(0, width - w), random.randint(0, height - h)
    side_w, side_h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return side_w, side_h, (width - side_w) // 2, (height - side_h) // 2


def _train_filter(width, height):
    w, h, x, y = _draw_crop(width, height)
    flip = ",hflip" if random.random() < 0.5 else ""
    return f"crop={w}:{h}:{x}:{y},scale={SIZE_PX}:{SIZE_PX}:flags=bilinear{flip},format=rgb24"


def _eval_filter(width, height):
    shorter = min(width, height)
    w, h = width * RESIZE_PX // shorter, height * RESIZE_PX // shorter
    return f"scale={w}:{h}:flags=bilinear,crop={SIZE_PX}:{SIZE_PX},format=rgb24"


def _make_load(spec):
    make_filter = _train_filter if spec["transform"] == "train" else _eval_filter
    scale = numpy.array([1 / (255 * value) for value in STD], numpy.float32)
    shift = numpy.array([-m / s for m, s in zip(MEAN, STD, strict=True)], numpy.float32)

    def load(paths):
        frames = []
        for path in paths:
            packets = spdl.io.demux_image(path)
            wanted = make_filter(packets.width, packets.height)
            frames.append(spdl.io.decode_packets(packets, filter_desc=wanted))
        images = spdl.io.to_numpy(spdl.io.convert_frames(frames))
        if spec["dtype"] == "float32":
            images = (images * scale + shift).transpose(0, 3, 1, 2)
        return images

    return load


def _tasks(paths, images_per_task):
    while True:
        random.shuffle(paths)
        for first in range(0, len(paths) - images_per_task + 1, images_per_task):
            yield paths[first : first + images_per_task]


def open_stream(spec):
    paths = sorted(str(path) for path in pathlib.Path(spec["images"]).glob("*/*"))
    images_per_task = math.gcd(spec["batch_size"], IMAGES_PER_TASK)
    pipeline = (
        spdl.pipeline.PipelineBuilder()
        .add_source(_tasks(paths, images_per_task))
        .pipe(_make_load(spec), concurrency=spec["workers"])
        .aggregate(spec["batch_size"] // images_per_task)
        .pipe(numpy.concatenate)
        .add_sink(2)
        .build(num_threads=spec["workers"] + 1)  # one more joins the parts to batches
    )
    pipeline.start()
    return harness.Stream(pipeline.get_iterator(timeout=60), close=pipeline.stop)


if __name__ == "__main__":
    harness.main(open_stream, ["spdl", "spdl-core", "spdl-io", "numpy"])
