"""Resizing equals Pillow's to the bit, in every kernel variant that this processor runs."""

import random

import kernels_library
import numpy
import pytest

PIL = pytest.importorskip("PIL")
Image = pytest.importorskip("PIL.Image")

library = kernels_library.load()
LEVELS = kernels_library.available_levels(library)
PILLOW_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
# Before 13, Pillow always took the columns first; its results differ where we take rows first.
COLUMNS_ALWAYS_FIRST = int(PIL.__version__.split(".")[0]) < 13


def rows_first(width, height, out_width, out_height):
    return height > out_height and height - out_height > 2 * (width - out_width)


def make_pixels(chooser, width, height):
    noise = numpy.random.default_rng(chooser.getrandbits(32))
    pixels = noise.integers(0, 256, (height, width, 3), dtype=numpy.uint8)
    if chooser.random() < 0.4:  # hard edges drive the bicubic past 0 and 255
        pixels = (pixels >> 7) * numpy.uint8(255)
    return pixels


def check(level, filter_name, pixels, out_size, cut=None):
    height, width, _ = pixels.shape
    if COLUMNS_ALWAYS_FIRST and filter_name != "nearest" and rows_first(width, height, *out_size):
        return
    expected = Image.fromarray(pixels).resize(out_size, PILLOW_FILTERS[filter_name])
    if cut:
        x, y, cut_width, cut_height = cut
        expected = expected.crop((x, y, x + cut_width, y + cut_height))
    got = kernels_library.resize(library, level, filter_name, pixels, out_size, cut)
    numpy.testing.assert_array_equal(
        got, numpy.asarray(expected), f"{width}x{height} to {out_size}, cut {cut}"
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("filter_name", PILLOW_FILTERS)
def test_random_sizes(level, filter_name):
    chooser = random.Random(1)
    for _ in range(150):
        largest = chooser.choice([5, 20, 70, 300])
        width, height, *out_size = (chooser.randint(1, largest) for _ in range(4))
        check(level, filter_name, make_pixels(chooser, width, height), tuple(out_size))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("filter_name", PILLOW_FILTERS)
@pytest.mark.parametrize(
    "sizes",
    [
        (331, 277, 224, 224),
        (500, 375, 224, 224),
        (375, 500, 224, 224),
        (150, 101, 224, 224),
        (224, 224, 224, 224),
        (224, 300, 224, 224),
        (300, 224, 224, 224),
        (4000, 301, 224, 224),
        (301, 4000, 224, 224),
        (20000, 2, 3, 1),
        (2, 3, 900, 901),
        (1, 1, 50, 50),
        (65, 64, 64, 65),
    ],
)
def test_typical_and_extreme_sizes(level, filter_name, sizes):
    width, height, *out_size = sizes
    check(level, filter_name, make_pixels(random.Random(2), width, height), tuple(out_size))


@pytest.mark.parametrize("filter_name", ["bilinear", "bicubic"])
def test_every_small_pair_of_sizes(filter_name):
    """Each axis on its own, all sizes 1 to 24 to all sizes 1 to 24."""
    chooser = random.Random(3)
    for size in range(1, 25):
        for out in range(1, 25):
            check(LEVELS[-1], filter_name, make_pixels(chooser, size, 3), (out, 3))
            check(LEVELS[-1], filter_name, make_pixels(chooser, 3, size), (3, out))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("filter_name", PILLOW_FILTERS)
def test_cut_equals_crop_after_resize(level, filter_name):
    """As Resize(256) then CenterCrop(224) have it, and random cuts."""
    chooser = random.Random(4)
    check(level, filter_name, make_pixels(chooser, 500, 375), (341, 256), (58, 16, 224, 224))
    check(level, filter_name, make_pixels(chooser, 333, 500), (256, 384), (16, 80, 224, 224))
    for _ in range(60):
        width, height, *out_size = (chooser.randint(1, 90) for _ in range(4))
        x, y = chooser.randrange(out_size[0]), chooser.randrange(out_size[1])
        cut = (x, y, chooser.randint(1, out_size[0] - x), chooser.randint(1, out_size[1] - y))
        check(level, filter_name, make_pixels(chooser, width, height), tuple(out_size), cut)
