"""Whole recipes against torchvision's on PIL images, to the bit.

decodefile says which boxes and flips it drew; the same steps are replayed with
torchvision.transforms.v2.functional (or, where torchvision cannot be imported, with the Pillow and
NumPy calls that it makes), and the tensors must be equal.
"""

import os
import pathlib
import subprocess

import pytest

np = pytest.importorskip("numpy")
PIL = pytest.importorskip("PIL")
Image = pytest.importorskip("PIL.Image")

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = pathlib.Path(os.environ.get("PENSTOCK_BUILD", ROOT / "build/release")) / "tests/decodefile"
DATA = pathlib.Path(os.environ.get("PENSTOCK_SHARED_DATA", ROOT.parent / "shared/data"))
SHARED_SAMPLES = 24

pytestmark = [
    pytest.mark.skipif(not TOOL.exists(), reason=f"{TOOL} is not built"),
    pytest.mark.skipif(
        int(PIL.__version__.split(".")[0]) < 13, reason="Pillow before 13 resizes columns first"
    ),
]

try:
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # built for CUDA beside a CPU torch: its own library cannot declare these
        torch.library.define("torchvision::nms", "(Tensor a, Tensor b, float c) -> Tensor")
        torch.library.define("torchvision::qnms", "(Tensor a, Tensor b, float c) -> Tensor")
    from torchvision.transforms import v2 as T
    from torchvision.transforms.v2 import functional as F
except Exception:  # whatever is wrong with it, there is the other way
    torch = T = F = None

FILTERS = {"nearest": 0, "bilinear": 2, "bicubic": 3}


def crop(image, left, top, width, height):
    if F is not None:
        return F.crop(image, top, left, height, width)
    return image.crop((left, top, left + width, top + height))


def resize(image, width, height, name):
    if F is not None:
        return F.resize(image, [height, width], interpolation=T.InterpolationMode(name))
    return image.resize((width, height), FILTERS[name])


def pad(image, left, top, right, bottom, mode, fill):
    if F is not None:
        return F.pad(image, [left, top, right, bottom], fill=fill, padding_mode=mode)
    pixels, sides = np.asarray(image), ((top, bottom), (left, right), (0, 0))
    if mode != "constant":
        return Image.fromarray(np.pad(pixels, sides, mode))
    padded = Image.new("RGB", (image.width + left + right, image.height + top + bottom), fill)
    padded.paste(image, (left, top))
    return padded


def flip(image, axis):
    return image.transpose(Image.FLIP_LEFT_RIGHT if axis == "x" else Image.FLIP_TOP_BOTTOM)


def replay(path, steps):
    image = Image.open(path).convert("RGB")
    for step in steps.splitlines():
        kind, *words = step.split()
        numbers = [int(word) for word in words if word.isdigit()]
        if kind == "image":
            assert (image.width, image.height) == tuple(numbers)
        elif kind == "crop":
            image = crop(image, *numbers)
        elif kind == "pad":
            image = pad(image, *numbers[:4], words[4], tuple(numbers[4:]))
        elif kind == "flip":
            image = flip(image, words[0])
        else:
            image = resize(image, *numbers, words[2])
    return np.asarray(image)


