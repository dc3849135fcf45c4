"""`aws s3 cp --recursive` into memory (tmpfs)."""

import pathlib
import subprocess
import sys

import s3_harness


def read(spec, first):
    prefix = spec["objects"][0][0].split("/")[0]
    target = pathlib.Path(spec["scratch"]) / "copy"
    aws = pathlib.Path(sys.executable).with_name("aws")
    source = f"s3://{spec['bucket']}/{prefix}"
    command = [str(aws), "s3", "cp", "--only-show-errors", "--recursive", source, str(target)]
    subprocess.run([*command, "--no-sign-request"], check=True)
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())


if __name__ == "__main__":
    s3_harness.main(read)
