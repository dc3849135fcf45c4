"""Makes a small data set of real-looking JPEGs, a folder per class, as ImageNet's are on disk.

Each file is a random crop of a public-domain photograph in scikit-image's wheel: about 500x375
pixels, quality 95, mostly 4:4:4, some 4:2:0, a few grey. The same seed gives the same crops.
"""

import random
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

# Class name -> file in scikit-image: all public domain or CC0.
PHOTOGRAPHS = {
    "astronaut": "astronaut.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "eye": "retina.jpg",
    "galaxies": "hubble_deep_field.jpg",
    "rocket": "rocket.jpg",
}


def photograph(name: str) -> Image.Image:
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise SystemExit("scikit-image is missing: pip install --no-deps scikit-image")
    return Image.open(Path(package.origin).parent / "data" / name).convert("RGB")


def random_crop(picture: Image.Image, draw: random.Random) -> Image.Image:
    """About half of the picture's area, mirrored at times, at a size like a photo site's."""
    width, height = draw.choice([(500, 375), (375, 500), (500, 333), (500, 500)])
    width += draw.randrange(-20, 80)
    share = draw.uniform(0.55, 0.95) * min(picture.width / width, picture.height / height)
    crop_width, crop_height = int(width * share), int(height * share)
    left = draw.randrange(picture.width - crop_width + 1)
    top = draw.randrange(picture.height - crop_height + 1)
    box = (left, top, left + crop_width, top + crop_height)
    crop = picture.resize((width, height), Image.Resampling.LANCZOS, box)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draw.random() < 0.5 else crop


def make(folder: Path, per_class: int = 160, seed: int = 0) -> None:
    """Fills folder/CLASS/NNNN.jpg. A folder that is there already is left as it is."""
    if folder.is_dir():
        return
    unfinished = folder.with_name(folder.name + ".unfinished")
    for label, name in PHOTOGRAPHS.items():
        picture = photograph(name)
        draw = random.Random(f"{seed} {label}")
        (unfinished / label).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            crop = random_crop(picture, draw)
            if draw.random() < 0.02:
                crop = crop.convert("L")
            subsampling = "4:2:0" if draw.random() < 0.2 else "4:4:4"
            path = unfinished / label / f"{number:04}.jpg"
            crop.save(path, quality=95, subsampling=subsampling)
    unfinished.rename(folder)
