"""The S3 connector for PyTorch: objects one after the other, each by its parallel reader."""

import s3_harness
from s3torchconnector import S3ClientConfig, S3IterableDataset


def read(spec, first):
    config = S3ClientConfig(unsigned=True, force_path_style=True, part_size=spec["part_bytes"])
    uris = [f"s3://{spec['bucket']}/{key}" for key, _ in spec["objects"]]
    objects = S3IterableDataset.from_objects(
        uris, region="us-east-1", endpoint=spec["endpoint"], s3client_config=config
    )
    total = 0
    for item in objects:
        while data := item.read(1 << 20):
            total += len(data)
            first()
    return total


if __name__ == "__main__":
    s3_harness.main(read)
