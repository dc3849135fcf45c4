"""Indexing a folder of images beside what Python does: os.walk, and ImageFolder's listing.

    bench_index.py --program build/release/bench/bench_index [--files N] [--folder FOLDER]

Makes a folder of N empty files (100,000) in 1,000 classes unless one is given, lists it three ways
and prints files per second. Each way runs once before it is measured, so all find the page cache
warm; a cold listing depends on the disk alone.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
OLD = (1_500_000_000, 1_500_000_000)


def make_tree(root, files, classes):
    for number in range(classes):
        folder = os.path.join(root, f"n{number:08d}")
        os.mkdir(folder)
        for i in range(number, files, classes):
            os.close(os.open(f"{folder}/n{number:08d}_{i}.JPEG", os.O_CREAT | os.O_WRONLY))
        os.utime(folder, OLD)
    os.utime(root, OLD)


def walk(root):
    return sum(len(names) for _, _, names in os.walk(root))


def image_folder(root):
    """The listing that torchvision's ImageFolder makes: (path, class number) in its order."""
    samples = []
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    for number, name in enumerate(classes):
        for folder, _, names in sorted(os.walk(os.path.join(root, name), followlinks=True)):
            for file in sorted(names):
                if file.lower().endswith(EXTENSIONS):
                    samples.append((os.path.join(folder, file), number))
    return len(samples)


def timed(function, *arguments):
    function(*arguments)
    start = time.perf_counter()
    count = function(*arguments)
    return count, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", required=True, help="the bench_index program")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", help="an existing folder of images, used as it is")
    options = parser.parse_args()
    ground = tempfile.mkdtemp(prefix="penstock-bench-")
    try:
        root = options.folder
        if root is None:
            root = os.path.join(ground, "images")
            os.mkdir(root)
            make_tree(root, options.files, options.classes)
        command = [options.program, "--folder", root, "--threads", str(options.threads)]
        index = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        walked, walk_s = timed(walk, root)
        listed, list_s = timed(image_folder, root)
        assert listed == index["files"], (listed, index)
    finally:
        shutil.rmtree(ground)
    print(
        json.dumps(
            {
                **index,
                "os_walk_files_per_s": round(walked / walk_s),
                "image_folder_files_per_s": round(listed / list_s),
            }
        )
    )


if __name__ == "__main__":
    main()
