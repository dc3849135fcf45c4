"""MosaicML Streaming: its own MDS shards of the same bytes, 64 MB each, into a local cache."""

import pathlib

import s3_harness  # finds torch_data
import torch_data

torch_data.import_torchvision_transforms()  # streaming imports torchvision

from streaming import MDSWriter, StreamingDataset  # noqa: E402


def prepare(spec):
    """Writes the objects' bytes as MDS samples of some 110 KB below the bucket."""
    target = pathlib.Path(spec["root"]) / spec["bucket"] / spec["prepared"]
    if (target / "index.json").exists():
        return
    piece = 110_000
    with MDSWriter(out=str(target), columns={"data": "bytes"}, size_limit=64 << 20) as writer:
        for key, _ in spec["objects"]:
            data = (pathlib.Path(spec["root"]) / spec["bucket"] / key).read_bytes()
            for start in range(0, len(data), piece):
                writer.write({"data": data[start : start + piece]})


def read(spec, first):
    data = StreamingDataset(
        remote=f"s3://{spec['bucket']}/{spec['prepared']}",
        local=spec["scratch"] + "/mds",
        shuffle=False,
        batch_size=1,
        predownload=2000,
    )
    total = 0
    for sample in data:
        total += len(sample["data"])
        first()
    return total


if __name__ == "__main__":
    s3_harness.main(read, prepare)
