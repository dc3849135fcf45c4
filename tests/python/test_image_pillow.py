"""Pixels of decode/image.h against Pillow's Image.open(f).convert("RGB"), to the bit.

For every file either both succeed with the same bytes or both refuse; EXCEPTIONS lists what is
known to differ and why. The C side is the test program imagedump.
"""

import io
import os
import pathlib
import random
import struct
import subprocess
import warnings
import zlib

import pytest

Image = pytest.importorskip("PIL.Image")

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("PENSTOCK_BUILD", ROOT / "build" / "release"))
SHARED = pathlib.Path(os.environ.get("PENSTOCK_SHARED_DATA", ROOT.parent / "shared" / "data"))

OUR_FORMATS = {"JPEG", "MPO", "PNG", "WEBP"}

# File name -> why Pillow reads it and Penstock does not, or the other way round.
EXCEPTIONS: dict[str, str] = {}

# Part of the reason -> why Penstock says "unsupported" to what Pillow reads.
UNSUPPORTED = {
    "incomplete progressive": "libjpeg-turbo before 3.0.1 smooths some of them with errors",
    "SOF type 0xc3": "libjpeg-turbo before 3.0 has no lossless JPEG",
}


class Dump:
    """The program imagedump, kept running."""

    def __init__(self):
        program = BUILD / "tests" / "imagedump"
        if not program.exists():
            pytest.skip(f"{program} is not built")
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def decode(self, path, box=(0, 0, 0, 0), band=16):
        """(width, height, pixels) of the box, or (status, reason)."""
        line = " ".join(map(str, (*box, band, path))) + "\n"
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()
        head = self.process.stdout.readline().decode(errors="replace")
        assert head, f"imagedump died on {path}"
        word, _, rest = head.strip().partition(" ")
        if word != "ok":
            return word, rest
        width, height, size = map(int, rest.split())
        return width, height, self.process.stdout.read(size)

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=10) == 0


@pytest.fixture(scope="module")
def dump():
    program = Dump()
    yield program
    program.close()


