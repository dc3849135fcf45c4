"""WebDataset: tar shards through its pipeline, Pillow and torchvision's transforms."""

import harness
import torch_data
import webdataset

transforms = torch_data.import_torchvision_transforms()


def open_stream(spec):
    transform = torch_data.make_transform(spec)
    dataset = (
        webdataset.WebDataset(spec["shards"], resampled=True, shardshuffle=False)
        .shuffle(500)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(lambda image: transform(image.convert("RGB")), lambda label: label)
        .batched(spec["batch_size"], partial=False)
    )
    loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=spec["workers"])
    return harness.Stream((images for images, _ in loader), burst=spec["workers"])


if __name__ == "__main__":
    harness.main(open_stream, ["webdataset", "torch", "torchvision", "pillow"])
