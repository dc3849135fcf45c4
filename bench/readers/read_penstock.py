"""Penstock: `penstock preload` into an empty cache, by a daemon that this run starts itself."""

import os
import pathlib
import subprocess
import sys

import s3_harness


def read(spec, first):
    scratch = pathlib.Path(spec["scratch"])
    for name in ("run", "cache"):
        (scratch / name).mkdir(mode=0o700)
    os.environ.update(
        XDG_RUNTIME_DIR=str(scratch / "run"),
        PENSTOCK_CACHE=str(scratch / "cache"),
        AWS_NO_SIGN_REQUEST="true",
    )
    prefix = spec["objects"][0][0].split("/")[0]
    source = f"s3://{spec['bucket']}/{prefix}/"
    if spec["kind"] == "shards":
        source += "*.tar"
    command = str(pathlib.Path(sys.executable).with_name("penstock"))
    subprocess.run([command, "preload", source], check=True, stdout=subprocess.DEVNULL)
    files = (path for path in (scratch / "cache").rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files)


if __name__ == "__main__":
    s3_harness.main(read)
