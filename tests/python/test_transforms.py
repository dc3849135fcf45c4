"""Transforms: torchvision's names and arguments, and their translation for the daemon."""

from __future__ import annotations

import inspect

import penstock
import pytest
from penstock import transforms as T
from penstock._recipe import recipe_from

CROP = {"op": "CenterCrop", "size": [8, 8]}


def test_signatures_are_those_of_torchvision():
    expected = {
        T.RandomResizedCrop: ["size", "scale", "ratio", "interpolation", "antialias"],
        T.Resize: ["size", "interpolation", "max_size", "antialias"],
        T.CenterCrop: ["size"],
        T.RandomCrop: ["size", "padding", "pad_if_needed", "fill", "padding_mode"],
        T.Pad: ["padding", "fill", "padding_mode"],
        T.RandomHorizontalFlip: ["p"],
        T.RandomVerticalFlip: ["p"],
        T.ToDtype: ["dtype", "scale"],
        T.Normalize: ["mean", "std", "inplace"],
        T.ConvertImageDtype: ["dtype"],
        T.Compose: ["transforms"],
    }
    for kind, names in expected.items():
        assert list(inspect.signature(kind).parameters) == names, kind


def test_shown_with_their_arguments():
    assert repr(T.CenterCrop(224)) == "CenterCrop(size=(224, 224))"
    assert repr(T.RandomHorizontalFlip(0.1)) == "RandomHorizontalFlip(p=0.1)"
    assert "Resize(size=[256]" in repr(T.Compose([T.Resize(256), T.CenterCrop(8)]))
    assert repr(T.ToDtype("float32", scale=True)) == "ToDtype(dtype=float32, scale=True)"


