"""ctypes access to decode/resize.h and decode/pack.h through the library of tests/tools."""

import ctypes
import os
import pathlib

import numpy
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("PENSTOCK_BUILD", ROOT / "build" / "release"))
LEVELS = {"scalar": 0, "neon": 1, "avx2": 2, "avx512": 3}
FILTERS = {"nearest": 1, "bilinear": 2, "bicubic": 3}
DTYPES = {"uint8": 1, "float32": 2, "float16": 3, "bfloat16": 4}
LAYOUTS = {"NCHW": 1, "NHWC": 2}
READ_MARGIN = 64  # resize_columns may read this many bytes past the last pixel


class Resize(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint32)
        for name in (
            "filter width height out_width out_height cut_x cut_y cut_width cut_height".split()
        )
    ]


class PackFormat(ctypes.Structure):
    _fields_ = [
        ("dtype", ctypes.c_int),
        ("layout", ctypes.c_int),
        ("scale", ctypes.c_bool),
        ("normalize", ctypes.c_bool),
        ("mean", ctypes.c_float * 3),
        ("std", ctypes.c_float * 3),
    ]


def load():
    path = BUILD / "tests" / "libpenstock_kernels_test.so"
    if not path.exists():
        pytest.skip(f"{path} is not built", allow_module_level=True)
    library = ctypes.CDLL(str(path))
    library.test_resize.restype = ctypes.c_bool
    return library


def available_levels(library):
    """Names of the kernel levels that this processor runs."""
    return [name for name, level in LEVELS.items() if library.test_kernel_level(level) == level]


def address(array):
    return ctypes.c_void_p(array.ctypes.data)


def resize(library, level, filter_name, pixels, out_size, cut=None):
    """Resize an (h, w, 3) array to out_size = (width, height); cut = (x, y, width, height)."""
    height, width, _ = pixels.shape
    cut = cut or (0, 0, *out_size)
    job = Resize(FILTERS[filter_name], width, height, *out_size, *cut)
    source = numpy.concatenate([pixels.reshape(-1), numpy.zeros(READ_MARGIN, numpy.uint8)])
    target = numpy.zeros((cut[3], cut[2], 3), numpy.uint8)
    assert library.test_resize(LEVELS[level], ctypes.byref(job), address(source), address(target))
    return target


def pack(library, level, pixels, dtype, layout, scale=False, mean=None, std=None, mirror=(0, 0)):
    """Pack an (h, w, 3) array; returns the bytes. mirror = (x, y)."""
    height, width, _ = pixels.shape
    triple = ctypes.c_float * 3
    chosen = PackFormat(
        DTYPES[dtype],
        LAYOUTS[layout],
        scale,
        mean is not None,
        triple(*(mean or (0, 0, 0))),
        triple(*(std or (1, 1, 1))),
    )
    value_bytes = {"uint8": 1, "float32": 4}.get(dtype, 2)
    target = numpy.zeros(pixels.size * value_bytes, numpy.uint8)
    source = numpy.ascontiguousarray(pixels)
    library.test_pack(
        LEVELS[level],
        ctypes.byref(chosen),
        address(source),
        ctypes.c_uint32(width),
        ctypes.c_uint32(height),
        ctypes.c_bool(mirror[0]),
        ctypes.c_bool(mirror[1]),
        address(target),
    )
    return target
