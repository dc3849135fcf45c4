"""A float model sees the same picture through Penstock as through torchvision: same predictions."""

from __future__ import annotations

import os
import pathlib

import penstock
import pytest
from penstock import transforms as T

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")
PIL = pytest.importorskip("PIL")
from PIL import Image  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = pathlib.Path(os.environ.get("PENSTOCK_SHARED_DATA", ROOT.parent / "shared" / "data"))
CLASSES = 100
PICTURES_MAX = 240
TIE = 1e-6

pytestmark = pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13, reason="Pillow before 13 resizes columns first"
)


@pytest.fixture(scope="module")
def model():
    """A convolutional network with weights that are random, and always the same."""
    generator = torch.Generator().manual_seed(7)
    layers, channels = [], 3
    for width in (16, 32, 64):
        layers += [torch.nn.Conv2d(channels, width, 3, stride=2, padding=1), torch.nn.ReLU()]
        channels = width
    layers += [torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten()]
    network = torch.nn.Sequential(*layers, torch.nn.Linear(channels * 16, CLASSES)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            spread = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
            parameter.normal_(0, spread, generator=generator)
    return network


@pytest.fixture(scope="module")
def evaluate(torchvision):
    """torchvision's transform of its classification weights, on a PIL image."""
    from torchvision.transforms import v2

    return v2.Compose(
        [
            v2.Resize(256),
            v2.CenterCrop(224),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(penstock.IMAGENET_MEAN, penstock.IMAGENET_STD),
        ]
    )


def through_both(root, evaluate):
    """The pictures' tensors through Pillow and torchvision, and through Penstock."""
    loader = penstock.DataLoader(
        root,
        16,
        transforms=[
            T.Resize(256),
            T.CenterCrop(224),
            T.Normalize(penstock.IMAGENET_MEAN, penstock.IMAGENET_STD),
        ],
    )
    theirs, ours = [], []
    with loader:
        for batch in loader:
            for image, number in zip(batch[0], batch.sample_ids.tolist(), strict=True):
                with Image.open(loader.dataset.path(number)) as picture:
                    theirs.append(evaluate(picture.convert("RGB")))
                ours.append(image.clone())
            if len(ours) >= PICTURES_MAX:
                break
    return torch.stack(theirs), torch.stack(ours)


@torch.no_grad()
def logits(model, images):
    return torch.cat([model(part) for part in images.split(32)])


def check(root, model, evaluate, predictions_min):
    theirs, ours = through_both(root, evaluate)
    expected, found = logits(model, theirs), logits(model, ours)
    # As a bias of the last layer, so that not one class wins everywhere.
    bias = expected.mean(dim=0)
    expected, found = expected - bias, found - bias
    best = expected.topk(2).values
    is_tie = best[:, 0] - best[:, 1] < TIE
    differs = expected.argmax(dim=1) != found.argmax(dim=1)
    assert not (differs & ~is_tie).any()
    assert len(expected.argmax(dim=1).unique()) >= predictions_min  # it does tell them apart
    assert (theirs - ours).abs().max() == 0


def test_made_pictures(folder, model, evaluate):
    check(folder, model, evaluate, 5)


def test_shared_photographs(tmp_path, model, evaluate):
    root = SHARED / "imagenet-sample"
    if not root.is_dir():
        pytest.skip("no shared data")
    (tmp_path / "one").symlink_to(root, target_is_directory=True)
    check(tmp_path, model, evaluate, 20)