def pillow(path):
    """The picture as RGB, or None where Pillow refuses or another format is at work."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path) as image:
                rgb = image.convert("RGB")
                return rgb if image.format in OUR_FORMATS else None
        except Exception:
            return None


def difference(dump, path, rng, region_count=6):
    """None when both agree on the file, else what differs."""
    expected = pillow(path)
    got = dump.decode(path)
    if expected is None:
        return None if len(got) == 2 else "Pillow refuses it, Penstock reads it"
    if got[0] == "unsupported" and any(reason in got[1] for reason in UNSUPPORTED):
        return None
    if len(got) == 2:
        return f"Pillow reads it, Penstock says {got[0]}: {got[1]}"
    if got[:2] != expected.size:
        return f"size {got[:2]}, Pillow's {expected.size}"
    if got[2] != expected.tobytes():
        return "pixels differ"
    width, height = expected.size
    for _ in range(region_count):
        x, y = rng.randrange(width), rng.randrange(height)
        box = (x, y, rng.randint(1, width - x), rng.randint(1, height - y))
        region = dump.decode(path, box, rng.choice([1, 7, 64]))
        crop = expected.crop((x, y, x + box[2], y + box[3]))
        if len(region) == 2 or region[2] != crop.tobytes():
            return f"region {box} differs"
    return None


def check(dump, path, data=None):
    if data is not None:
        path.write_bytes(data)
    found = difference(dump, path, random.Random(str(path.name)))
    assert found is None, f"{path.name}: {found}"


def picture(mode, size, seed=0):
    """Noise over a gradient, so that edges and flat parts are both there."""
    rng = random.Random(seed)
    width, height = size
    noise = Image.frombytes("RGB", size, rng.randbytes(width * height * 3))
    ramp = Image.linear_gradient("L").resize(size)
    flat = Image.merge("RGB", (ramp, ramp.transpose(Image.Transpose.ROTATE_180), ramp))
    image = Image.composite(noise, flat, ramp.point(lambda v: 255 * (v // 32 % 2)))
    if mode == "RGBA":
        image.putalpha(Image.frombytes("L", size, rng.randbytes(width * height)))
        return image
    if mode == "I;16":
        return Image.frombytes("I;16", size, rng.randbytes(width * height * 2))
    return image.convert(mode)


SIZES = [(1, 1), (1, 37), (37, 1), (3, 2), (16, 16), (17, 33), (100, 75), (129, 65)]


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize(
    "mode,options",
    [("RGB", {"subsampling": s, "progressive": p}) for s in (0, 1, 2) for p in (False, True)]
    + [("RGB", {"subsampling": s, "restart_marker_blocks": 3}) for s in (0, 2)]
    + [("RGB", {"restart_marker_rows": 1, "progressive": True})]
    + [("RGB", {"keep_rgb": True}), ("RGB", {"quality": 5}), ("RGB", {"quality": 100})]
    + [(m, {"progressive": p}) for m in ("L", "CMYK") for p in (False, True)]
    + [("RGB", {"optimize": True, "exif": b"Exif\0\0MM\0*" + bytes(20)})],
    ids=str,
)
def test_jpeg(dump, tmp_path, size, mode, options):
    path = tmp_path / "a.jpg"
    picture(mode, size).save(path, "JPEG", **options)
    check(dump, path)


@pytest.mark.parametrize("end", [-1, -2, -3, -20, -200, 0.9, 0.5, 0.2, 300, 100, 20, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_jpeg_truncated(dump, tmp_path, end, progressive, seed):
    buffer = io.BytesIO()
    picture("RGB", (90, 70), seed).save(buffer, "JPEG", progressive=progressive)
    data = buffer.getvalue()
    cut = data[: int(len(data) * end)] if isinstance(end, float) else data[:end]
    check(dump, tmp_path / "a.jpg", cut)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(7, 30), (15, 15), (30, 20), (80, 60)], ids=str)
def test_jpeg_without_its_last_scans(dump, tmp_path, size, subsampling):
    """libjpeg smooths what an incomplete progressive image shows."""
    buffer = io.BytesIO()
    options = {"progressive": True, "subsampling": subsampling, "quality": 70}
    picture("RGB", size).save(buffer, "JPEG", **options)
    data = buffer.getvalue()
    scans = [i for i in range(len(data) - 1) if data[i : i + 2] == b"\xff\xda"]
    for i in range(1, len(scans)):
        for end in (scans[i], (scans[i - 1] + scans[i]) // 2):
            path = tmp_path / f"{end}.jpg"
            check(dump, path, data[:end] + b"\xff\xd9")
            is_affected = subsampling == 2 or 8 < size[0] <= (32 if subsampling else 16)
            assert is_affected or dump.decode(path)[0] != "unsupported"


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize(
    "mode,options",
    [(m, {}) for m in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
    + [("P", {"bits": b}) for b in (1, 2, 4)]
    + [("P", {"transparency": 3}), ("P", {"transparency": bytes(range(9))})]
    + [("L", {"transparency": 3}), ("RGB", {"transparency": (1, 2, 3)})],
    ids=str,
)
def test_png(dump, tmp_path, size, mode, options):
    path = tmp_path / "a.png"
    picture(mode, size).save(path, "PNG", **options)
    check(dump, path)


def chunk(name, body, checksum=None):
    if checksum is None:
        checksum = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)


PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)]
PASSES += [(0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def raw_rows(rng, width, height, depth, color, interlaced):
    """Filter bytes and random filtered bytes, as they go into the zlib stream."""
    raw = b""
    for x, y, x_step, y_step in PASSES if interlaced else [(0, 0, 1, 1)]:
        columns = -((x - width) // x_step) if width > x else 0
        row_count = -((y - height) // y_step) if height > y else 0
        size = (columns * depth * SAMPLES[color] + 7) // 8
        for _ in range(row_count if columns else 0):
            raw += bytes([rng.randrange(5)]) + rng.randbytes(size)
    return raw


def png(
    width, height, depth, color, raw, *, before=b"", after=b"", interlaced=0, idat=None, end=True
):
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before
    data += chunk(b"IDAT", zlib.compress(raw)) if idat is None else idat
    return data + after + (chunk(b"IEND", b"") if end else b"")


KINDS = [(d, 0) for d in (1, 2, 4, 8, 16)] + [(d, 3) for d in (1, 2, 4, 8)]
KINDS += [(d, c) for d in (8, 16) for c in (2, 4, 6)]


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize("depth,color", KINDS)
def test_png_all_filters(dump, tmp_path, depth, color, interlaced):
    rng = random.Random(depth * 10 + color)
    for width, height in [*SIZES, (2, 5), (5, 3), (9, 9), (4, 8)]:
        raw = raw_rows(rng, width, height, depth, color, interlaced)
        palette = chunk(b"PLTE", rng.randbytes(3 * 2 ** min(depth, 7))) if color == 3 else b""
        data = png(width, height, depth, color, raw, before=palette, interlaced=interlaced)
        check(dump, tmp_path / f"{width}x{height}.png", data)


GREY = b"\0abc\0def"  # the rows of a 3 x 2 grey picture
PACKED = zlib.compress(GREY)
PALETTE = chunk(b"PLTE", bytes(range(30)))
FRAME = struct.pack(">IIIIIHHBB", 0, 3, 2, 0, 0, 1, 1, 0, 0)
SMALL_FRAME = struct.pack(">IIIIIHHBB", 0, 2, 1, 1, 1, 1, 1, 0, 0)
TWO_FRAMES = chunk(b"acTL", struct.pack(">II", 2, 0))
BIG_TEXT = zlib.compress(bytes((1 << 20) + 2000))


def grey(**options):
    return png(3, 2, 8, 0, GREY, **options)


def indexed(before, raw=b"\0\0\1\2\0\3\4\xff"):
    return png(3, 2, 8, 3, raw, before=before)


ODD_PNGS = {
    "plain": grey(),
    "no end": grey(end=False),
    "garbage after the end": grey(after=chunk(b"IEND", b"") + b"garbage"),
    "bad checksum in the data": grey(idat=chunk(b"IDAT", PACKED, 1)),
    "bad checksum before the data": grey(before=chunk(b"tEXt", b"a\0b", 1)),
    "bad checksum after the data": grey(after=chunk(b"tEXt", b"a\0b", 1)),
    "unknown chunks": grey(before=chunk(b"abCd", b"x"), after=chunk(b"ABCD", b"y")),
    "bad chunk name": grey(before=chunk(b"a-b!", b"x")),
    "bad chunk name after": grey(after=chunk(b"a-b!", b"x")),
    "data in two chunks": grey(idat=chunk(b"IDAT", PACKED[:5]) + chunk(b"IDAT", PACKED[5:])),
    "data in three chunks, one empty": grey(
        idat=chunk(b"IDAT", b"") + chunk(b"IDAT", PACKED[:5]) + chunk(b"IDAT", PACKED[5:])
    ),
    "a chunk between data": grey(
        idat=chunk(b"IDAT", PACKED[:5]) + chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", PACKED[5:])
    ),
    "stream without its end": grey(idat=chunk(b"IDAT", PACKED[:-4])),
    "stream with a bad sum": grey(idat=chunk(b"IDAT", PACKED[:-1] + b"\0")),
    "stream cut": grey(idat=chunk(b"IDAT", PACKED[:-8])),
    "stream not zlib": grey(idat=chunk(b"IDAT", b"garbage")),
    "one row only": png(3, 2, 8, 0, GREY[:4]),
    "a row and a half": png(3, 2, 8, 0, GREY[:6]),
    "too many rows": png(3, 2, 8, 0, GREY + GREY),
    "one row only, indexed": png(3, 2, 8, 3, b"\0\1\2\3", before=PALETTE),
    "filter 5": png(3, 2, 8, 0, b"\5abc\0def"),
    "no data": grey(idat=b""),
    "depth 3": png(3, 2, 3, 0, GREY),
    "RGB of 4 bits": png(3, 2, 4, 2, GREY * 9),
    "colour type 1": png(3, 2, 8, 1, GREY),
    "no columns": png(0, 2, 8, 0, GREY),
    "no rows": png(3, 0, 8, 0, GREY),
    "huge": png(1 << 20, 1 << 20, 8, 0, GREY),
    "no palette": indexed(b""),
    "no palette, one transparent": indexed(chunk(b"tRNS", b"\xff\0")),
    "no palette, some transparent": indexed(chunk(b"tRNS", b"\5\6")),
    "empty palette": indexed(chunk(b"PLTE", b"")),
    "short palette": indexed(chunk(b"PLTE", b"\1\2\3\4")),
    "full palette and a rest": indexed(chunk(b"PLTE", bytes(770))),
    "palette too long": indexed(chunk(b"PLTE", bytes(771))),
    "palette in a grey picture": grey(before=PALETTE),
    "palette after the data": png(3, 2, 8, 3, b"\0\0\1\2\0\3\4\5", after=PALETTE),
    "transparency too short": grey(before=chunk(b"tRNS", b"\1")),
    "transparency too short, RGB": png(1, 1, 8, 2, b"\0abc", before=chunk(b"tRNS", b"\1\2\3\4\5")),
    "gamma too short": grey(before=chunk(b"gAMA", b"abc")),
    "gamma too short, after": grey(after=chunk(b"gAMA", b"abc")),
    "density too short": grey(before=chunk(b"pHYs", b"abc")),
    "sRGB empty": grey(before=chunk(b"sRGB", b"")),
    "profile": grey(before=chunk(b"iCCP", b"x\0\0" + zlib.compress(b"abc"))),
    "profile broken": grey(before=chunk(b"iCCP", b"x\0\0abc")),
    "profile of method 1": grey(before=chunk(b"iCCP", b"x\0\1abc")),
    "profile too short": grey(before=chunk(b"iCCP", b"x\0")),
    "profile too long": grey(before=chunk(b"iCCP", b"x\0\0" + BIG_TEXT)),
    "text too long": grey(before=chunk(b"zTXt", b"x\0\0" + BIG_TEXT)),
    "text of method 1": grey(before=chunk(b"zTXt", b"x\0\1abc")),
    "text without content": grey(before=chunk(b"zTXt", b"x")),
    "text too long, after": grey(after=chunk(b"iTXt", b"x\0\1\0\0\0" + BIG_TEXT)),
    "text of many languages": grey(before=chunk(b"iTXt", b"x\0\0\0de\0x\0abc")),
    "chunk beyond the end": grey(after=b"\0\0\1\0tEXtabc", end=False),
    "data chunk beyond the end": grey(idat=b"\0\0\1\0IDAT" + PACKED, end=False),
    "animation": grey(before=TWO_FRAMES + chunk(b"fcTL", FRAME)),
    "animation, small first frame": grey(before=TWO_FRAMES + chunk(b"fcTL", SMALL_FRAME)),
    "animation out of sequence": grey(before=TWO_FRAMES + chunk(b"fcTL", b"\1" + FRAME[1:])),
    "animation without frames": grey(before=TWO_FRAMES),
    "animation, frame without width": grey(before=TWO_FRAMES + chunk(b"fcTL", bytes(26))),
    "animation, frame outside": grey(
        before=TWO_FRAMES + chunk(b"fcTL", FRAME[:12] + b"\1" + FRAME[13:])
    ),
    "animation, frame data first": grey(
        before=TWO_FRAMES + chunk(b"fcTL", FRAME), idat=chunk(b"fdAT", b"\0\0\0\1" + PACKED)
    ),
    "animation, frame data without frame": grey(idat=chunk(b"fdAT", b"\0\0\0\0" + PACKED)),
    "animation twice": grey(before=TWO_FRAMES + TWO_FRAMES + chunk(b"fcTL", FRAME)),
    "second frame broken": grey(
        before=TWO_FRAMES + chunk(b"fcTL", FRAME), after=chunk(b"fcTL", b"\7" + FRAME[1:])
    ),
    "frame broken without animation": grey(after=chunk(b"fcTL", b"\7" + FRAME[1:])),
}


@pytest.mark.parametrize("name", ODD_PNGS)
def test_png_oddities(dump, tmp_path, name):
    check(dump, tmp_path / "a.png", ODD_PNGS[name])


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("default_image", [False, True])
def test_apng(dump, tmp_path, mode, default_image):
    frames = [picture(mode, (40, 30), seed) for seed in range(3)]
    path = tmp_path / "a.png"
    frames[0].save(path, save_all=True, append_images=frames[1:], default_image=default_image)
    check(dump, path)


def test_png_cut_anywhere(dump, tmp_path):
    buffer = io.BytesIO()
    picture("RGB", (20, 10)).save(buffer, "PNG", dpi=(72, 72))
    data = buffer.getvalue()
    for size in [*range(60), *range(60, len(data), 7), *range(len(data) - 20, len(data))]:
        check(dump, tmp_path / f"{size}.png", data[:size])


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize(
    "options", [{}, {"quality": 10}, {"lossless": True}, {"lossless": True, "exact": True}], ids=str
)
def test_webp(dump, tmp_path, size, mode, options):
    path = tmp_path / "a.webp"
    picture(mode, size).save(path, "WEBP", **options)
    check(dump, path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("lossless", [False, True])
def test_webp_animated(dump, tmp_path, mode, lossless):
    frames = [picture(mode, (40, 30), seed) for seed in range(3)]
    path = tmp_path / "a.webp"
    frames[0].save(
        path, save_all=True, append_images=frames[1:], lossless=lossless, background=(9, 8, 7, 6)
    )
    check(dump, path)


def test_webp_cut_anywhere(dump, tmp_path):
    buffer = io.BytesIO()
    picture("RGBA", (20, 10)).save(buffer, "WEBP", exif=b"Exif\0\0abcd")
    data = buffer.getvalue()
    for size in [*range(60), *range(60, len(data), 11), *range(len(data) - 20, len(data))]:
        check(dump, tmp_path / f"{size}.webp", data[:size])


@pytest.mark.parametrize("format_name", ["GIF", "BMP", "TIFF", "PPM", "ICO", "JPEG2000"])
def test_other_formats(dump, tmp_path, format_name):
    path = tmp_path / "a.jpg"
    picture("RGB", (20, 20)).save(path, format_name)
    got = dump.decode(path)
    assert got[0] == "unsupported"
    assert ("JPEG 2000" if format_name == "JPEG2000" else format_name) in got[1]


def damage(rng, data):
    """A few random changes, mostly in the head."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        place = rng.randrange(min(len(data), rng.choice([64, 700, len(data)])))
        kind = rng.randrange(6)
        if kind < 2:
            data[place] = rng.randrange(256)
        elif kind == 2:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 3:
            data[place] = rng.choice([0, 1, 0xC4, 0xD8, 0xD9, 0xDA, 0xFF])
        elif kind == 4:
            del data[place : place + rng.randrange(1, 20)]
        else:
            other = rng.randrange(len(data))
            data[place:place] = data[other : other + rng.randrange(1, 30)]
    return bytes(data)


