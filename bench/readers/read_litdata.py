"""LitData: StreamingRawDataset over the objects as they are, whole objects."""

import s3_harness
from litdata import StreamingRawDataset
from torch.utils.data import DataLoader


def read(spec, first):
    prefix = spec["objects"][0][0].split("/")[0]
    options = {"endpoint_url": spec["endpoint"]}
    data = StreamingRawDataset(
        f"s3://{spec['bucket']}/{prefix}/",
        cache_dir=spec["scratch"] + "/litdata",
        storage_options=options,
    )
    total = 0
    for batch in DataLoader(data, batch_size=1 if spec["kind"] == "shards" else 64):
        for item in batch:
            total += len(item)
            first()
    return total


if __name__ == "__main__":
    s3_harness.main(read)
