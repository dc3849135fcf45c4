"""WebDataset over `pipe:curl`: samples of tar shards, undecoded."""

import s3_harness
import webdataset


def read(spec, first):
    cacert = f" --cacert {spec['ca_file']}" if spec["ca_file"] else ""
    urls = [f"pipe:curl -s{cacert} {s3_harness.url(spec, key)}" for key, _ in spec["objects"]]
    total = 0
    for sample in webdataset.WebDataset(urls, shardshuffle=False):
        first()
        total += sum(len(value) for name, value in sample.items() if not name.startswith("_"))
    return total


if __name__ == "__main__":
    s3_harness.main(read)
