"""s3fs-fuse: the bucket mounted, its files read one after the other."""

import os
import pathlib
import subprocess

import s3_harness


def read(spec, first):
    place = pathlib.Path(spec["scratch"]) / "mount"
    place.mkdir()
    options = f"url={spec['endpoint']},use_path_request_style,public_bucket=1,parallel_count=16"
    options += ",multireq_max=32,umask=0022"
    program = subprocess.Popen(["s3fs", spec["bucket"], str(place), "-f", "-o", options])
    try:
        while not os.path.ismount(place):
            if program.poll() is not None:
                raise SystemExit("s3fs ended at once")
        return _read_files(place, spec, first)
    finally:
        subprocess.run(["umount", str(place)], check=False)
        program.wait(20)


def _read_files(place, spec, first):
    total = 0
    for key, _ in spec["objects"]:
        with open(place / key, "rb", buffering=0) as file:
            while data := file.read(1 << 20):
                total += len(data)
                first()
    return total


if __name__ == "__main__":
    s3_harness.main(read)