def run_tool(recipe, requests, layout="nhwc", level="avx512"):
    """[(path, key), ...] -> [(shape, steps, tensor bytes) or the error's text, ...]"""
    lines = "".join(f"1234 {key // 1000} {key} {path}\n" for path, key in requests)
    done = subprocess.run(
        [TOOL, level, layout, *recipe], input=lines.encode(), capture_output=True, check=False
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    out, at, answers = done.stdout, 0, []
    for _ in requests:
        end = out.index(b"\n", at)
        words = out[at:end].decode().split(" ")
        at = end + 1
        if words[0] != "ok":
            answers.append(" ".join(words))
            continue
        height, width, text_bytes, tensor_bytes = map(int, words[1:])
        steps = out[at : at + text_bytes].decode()
        at += text_bytes
        answers.append(((height, width), steps, out[at : at + tensor_bytes]))
        at += tensor_bytes
    assert at == len(out)
    return answers


SIZES = [
    (1, 1),
    (1, 9),
    (13, 1),
    (2, 3),
    (31, 17),
    (64, 64),
    (61, 127),
    (150, 90),
    (333, 500),
    (500, 375),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Files of many sizes: noise, which shows every wrong weight, and a smooth picture."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(5)
    paths = []
    for number, (width, height) in enumerate(SIZES):
        noise = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        y, x = np.mgrid[:height, :width]
        smooth = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], -1).astype(np.uint8)
        for name, pixels in ("noise", noise), ("smooth", smooth):
            path = folder / f"{name}{number}.jpg"
            Image.fromarray(pixels).save(path, quality=92, subsampling=number % 3)
            paths.append(path)
        path = folder / f"noise{number}.png"
        Image.fromarray(noise).save(path)
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def shared_images():
    paths = sorted(
        p for p in DATA.glob("imagenet-sample/**/*") if p.suffix.lower() in {".jpg", ".jpeg"}
    )
    if not paths:
        pytest.skip("no shared data")
    return paths[:: max(1, len(paths) // SHARED_SAMPLES)]


FLIPS = ["hflip,p=0.5", "vflip,p=0.5"]
RECIPES = {
    "train": ["rrc,size=224:224", "hflip"],
    "train-bicubic-flips": ["rrc,size=97:131,filter=bicubic", *FLIPS],
    "train-nearest": ["rrc,size=56:40,filter=nearest", *FLIPS],
    "train-wide": ["rrc,size=64:64,scale=0.3:1,ratio=0.2:8"],
    "flips-before": [*FLIPS, "rrc,size=64:64"],
    "flips-before-bicubic": [*FLIPS, "rrc,size=200:33,filter=bicubic", *FLIPS],
    "eval": ["resize,shorter=72", "center,size=64:64"],
    "eval-224": ["resize,shorter=256", "center,size=224:224"],
    "eval-bicubic": ["resize,shorter=73,filter=bicubic", "center,size=64:49", *FLIPS],
    "eval-nearest": ["resize,shorter=73,filter=nearest", "center,size=64:49", *FLIPS],
    "eval-flips-between": ["resize,shorter=80", *FLIPS, "center,size=65:60"],
    "eval-flips-before": [*FLIPS, "resize,shorter=80", "center,size=65:60"],
    "eval-max": ["resize,shorter=80,max=100", "center,size=65:60"],
    "eval-longer": ["resize,max=90", "center,size=80:80"],
    "fixed": ["resize,size=48:100", "hflip"],
    "fixed-bicubic": ["resize,size=100:48,filter=bicubic", "vflip"],
    "center-only": ["center,size=60:70", "hflip"],
    "crop-if-needed": ["crop,size=60:70,if_needed=1,fill=7:8:9", *FLIPS],
    "crop-padded": ["crop,size=40:40,pad=20:30:39:40,if_needed=1,mode=reflect"],
    "crop-fill": ["resize,size=32:32", "crop,size=32:32,pad=4:4:4:4,fill=1:2:3", "hflip"],
    "crop-far": ["crop,size=5:5,pad=300:300:300:300,fill=9:8:7"],
    "crop-symmetric": ["crop,size=64:64,pad=8:9:10:11,if_needed=1,mode=symmetric", "vflip"],
    "crop-of-resize": ["resize,shorter=70", "crop,size=64:64", "hflip"],
    "pad-constant": ["resize,size=20:30", "pad,pad=1:2:3:4,fill=200:100:50", "vflip"],
    "pad-edge": ["resize,size=20:30", "pad,pad=10:20:30:40,mode=edge", "hflip"],
    "pad-reflect": ["resize,size=5:7", "pad,pad=40:2:3:33,mode=reflect"],
    "pad-symmetric": ["resize,size=5:7", "pad,pad=40:2:3:33,mode=symmetric"],
    "pad-single": ["resize,size=1:1", "pad,pad=2:3:4:5,mode=reflect"],
    "pad-twice": [
        "resize,size=20:20",
        "pad,pad=5:0:5:9,fill=1:1:1",
        "hflip,p=1",
        "pad,pad=0:6:3:0,fill=9:9:9",
        "crop,size=28:24",
    ],
    "pad-then-resize": ["pad,pad=9:0:5:3,fill=250:0:99", "hflip", "resize,size=40:50"],
    "reflect-then-resize": ["pad,pad=9:0:5:3,mode=reflect", "rrc,size=40:50,filter=bicubic"],
    "crop-then-resize": ["crop,size=90:80,if_needed=1,mode=edge", "vflip", "resize,size=40:50"],
    "resize-twice": ["resize,shorter=128", "center,size=100:100", "hflip", "rrc,size=32:48"],
    "resize-thrice": [
        "resize,shorter=50",
        "vflip",
        "resize,size=90:60,filter=bicubic",
        "hflip",
        "rrc,size=33:31",
        "pad,pad=1:1:1:1",
        "vflip",
    ],
}


def check(recipe, paths, layout="nhwc", level="avx512", keys=3):
    requests = [(path, 1000 * n + 7 * i) for i, path in enumerate(paths) for n in range(keys)]
    steps_seen = set()
    for (path, _), answer in zip(requests, run_tool(recipe, requests, layout, level), strict=True):
        assert not isinstance(answer, str), (path, answer)
        (height, width), steps, tensor = answer
        shape = (height, width, 3) if layout == "nhwc" else (3, height, width)
        got = np.frombuffer(tensor, np.uint8).reshape(shape)
        want = replay(path, steps)
        if layout == "nchw":
            want = want.transpose(2, 0, 1)
        assert got.shape == want.shape, (path, steps)
        if not np.array_equal(got, want):
            off = np.abs(got.astype(int) - want)
            pytest.fail(
                f"{path}\n{steps}\n{(off > 0).sum()} of {off.size} off by up to {off.max()}"
            )
        steps_seen.add(steps)
    return steps_seen


@pytest.mark.parametrize("name", RECIPES)
def test_generated(name, images):
    check(RECIPES[name], images)


@pytest.mark.parametrize(
    "name", ["train", "train-bicubic-flips", "flips-before", "eval", "pad-then-resize"]
)
def test_nchw_and_scalar(name, images):
    check(RECIPES[name], images[::2], layout="nchw", level="scalar", keys=2)


@pytest.mark.parametrize(
    "name", ["train", "train-bicubic-flips", "eval-224", "flips-before", "crop-if-needed"]
)
def test_shared(name, shared_images):
    check(RECIPES[name], shared_images, layout="nchw", keys=2)


def test_draws_differ(images):
    assert len(check(RECIPES["train"], images[-3:], keys=30)) > 60


# ---- What has no dice: torchvision's classes themselves ------------------------------------------

DETERMINISTIC = {
    "eval": lambda: [T.Resize(72), T.CenterCrop(64)],
    "eval-224": lambda: [T.Resize(256), T.CenterCrop(224)],
    "eval-max": lambda: [T.Resize(80, max_size=100), T.CenterCrop((65, 60))],
    "eval-longer": lambda: [T.Resize(None, max_size=90), T.CenterCrop(80)],
    "center-only-still": lambda: [T.CenterCrop((60, 70))],
    "pad-reflect": lambda: [T.Resize((5, 7)), T.Pad([40, 2, 3, 33], padding_mode="reflect")],
    "pad-still": lambda: [T.Resize((20, 30)), T.Pad([1, 2, 3, 4], fill=(200, 100, 50))],
    "odd-centers": lambda: [T.Resize((33, 44)), T.CenterCrop((10, 45)), T.CenterCrop((7, 8))],
}
STILL = {
    "center-only-still": ["center,size=60:70"],
    "pad-still": ["resize,size=20:30", "pad,pad=1:2:3:4,fill=200:100:50"],
    "odd-centers": ["resize,size=33:44", "center,size=10:45", "center,size=7:8"],
}


@pytest.mark.skipif(F is None, reason="torchvision cannot be imported")
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_classes(name, images):
    theirs = T.Compose(DETERMINISTIC[name]())
    recipe = STILL.get(name) or RECIPES[name]
    for path, answer in zip(images, run_tool(recipe, [(path, 0) for path in images]), strict=True):
        image = Image.open(path).convert("RGB")
        try:
            want = np.asarray(theirs(image))
        except ValueError:  # a side of 0 px
            assert isinstance(answer, str) and answer.startswith("invalid"), (path, answer)
            continue
        (height, width), _, tensor = answer
        got = np.frombuffer(tensor, np.uint8).reshape(height, width, 3)
        assert np.array_equal(got, want), (path, image.size)


@pytest.mark.skipif(F is None, reason="torchvision cannot be imported")
def test_random_crop_pads_as_torchvision(images):
    theirs = T.RandomCrop((60, 70), padding=[1, 2, 3, 4], pad_if_needed=True)
    recipe = ["crop,size=60:70,pad=1:2:3:4,if_needed=1"]
    for path, answer in zip(images, run_tool(recipe, [(path, 0) for path in images]), strict=True):
        params = theirs.make_params([Image.open(path)])
        padding = [int(word) for word in answer[1].split("pad ")[1].split()[:4]]
        assert padding == params["padding"]


def test_refusals(images):
    small = images[0]
    (answer,) = run_tool(["crop,size=60:70"], [(small, 0)])
    assert answer.startswith("invalid transform 0 (RandomCrop((60, 70))) needs pad_if_needed")
    done = subprocess.run(
        [TOOL, "scalar", "nchw", "resize,shorter=256"], capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"transform 0 (Resize(256))" in done.stdout and b"CenterCrop(256)" in done.stdout


# ---- Types --------------------------------------------------------------------------------------

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
NORMALIZE = "normalize,mean=0.485:0.456:0.406,std=0.229:0.224:0.225"
TYPES = {
    "f32": (["dtype,to=f32"], "float32", False, False),
    "f32-scale": (["dtype,to=f32,scale=1"], "float32", True, False),
    "f16-scale": (["dtype,to=f16,scale=1"], "float16", True, False),
    "bf16-scale": (["dtype,to=bf16,scale=1"], "bfloat16", True, False),
    "normalize": ([NORMALIZE], "float32", True, True),
    "scale-normalize": (["dtype,to=f32,scale=1", NORMALIZE], "float32", True, True),
    "normalize-f16": ([NORMALIZE, "dtype,to=f16"], "float16", True, True),
    "normalize-bf16": ([NORMALIZE, "dtype,to=bf16"], "bfloat16", True, True),
    "plain-normalize": (["dtype,to=f32", NORMALIZE], "float32", False, True),
}


@pytest.mark.skipif(F is None, reason="torchvision cannot be imported")
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("name", TYPES)
def test_types(name, layout, images):
    tail, dtype, scale, normalize = TYPES[name]
    recipe = ["rrc,size=50:45", *tail, "hflip", "crop,size=49:45"]
    requests = [(path, n) for n, path in enumerate(images)]
    for (path, _), ((height, width), steps, tensor) in zip(
        requests, run_tool(recipe, requests, layout), strict=True
    ):
        pixels = torch.from_numpy(replay(path, steps).copy()).permute(2, 0, 1)
        want = F.to_dtype(pixels, torch.float32, scale=scale)
        if normalize:
            want = F.normalize(want, MEAN, STD)
        want = want.to(getattr(torch, dtype))
        got = torch.frombuffer(bytearray(tensor), dtype=getattr(torch, dtype))
        if layout == "nhwc":
            got = got.reshape(height, width, 3).permute(2, 0, 1)
        else:
            got = got.reshape(3, height, width)
        assert torch.equal(got, want), (path, steps)
