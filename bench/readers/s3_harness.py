"""What every reader of bench/s3 shares: read the spec, time the reading, print one line of JSON.

A reader (read_<name>.py) imports its library, then calls `main(read)`. `read(spec, first)` reads
every object once, calls first() when the first sample's bytes are in hand, and returns how many
bytes it has read. `prepare(spec)`, if given, is called by the driver's --prepare run only.

Standard library only: this file is imported in the environment of every reader.

The spec, a JSON object in the first argument, or in a file whose name follows an "@" there:
    endpoint      "http://..." of an origin that speaks S3, path style, and checks no signature
    bucket        name
    objects       list of [key, bytes]
    kind          "shards": tars of about 100 MB; "small": images
    part_bytes    of a ranged GET, where the reader lets one choose
    connections   where the reader lets one choose
    scratch       a folder of this run's own, in memory
    ca_file       the origin's CA, or ""
    prepared      folder below the bucket for another form of the data (prefix)
    root          folder that the origin serves (for prepare() only)
"""

import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "peers"))

import process_tree

FAKE_KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}


def url(spec, key):
    return f"{spec['endpoint']}/{spec['bucket']}/{key}"


def parts(spec):
    """(key, first byte, last byte) of every part of every object."""
    step = spec["part_bytes"]
    for key, size in spec["objects"]:
        for start in range(0, size, step):
            yield key, start, min(start + step, size) - 1


def use_environment(spec):
    """What SDKs read; the origin does not look at signatures."""
    os.environ.update(
        FAKE_KEYS,
        AWS_ENDPOINT_URL=spec["endpoint"],
        AWS_REGION="us-east-1",
        AWS_DEFAULT_REGION="us-east-1",
        AWS_EC2_METADATA_DISABLED="true",
        AWS_ALLOW_HTTP="true",
        S3_ENDPOINT_URL=spec["endpoint"],
    )
    if spec["ca_file"]:
        os.environ["AWS_CA_BUNDLE"] = os.environ["SSL_CERT_FILE"] = spec["ca_file"]


def main(read, prepare=None):
    text = sys.argv[1]
    if text.startswith("@"):
        text = pathlib.Path(text[1:]).read_text(encoding="utf-8")
    spec = json.loads(text)
    use_environment(spec)
    process_tree.adopt_orphans()
    if "--prepare" in sys.argv:
        if prepare is not None:
            prepare(spec)
        return
    firsts = []
    cpu_before = process_tree.cpu_seconds(os.getpid())
    began = time.monotonic()
    count = read(spec, lambda: firsts.append(time.monotonic()) if not firsts else None)
    wall = time.monotonic() - began
    cpu = process_tree.cpu_seconds(os.getpid()) - cpu_before
    expected = sum(size for _, size in spec["objects"])
    if count < 0.97 * expected:  # readers that give samples leave out headers
        raise SystemExit(f"read {count} of {expected} bytes")
    result = {
        "seconds": wall,
        "bytes": expected,
        "cpu_seconds": cpu,
        "first_seconds": firsts[0] - began if firsts else None,
    }
    print("\n" + json.dumps(result), flush=True)
    process_tree.end_descendants()
    os._exit(0)
