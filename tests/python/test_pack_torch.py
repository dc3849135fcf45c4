"""Packing equals torchvision v2's to_dtype(scale=True) and normalize on the CPU to the bit."""

import kernels_library
import numpy
import pytest

torch = pytest.importorskip("torch")

library = kernels_library.load()
LEVELS = kernels_library.available_levels(library)
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
TORCH_DTYPES = {
    "uint8": torch.uint8,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def make_pixels():
    """Every value in every channel, in a picture of odd width."""
    pixels = numpy.random.default_rng(1).integers(0, 256, (40, 67, 3), dtype=numpy.uint8)
    pixels.reshape(-1, 3)[:256] = numpy.arange(256, dtype=numpy.uint8)[:, None]
    return pixels


def as_tensor(pixels, layout, mirror):
    """uint8 CHW or HWC, mirrored."""
    picture = torch.from_numpy(pixels).permute(2, 0, 1)
    axes = [axis for axis, wanted in ((2, mirror[0]), (1, mirror[1])) if wanted]
    picture = picture.flip(axes) if axes else picture
    return picture if layout == "NCHW" else picture.permute(1, 2, 0)


def normalized(pixels, layout, mirror):
    """float32, by the operations that torchvision uses."""
    picture = as_tensor(pixels, "NCHW", mirror).to(torch.float32).mul_(1.0 / 255)
    mean = torch.tensor(MEAN).view(-1, 1, 1)
    std = torch.tensor(STD).view(-1, 1, 1)
    picture = picture.sub(mean).div_(std)
    return picture if layout == "NCHW" else picture.permute(1, 2, 0)


def check(got, expected):
    numpy.testing.assert_array_equal(
        got, expected.contiguous().reshape(-1).view(torch.uint8).numpy()
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("mirror", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_against_torch(level, dtype, layout, mirror):
    pixels = make_pixels()
    plain = as_tensor(pixels, layout, mirror)
    got = kernels_library.pack(library, level, pixels, dtype, layout, mirror=mirror)
    check(got, plain.to(TORCH_DTYPES[dtype]))
    if dtype == "uint8":
        return
    got = kernels_library.pack(library, level, pixels, dtype, layout, scale=True, mirror=mirror)
    check(got, plain.to(TORCH_DTYPES[dtype]).mul_(1.0 / 255))
    got = kernels_library.pack(
        library, level, pixels, dtype, layout, scale=True, mean=MEAN, std=STD, mirror=mirror
    )
    check(got, normalized(pixels, layout, mirror).to(TORCH_DTYPES[dtype]))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "constants", [((0, 0.5, 1), (3e4, 4e7, 1.7e4)), ((1, 2, 3), (1e-6, 9, 1e-5))]
)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_range_of_small_types(level, constants, dtype):
    """Denormal results and results beyond the range of a half."""
    mean, std = constants
    pixels = make_pixels()
    picture = as_tensor(pixels, "NHWC", (0, 0)).to(torch.float32)
    expected = picture.sub(torch.tensor(mean)).div_(torch.tensor(std)).to(TORCH_DTYPES[dtype])
    check(kernels_library.pack(library, level, pixels, dtype, "NHWC", mean=mean, std=std), expected)


@pytest.mark.parametrize("level", LEVELS)
def test_against_torchvision(level):
    try:  # the registry's torchvision is built for CUDA: declare what its import looks for
        for schema in ("nms(Tensor a, Tensor b, float c) -> Tensor", "qnms(Tensor a) -> Tensor"):
            torch.library.define(
                "torchvision::" + schema.split("(")[0], schema[schema.index("(") :]
            )
    except RuntimeError:
        pass  # declared already
    v2 = pytest.importorskip("torchvision.transforms.v2", exc_type=Exception)
    pixels = make_pixels()
    picture = as_tensor(pixels, "NCHW", (0, 0)).contiguous()
    scaled = v2.functional.to_dtype(picture, torch.float32, scale=True)
    got = kernels_library.pack(library, level, pixels, "float32", "NCHW", scale=True)
    check(got, scaled)
    got = kernels_library.pack(
        library, level, pixels, "float32", "NCHW", scale=True, mean=MEAN, std=STD
    )
    check(got, v2.functional.normalize(scaled, MEAN, STD))