def with_checksums(data):
    """The PNG with right checksums, so that damage gets past the header."""
    data, at = bytearray(data), 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            break
        sum_at = at + 8 + length
        data[sum_at : sum_at + 4] = zlib.crc32(data[at + 4 : sum_at]).to_bytes(4, "big")
        at = sum_at + 4
    return bytes(data)


@pytest.mark.parametrize("format_name", ["JPEG", "PROGRESSIVE", "PNG", "WEBP"])
def test_damaged(dump, tmp_path, format_name):
    """Of a damaged file the whole picture is the same, or both refuse it."""
    rng = random.Random(format_name)
    originals = []
    for mode in ["RGB", "L", "P" if format_name == "PNG" else "RGB"]:
        buffer = io.BytesIO()
        image = picture(mode, (60, 50), len(originals))
        if format_name == "PROGRESSIVE":
            image.save(buffer, "JPEG", progressive=True)
        else:
            image.save(buffer, format_name)
        originals.append(buffer.getvalue())
    for i in range(400):
        data = damage(rng, rng.choice(originals))
        if format_name == "PNG" and i % 4:
            data = with_checksums(data)
        path = tmp_path / f"{i}.bin"
        path.write_bytes(data)
        found = difference(dump, path, rng, region_count=0)
        assert found is None, f"{path}: {found}"


@pytest.mark.parametrize("folder", ["oddities", "imagenet-sample"])
def test_shared_data(dump, folder):
    if not (SHARED / folder).is_dir():
        pytest.skip("no shared data")
    rng = random.Random(folder)
    found = {}
    for path in sorted((SHARED / folder).iterdir()):
        verdict = difference(dump, path, rng, region_count=3)
        if verdict is not None and path.name not in EXCEPTIONS:
            found[path.name] = verdict
    assert found == {}
