"""Make JPEGs that look and weigh like ImageNet's: make_photographs.py TARGET COUNT.

Crops of the public-domain and freely licensed photographs in scikit-image's wheel, about 500x375
px and 110 KB, quality 75 to 95, three of four 4:4:4, most others 4:2:0, a few grey. A little
grain stands in for the detail that enlarged crops lack. The same files on every run.
"""

import io
import pathlib
import sys

import numpy
from PIL import Image
from skimage import data

CLASS_COUNT = 50
SOURCES = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "immunohistochemistry")
QUALITIES = (75, 80, 85, 90, 95)


def _sources():
    """Those photographs that come with the wheel; others would be downloaded."""
    found = []
    for name in SOURCES:
        try:
            found.append(Image.fromarray(getattr(data, name)()).convert("RGB"))
        except (ModuleNotFoundError, OSError, ValueError):
            continue
    if not found:
        raise SystemExit("scikit-image came without photographs")
    return found


def _picture(source, random):
    width, height = (500, 375) if random.random() < 0.8 else (375, 500)
    width, height = width - int(random.integers(0, 60)), height - int(random.integers(0, 60))
    zoom = min(source.width / width, source.height / height) * random.uniform(0.5, 1.0)
    w, h = int(width * zoom), int(height * zoom)
    x = int(random.integers(0, source.width - w + 1))
    y = int(random.integers(0, source.height - h + 1))
    part = source.resize((width, height), Image.Resampling.BICUBIC, (x, y, x + w, y + h))
    grain = random.normal(0, random.uniform(3, 9), (height, width, 1))
    pixels = numpy.clip(numpy.asarray(part, numpy.float32) + grain, 0, 255)
    return Image.fromarray(pixels.astype(numpy.uint8))


def _encode(picture, wanted_bytes, kind):
    """At the quality whose size is nearest to what is wanted."""
    best = None
    for quality in QUALITIES:
        out = io.BytesIO()
        if kind == "grey":
            picture.convert("L").save(out, "JPEG", quality=quality)
        else:
            picture.save(out, "JPEG", quality=quality, subsampling=kind)
        if best is None or abs(out.tell() - wanted_bytes) < abs(len(best) - wanted_bytes):
            best = out.getvalue()
    return best


def main():
    target, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    random = numpy.random.default_rng(0)
    sources = _sources()
    kinds, shares = ("4:4:4", "4:2:0", "4:2:2", "grey"), (0.75, 0.21, 0.02, 0.02)
    for number in range(count):
        folder = target / f"class{number % CLASS_COUNT:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        picture = _picture(sources[number % len(sources)], random)
        wanted = random.lognormal(numpy.log(100_000), 0.35)
        encoded = _encode(picture, wanted, kinds[random.choice(len(kinds), p=shares)])
        (folder / f"{number:05d}.jpg").write_bytes(encoded)
        if (number + 1) % 500 == 0:
            print(f"  data: {number + 1} of {count}", flush=True)


if __name__ == "__main__":
    main()
