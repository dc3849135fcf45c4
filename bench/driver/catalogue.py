"""Which peers there are, how each is installed and how it is run."""

import dataclasses

# PyTorch's version is pinned in every environment: a dependency would bring another one, with
# gigabytes of CUDA packages. torchvision goes without its dependencies for the same reason.
TORCH = "torch==2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
TORCHVISION = "torchvision==0.29.2"


@dataclasses.dataclass(frozen=True)
class PipStep:
    """One `pip install` with these arguments; `environment` is added to the process's own.

    `otherwise` is taken when it fails.
    """

    what: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    otherwise: "PipStep | None" = None


@dataclasses.dataclass(frozen=True)
class Environment:
    """A virtual environment with what a peer needs."""

    name: str
    steps: tuple[PipStep, ...]
    probe: str  # Python that fails when the environment is not usable
    debian: tuple[str, ...] = ()  # packages that the build or the import needs


@dataclasses.dataclass(frozen=True)
class Peer:
    name: str
    title: str
    environment: str
    runner: str
    needs: str = "images"  # "images", "shards" or "beton": the form of the data it reads
    antialias: bool = True
    extra_workers: int = 0  # threads or processes on top of the number of cores


def _pip(*arguments, otherwise=None, **environment):
    what = " ".join(part for part in arguments if not part.startswith("-"))
    return PipStep(what, arguments, tuple(environment.items()), otherwise)


# The CPU build: where pip is set up to find it, else from PyTorch's own index, else PyPI's build.
_TORCH_STEPS = (
    _pip(
        f"{TORCH}+cpu",
        otherwise=_pip(
            *("--retries=1", "--timeout=20", f"--extra-index-url={CPU_INDEX}", f"{TORCH}+cpu"),
            otherwise=_pip(TORCH),
        ),
    ),
    _pip("--no-deps", TORCHVISION),
    _pip("numpy"),
)

ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        Environment(
            "torch",
            (*_TORCH_STEPS, _pip("pillow>=13,<14")),
            "import torch, PIL.Image",
        ),
        Environment(
            "torch-simd",
            (
                *_TORCH_STEPS,
                _pip("setuptools", "wheel"),
                _pip(
                    *("--no-binary=pillow-simd", "--no-deps", "pillow-simd==12.1.1.post0"),
                    CC="cc -mavx2",
                ),
            ),
            "import torch, PIL.Image",
            ("gcc", "python3-dev", "libjpeg62-turbo-dev", "zlib1g-dev"),
        ),
        Environment(
            "dali",
            (_pip("nvidia-dali-cuda120==2.4.0", "numpy"),),
            "import nvidia.dali",
        ),
        Environment("tfdata", (_pip("tensorflow-cpu==2.21.0"),), "import tensorflow"),
        Environment(
            "ffcv",
            (
                *_TORCH_STEPS,
                _pip("setuptools", "wheel", "pillow"),
                _pip("ffcv==1.0.2"),
            ),
            "import ffcv",
            ("g++", "python3-dev", "pkg-config", "libopencv-dev", "libturbojpeg0-dev"),
        ),
        Environment(
            "spdl",
            (_pip("spdl==0.8.0", "numpy"),),
            "import spdl.io; spdl.io.decode_config()",
            ("ffmpeg",),
        ),
        Environment(
            "webdataset",
            (*_TORCH_STEPS, _pip("pillow>=13,<14", "webdataset==1.0.2")),
            "import torch, webdataset",
        ),
        # The readers of bench/s3.
        Environment("plain", (), "import json"),
        Environment("obstore", (_pip("obstore==0.12.1"),), "import obstore"),
        Environment("boto3", (_pip("boto3==1.44.5"),), "import boto3"),
        Environment(
            "s3torch",
            (*_TORCH_STEPS, _pip("s3torchconnector==1.5.0")),
            "import torch, s3torchconnector",
        ),
        Environment(
            "mosaicml",
            (*_TORCH_STEPS, _pip("mosaicml-streaming==0.13.0")),
            "import torch, boto3",  # streaming imports torchvision: read_mosaicml.py
        ),
        Environment(
            "litdata", (*_TORCH_STEPS, _pip("litdata==0.2.76", "s3fs", "zstd")), "import litdata"
        ),
        Environment("awscli", (_pip("awscli==1.46.3"),), "import awscli"),
        Environment("s3fs", (), "import json", ("s3fs",)),
        # Not a peer's: draws the plot and makes pictures where there are none.
        Environment(
            "tools",
            (_pip("matplotlib", "pillow", "numpy", "scikit-image"),),
            "import matplotlib, PIL.Image, skimage.data",
        ),
    )
}

# In the order of the table.
PEERS = {
    peer.name: peer
    for peer in (
        Peer("penstock", "Penstock", "penstock", "run_penstock.py"),
        Peer("ffcv", "FFCV, jpg", "ffcv", "run_ffcv.py", needs="beton"),
        Peer("tfdata-plain", "tf.data, no antialias", "tfdata", "run_tfdata.py", antialias=False),
        Peer("tfdata", "tf.data, antialias", "tfdata", "run_tfdata.py"),
        Peer("dali", "DALI, CPU", "dali", "run_dali.py"),
        Peer("torch-simd", "PyTorch DataLoader, Pillow-SIMD", "torch-simd", "run_torch.py"),
        Peer("torch", "PyTorch DataLoader, Pillow", "torch", "run_torch.py"),
        Peer("webdataset", "WebDataset, Pillow", "webdataset", "run_webdataset.py", needs="shards"),
        Peer("spdl", "SPDL", "spdl", "run_spdl.py"),
    )
}


@dataclasses.dataclass(frozen=True)
class Reader:
    """A way to get objects from S3, for bench/s3."""

    name: str
    title: str
    environment: str
    runner: str
    connections: int = 32
    reads_small: bool = True  # small objects too
    prepared: str = ""  # prefix below which it needs a form of the data of its own


READERS = {
    reader.name: reader
    for reader in (
        Reader("penstock", "Penstock", "penstock", "read_penstock.py", 64),
        Reader("curl8", "curl, 8 connections", "plain", "read_curl.py", 8, False),
        Reader("curl32", "curl, 32 connections", "plain", "read_curl.py", 32),
        Reader("obstore", "obstore, 32 (small: 64)", "obstore", "read_obstore.py", 32),
        Reader("boto3", "boto3, 16 threads", "boto3", "read_boto3.py", 16),
        Reader("s3torch", "S3 connector for PyTorch", "s3torch", "read_s3torch.py"),
        Reader("mosaicml", "MosaicML Streaming", "mosaicml", "read_mosaicml.py", 0, False, "mds"),
        Reader("webdataset", "WebDataset, pipe:curl", "webdataset", "read_webdataset.py", 0, False),
        Reader("litdata", "LitData", "litdata", "read_litdata.py"),
        Reader("awscli", "aws s3 cp", "awscli", "read_awscli.py", 0),
        Reader("s3fs", "s3fs-fuse", "s3fs", "read_s3fs.py", 0, False),
    )
}
