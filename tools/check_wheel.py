"""Run in an empty root by tools/build_wheel.py, with the installed wheel's Python: does it work?

Argument: the libraries that may come from the system, with commas between.
"""

import glob
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import penstock
from PIL import Image

PACKAGE = Path(penstock.__file__).parent
PROGRAMS = [PACKAGE / "_bin" / "penstockd", *PACKAGE.glob("*.so")]
LOADER = glob.glob("/lib64/ld-linux-*.so.*") + glob.glob("/lib/ld-linux-*.so.*")


def check_libraries(allowed: set[str]) -> None:
    """Every library is the wheel's own, but for the C library's."""
    for program in PROGRAMS:
        listed = subprocess.run(
            [LOADER[0], "--list", program], capture_output=True, text=True, check=True
        )
        for line in listed.stdout.splitlines():
            name, _, path = line.strip().partition(" => ")
            name = os.path.basename(name.split()[0])
            if "penstock.libs" not in path and name.split(".so")[0] not in allowed:
                raise SystemExit(f"{program.name} takes {line.strip()} from the system")


def make_folder(root: Path) -> None:
    for number in range(64):
        (root / f"class{number % 4}").mkdir(exist_ok=True)
        picture = Image.effect_noise((320, 256), 40 + number).convert("RGB")
        extension = ("jpg", "png", "webp")[number % 3]
        picture.save(root / f"class{number % 4}" / f"{number:02}.{extension}")


def check_bench(folder: str) -> None:
    command = [os.path.join(os.path.dirname(sys.executable), "penstock"), "bench", folder]
    command += ["--batch-size", "16", "--size", "64", "--seconds", "1", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SystemExit(f"penstock bench failed: {result.stderr}")
    figures = json.loads(result.stdout)
    if figures["bad_samples"] or not figures["images_per_second"] > 0:
        raise SystemExit(f"penstock bench: {figures}")
    print(f"  penstock bench: {figures['images_per_second']:.0f} images/s")


def check_loader(folder: str) -> None:
    transforms = [penstock.transforms.RandomResizedCrop(64)]
    with penstock.DataLoader(folder, batch_size=16, shuffle=True, transforms=transforms) as loader:
        batches = [(images.shape, labels.sum()) for images, labels in loader]
    if len(batches) != 4 or any(shape != (16, 3, 64, 64) for shape, _ in batches):
        raise SystemExit(f"the loader gave {batches}")


def main() -> None:
    check_libraries(set(sys.argv[1].split(",")))
    with tempfile.TemporaryDirectory() as folder:
        make_folder(Path(folder))
        check_bench(folder)
        check_loader(folder)
    print(f"  penstock {penstock.__version__} works with Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
