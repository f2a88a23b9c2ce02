"""Images in unusual formats are read correctly; damaged and unsuitable ones are refused in one line."""

import io
import struct
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.datasets.images import read_image
from tests.helpers.fuzzing import mutations, outcome, report, why
from utils.images import MAX_PIXELS

ROOT = Path(__file__).resolve().parents[2]
SIZE = (48, 24)


def picture(mode: str = "RGB", size: tuple[int, int] = (24, 48)) -> Image.Image:
    noise = np.random.default_rng(3).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def encoded(form: str, image: Image.Image | None = None, **options) -> bytes:
    file = io.BytesIO()
    (image or picture()).save(file, form, **options)
    return file.getvalue()


SECOND = {"save_all": True, "append_images": [picture("L").convert("RGB")]}
FORMS = {
    "jpeg": encoded("JPEG"),
    "jpeg-progressive": encoded("JPEG", progressive=True, optimize=True),
    "jpeg-cmyk": encoded("JPEG", picture("CMYK")),
    "mpo": encoded("MPO", **SECOND),
    "png": encoded("PNG"),
    "png-palette": encoded("PNG", picture("P")),
    "bmp": encoded("BMP"),
    "gif": encoded("GIF", picture("P")),
    "webp": encoded("WEBP"),
}


@pytest.mark.parametrize("count", [30, pytest.param(3000, marks=pytest.mark.faults)])
@pytest.mark.parametrize("form", ["jpeg", "png", "bmp"])
def test_damaged_images(form, count, tmp_path, tally):
    path, found = tmp_path / "x.jpg", Counter()
    for damaged in mutations(FORMS[form], 1, count):
        path.write_bytes(damaged)
        found[outcome(lambda: read_image(path, SIZE))] += 1
    report(tally, form, found)
    assert found["refused"] > 0


# --- undamaged images of other kinds --------------------------------------------------------------------------------


def png_of(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


GREY_16 = Image.fromarray(np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32))
NOT_READ = {
    "empty": (b"", "is none of JPEG"),
    "text": (b"no image at all", "is none of JPEG"),
    "16-bit grey": (encoded("PNG", GREY_16), "has mode I"),
    "animated gif": (encoded("GIF", **SECOND), "is animated"),
    "postscript": (encoded("EPS"), "is none of JPEG"),
}


@pytest.mark.parametrize("kind", NOT_READ)
def test_refused_in_one_line(kind, tmp_path):
    content, words = NOT_READ[kind]
    path = tmp_path / "0001.jpg"
    path.write_bytes(content)
    message = why(read_image, path, SIZE)
    assert message.startswith(f"{path}: ")
    assert words in message


@pytest.mark.parametrize("form", FORMS)
def test_every_format_keeps_its_colours(form, tmp_path):
    """Of a file with several pictures, the first is read."""
    path = tmp_path / "0001.jpg"
    path.write_bytes(FORMS[form])
    smooth = {"jpeg", "jpeg-progressive", "jpeg-cmyk", "mpo", "webp"}  # lossy: noise does not survive it
    found = read_image(path, (48, 24)).astype(int)
    expected = np.asarray(picture()).transpose(2, 0, 1).astype(int)
    limit = 60 if form in smooth else 45 if form in ("png-palette", "gif") else 0
    assert np.abs(found - expected).mean() <= limit


def test_cmyk_is_not_inverted(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded("JPEG", Image.new("RGB", (32, 32), (220, 30, 30)).convert("CMYK"), quality=95))
    red, green, blue = read_image(path, SIZE).reshape(3, -1).mean(axis=1)
    assert (red, green, blue) == pytest.approx((220, 30, 30), abs=6)


def test_16_bit_colour_keeps_its_upper_half(tmp_path):
    """What Pillow reads of it is right, unlike grey of 16 bits."""
    values = np.asarray(picture(size=(24, 48))).astype(np.uint16)
    rows = b"".join(b"\0" + (row * 257).astype(">u2").tobytes() for row in values)
    path = tmp_path / "x.png"
    path.write_bytes(png_of(24, 48, 16, 2, rows))
    np.testing.assert_array_equal(read_image(path, (48, 24)), values.transpose(2, 0, 1))


# Pillow is silent up to 89 million pixels, warns up to 179 million, and refuses above
@pytest.mark.parametrize("side", [6000, 20000])
def test_huge_images_are_refused_before_they_are_decoded(side, tmp_path):
    """Decoding would fail with another message: the file ends early."""
    assert side**2 > MAX_PIXELS
    path = tmp_path / "0001.jpg"
    path.write_bytes(png_of(side, side, 8, 2, bytes(10**6)))
    message = why(read_image, path, SIZE)
    assert "pixels" in message
    assert message.startswith(f"{path}: ")


def test_pillow_does_not_warn_as_well(tmp_path):
    """In a fresh process, because pytest has warning filters of its own."""
    path = tmp_path / "0001.jpg"
    path.write_bytes(png_of(10000, 10000, 8, 2, bytes(10**6)))
    program = f"""
from pathlib import Path
from data.datasets.images import read_image
from utils.run.cli import run_program
run_program(lambda: read_image(Path({str(path)!r}), (48, 24)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {path}: has 10000 x 10000 pixels")
