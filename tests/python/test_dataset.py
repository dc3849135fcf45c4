"""Dataset: order, labels, parts, single samples, tars, torchvision's objects."""

from __future__ import annotations

import io
import pickle
import tarfile

import penstock
import pytest
from conftest import CLASSES, PER_CLASS, make_picture

np = pytest.importorskip("numpy")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two tars of 7 and 5 samples with a picture, a label and a caption each."""
    root = tmp_path_factory.mktemp("shards")
    number = 0
    for shard, count in enumerate((7, 5)):
        with tarfile.open(root / f"part-{shard}.tar", "w") as tar:
            for _ in range(count):
                picture = io.BytesIO()
                make_picture(number, 40, 32).save(picture, "JPEG")
                for extension, data in (
                    ("jpg", picture.getvalue()),
                    ("cls", str(number % 3).encode()),
                    ("txt", f"caption {number} \u00e4".encode()),
                ):
                    info = tarfile.TarInfo(f"{number:04}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                number += 1
    return root


def test_folder_as_imagefolder_lists_it(folder):
    dataset = penstock.Dataset(folder)
    count = len(CLASSES) * PER_CLASS
    assert len(dataset) == count
    assert dataset.classes == list(CLASSES)
    assert dataset.class_to_idx == {"ant": 0, "bee": 1, "cat": 2}
    assert dataset.targets == [0] * PER_CLASS + [1] * PER_CLASS + [2] * PER_CLASS
    assert dataset.path(0) == str(folder / "ant" / "000.jpg")
    assert dataset.path(count - 1) == str(folder / "cat" / f"{PER_CLASS - 1:03}.jpg")
    assert dataset.sample_ids.tolist() == list(range(count))
    assert "60 samples" in repr(dataset)


def test_item_is_picture_and_label(folder):
    dataset = penstock.Dataset(str(folder))
    picture, label = dataset[PER_CLASS]
    assert label == 1
    assert picture.mode == "RGB"
    with Image.open(folder / "bee" / "000.jpg") as expected:
        assert np.array_equal(np.asarray(picture), np.asarray(expected.convert("RGB")))
    assert np.array_equal(np.asarray(dataset[-1][0]), np.asarray(dataset[len(dataset) - 1][0]))
    with pytest.raises(IndexError):
        dataset[len(dataset)]
    with pytest.raises(TypeError):
        dataset[0:2]


def test_split_is_a_partition_and_the_same_for_a_seed(folder):
    full = penstock.Dataset(folder)
    train, val = full.split([0.75, 0.25], seed=3)
    assert (len(train), len(val)) == (45, 15)
    ids = np.concatenate([train.sample_ids, val.sample_ids])
    assert sorted(ids.tolist()) == list(range(60))
    again = penstock.Dataset(folder).split([0.75, 0.25], seed=3)
    assert again[0].sample_ids.tolist() == train.sample_ids.tolist()
    assert full.split([0.75, 0.25], seed=4)[0].sample_ids.tolist() != train.sample_ids.tolist()
    assert [len(part) for part in full.split([1 / 7] * 7)] == [9, 9, 9, 9, 8, 8, 8]
    assert [len(part) for part in full.split([40, 20])] == [40, 20]
    assert val.targets == [full.targets[i] for i in val.sample_ids]
    with pytest.raises(penstock.UsageError, match="add up"):
        full.split([0.5, 0.4])


def test_subset_of_a_subset(folder):
    full = penstock.Dataset(folder)
    part = full.subset([50, 3, 20])
    assert part.targets == [2, 0, 1]
    assert part.subset([2, 0]).sample_ids.tolist() == [20, 50]
    mask = np.zeros(60, dtype=bool)
    mask[[4, 9]] = True
    assert full.subset(mask).sample_ids.tolist() == [4, 9]
    assert part[0][1] == 2
    assert len(full.subset([])) == 0
    for wrong in ([60], [-1], [[1]], [0.5], mask[:5]):
        with pytest.raises(penstock.UsageError):
            full.subset(wrong)


def test_torch_subsets_of_ours(folder):
    torch = pytest.importorskip("torch")
    parts = torch.utils.data.random_split(penstock.Dataset(folder), [50, 10])
    assert penstock.Dataset(parts[1]).sample_ids.tolist() == list(parts[1].indices)


def test_size_is_checked(folder):
    assert len(penstock.Dataset(folder, size=60)) == 60
    with pytest.raises(penstock.DatasetError, match="size=61"):
        penstock.Dataset(folder, size=61).open()


def test_pickles_without_its_index(folder):
    part = penstock.Dataset(folder).subset([7, 8])
    data = pickle.dumps(part)
    assert len(data) < 4000
    assert pickle.loads(data).sample_ids.tolist() == [7, 8]


def test_what_is_no_data_set(tmp_path, folder):
    with pytest.raises(penstock.DatasetNotFoundError, match="nowhere"):
        penstock.Dataset(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        penstock.Dataset(tmp_path / "nowhere")
    with pytest.raises(penstock.DatasetError, match="local files"):
        penstock.Dataset("gs://bucket/x.tar")
    for wrong in (3, None, [], [3]):
        with pytest.raises(penstock.UsageError):
            penstock.Dataset(wrong)
    (tmp_path / "empty").mkdir()
    with pytest.raises(penstock.DatasetError):
        len(penstock.Dataset(tmp_path / "empty"))
    with pytest.raises(penstock.UsageError, match="no sample 60"):
        penstock.Dataset(folder).path(60)


def test_tars_with_text(shards):
    dataset = penstock.Dataset(
        str(shards / "part-{0..1}.tar"), fields={"image": "png;jpg", "label": "cls", "text": "txt"}
    )
    assert len(dataset) == 12
    assert dataset.fields == ["image", "label", "text"]
    assert dataset.targets == [number % 3 for number in range(12)]
    second = 1 << 32
    assert dataset.sample_ids.tolist() == [*range(7), *(second + place for place in range(5))]
    picture, label, text = dataset[8]
    assert (picture.size, label, text) == ((40, 32), 2, "caption 8 \u00e4")
    assert dataset.path(second + 1).startswith(str(shards / "part-1.tar"))
    listed = penstock.Dataset([shards / "part-1.tar", shards / "part-0.tar"])
    assert listed.targets[:2] == [7 % 3, 8 % 3]
    globbed = penstock.Dataset(str(shards / "part-*.tar"), fields=["jpg", "cls", "txt"])
    assert globbed[0][2] == "caption 0 \u00e4"


def test_batches_of_tars_with_text(shards):
    from penstock import transforms as T

    dataset = penstock.Dataset(str(shards / "part-{0..1}.tar"), fields=["image", "label", "txt"])
    loader = penstock.DataLoader(dataset, 5, transforms=[T.Resize((8, 8))])
    texts, labels, ids = [], [], []
    for batch in loader:
        assert batch["image"].shape[1:] == (3, 8, 8)
        texts += batch["txt"]
        labels += batch["label"].tolist()
        ids += batch.sample_ids.tolist()
    assert texts == [f"caption {number} \u00e4" for number in range(12)]
    assert labels == dataset.targets
    assert ids == dataset.sample_ids.tolist()
    assert loader.sample(ids[8])["txt"] == texts[8]


@pytest.mark.parametrize(
    "fields",
    [
        ["label"],
        ["image", "jpg"],
        {"image": 3},
        {"image": ("jpg", "picture")},
    ],
)
def test_wrong_fields(folder, fields):
    with pytest.raises(penstock.UsageError):
        penstock.Dataset(folder, fields=fields)


def test_imagefolder_objects(folder, torchvision):
    import torch
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    theirs = ImageFolder(str(folder), transform=v2.Compose([v2.Resize((16, 16)), v2.ToImage()]))
    dataset = penstock.Dataset(theirs)
    assert dataset.classes == theirs.classes
    assert dataset.class_to_idx == theirs.class_to_idx
    assert dataset.targets == theirs.targets
    assert [dataset.path(i) for i in range(60)] == [path for path, _ in theirs.samples]
    part = torch.utils.data.Subset(torch.utils.data.Subset(theirs, range(10, 60)), [5, 0])
    assert penstock.Dataset(part).sample_ids.tolist() == [15, 10]
    batch = next(iter(penstock.DataLoader(part, batch_size=2)))
    assert torch.equal(batch[0], torch.stack([part[0][0], part[1][0]]))
    assert batch[1].tolist() == [0, 0]


def test_imagefolder_objects_that_cannot_be_served(folder, torchvision):
    import torch
    from torchvision.datasets import FakeData, ImageFolder

    with pytest.raises(penstock.UsageError, match="target_transform"):
        penstock.Dataset(ImageFolder(str(folder), target_transform=lambda label: 0))
    with pytest.raises(penstock.UsageError, match="loader"):
        penstock.Dataset(ImageFolder(str(folder), loader=lambda path: None))
    with pytest.raises(penstock.UsageError, match="FakeData"):
        penstock.Dataset(FakeData(3))
    with pytest.raises(penstock.UsageError, match="TensorDataset"):
        penstock.Dataset(torch.utils.data.TensorDataset(torch.zeros(3)))
    relabelled = ImageFolder(str(folder))
    relabelled.samples[0] = (relabelled.samples[0][0], 2)
    with pytest.raises(penstock.DatasetError, match="label 2"):
        len(penstock.Dataset(relabelled))
    fewer = ImageFolder(str(folder), is_valid_file=lambda path: path.endswith("5.jpg"))
    assert penstock.Dataset(fewer).sample_ids.tolist() == [5, 15, 25, 35, 45, 55]