def test_training_recipe():
    recipe = recipe_from(
        [
            T.RandomResizedCrop(224, interpolation=T.InterpolationMode.BICUBIC),
            T.RandomHorizontalFlip(),
            T.ToImage(),
            T.ToDtype("float32", scale=True),
            T.Normalize(penstock.IMAGENET_MEAN, penstock.IMAGENET_STD),
        ]
    )
    assert recipe == [
        {
            "op": "RandomResizedCrop",
            "size": [224, 224],
            "scale": [0.08, 1.0],
            "ratio": [0.75, 4 / 3],
            "interpolation": "bicubic",
        },
        {"op": "RandomHorizontalFlip", "p": 0.5},
        {"op": "ToDtype", "dtype": "float32", "scale": True},
        {"op": "Normalize", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    ]


def test_every_way_to_say_float():
    scaled = [{"op": "ToDtype", "dtype": "float32", "scale": True}]
    for transform in (T.ToTensor(), T.ConvertImageDtype(), T.ToDtype("float32", True)):
        assert recipe_from([T.CenterCrop(8), transform])[1:] == scaled
    assert recipe_from([T.CenterCrop(8), T.PILToTensor(), T.ToPureTensor()]) == [CROP]
    assert recipe_from(T.Compose([T.Compose([T.CenterCrop(8)])])) == [CROP]
    assert recipe_from({"image": [T.CenterCrop(8)]}) == [CROP]


def test_padding_in_all_forms():
    for padding, edges in ((2, [2, 2, 2, 2]), ((1, 2), [1, 2, 1, 2]), ([1, 2, 3, 4], [1, 2, 3, 4])):
        step = recipe_from([T.RandomCrop(8, padding=padding, fill=(1, 2, 3))])[0]
        assert step["padding"] == edges
        assert step["fill"] == [1, 2, 3]
    assert recipe_from([T.CenterCrop(8), T.Pad(1, 5, "edge")])[1] == {
        "op": "Pad",
        "padding": [1, 1, 1, 1],
        "fill": [5, 5, 5],
        "padding_mode": "edge",
    }


@pytest.mark.parametrize(
    "make",
    [
        lambda: T.CenterCrop(0),
        lambda: T.CenterCrop("8"),
        lambda: T.CenterCrop((1, 2, 3)),
        lambda: T.RandomResizedCrop(8, scale=(0.9, 0.1)),
        lambda: T.RandomResizedCrop(8, scale=0.5),
        lambda: T.RandomResizedCrop(8, interpolation="cubic"),
        lambda: T.Resize(None),
        lambda: T.Resize((1, 2, 3)),
        lambda: T.Resize(8, max_size=8),
        lambda: T.RandomCrop(8, padding=-1),
        lambda: T.Pad("1"),
        lambda: T.Pad(1, padding_mode="mirror"),
        lambda: T.Pad(1, fill=300),
        lambda: T.RandomHorizontalFlip(1.5),
        lambda: T.Normalize([0, 0], [1, 1]),
        lambda: T.Normalize([0, 0, 0], [1, 0, 1]),
        lambda: T.Compose([]),
        lambda: T.CenterCrop(8)("an image"),
    ],
)
def test_wrong_arguments_are_refused(make):
    with pytest.raises(penstock.UsageError):
        make()


def test_images_must_end_in_one_shape():
    for transforms in (None, [], [T.Resize(256)], [T.RandomHorizontalFlip()]):
        with pytest.raises(penstock.UsageError, match="CenterCrop"):
            recipe_from(transforms)
    assert recipe_from([T.Resize((8, 9))])
    assert recipe_from([T.CenterCrop(8), T.Resize(4)])


def test_geometry_on_floats_is_refused():
    with pytest.raises(penstock.UsageError, match="Resize after ToDtype"):
        recipe_from([T.ToTensor(), T.Resize((8, 8))])
    assert recipe_from([T.ToTensor(), T.CenterCrop(8), T.RandomVerticalFlip()])


def test_unknown_transforms_are_named():
    class Sharpen:
        pass

    with pytest.raises(penstock.UnsupportedTransformError, match="Sharpen"):
        recipe_from([T.CenterCrop(8), Sharpen()])
    with pytest.raises(penstock.UnsupportedTransformError, match="lanczos"):
        recipe_from([T.Resize((8, 8), interpolation="lanczos")])
    with pytest.raises(penstock.UnsupportedTransformError, match="float64"):
        recipe_from([T.CenterCrop(8), T.ToDtype("float64")])


def test_torchvision_objects_are_translated(torchvision):
    from torchvision import transforms as v1
    from torchvision.transforms import v2

    ours = [
        T.RandomResizedCrop(224),
        T.RandomHorizontalFlip(),
        T.ToTensor(),
        T.Normalize([0.5] * 3, [0.2] * 3),
    ]
    for theirs in (v1, v2):
        names = [
            theirs.RandomResizedCrop(224),
            theirs.RandomHorizontalFlip(),
            theirs.ToTensor(),
            theirs.Normalize([0.5] * 3, [0.2] * 3),
        ]
        assert recipe_from(theirs.Compose(names)) == recipe_from(ours)
        crop = theirs.RandomCrop(8, padding=(1, 2, 3, 4))
        assert recipe_from([crop]) == recipe_from([T.RandomCrop(8, padding=(1, 2, 3, 4))])
        pad = [theirs.CenterCrop(8), theirs.Pad((1, 2))]
        assert recipe_from(pad) == recipe_from([T.CenterCrop(8), T.Pad((1, 2))])
        evaluate = [theirs.Resize(256, theirs.InterpolationMode.BICUBIC), theirs.CenterCrop(224)]
        assert recipe_from(evaluate) == recipe_from(
            [T.Resize(256, T.InterpolationMode.BICUBIC), T.CenterCrop(224)]
        )
        with pytest.raises(penstock.UnsupportedTransformError, match="ColorJitter"):
            recipe_from([theirs.ColorJitter(0.1), theirs.CenterCrop(8)])


def test_shown_as_torchvision_shows_them(torchvision):
    from torchvision.transforms import v2

    for name, arguments in (
        ("RandomResizedCrop", (224,)),
        ("Resize", (256,)),
        ("CenterCrop", (224,)),
        ("RandomHorizontalFlip", ()),
        ("Normalize", ([0.5], [0.5])),
        ("Pad", (3,)),
    ):
        assert repr(getattr(T, name)(*arguments)) == repr(getattr(v2, name)(*arguments))
