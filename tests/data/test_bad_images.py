"""Images that are damaged, or not what belongs there: read as they are meant, or refused in one line."""

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.datasets.images import MAX_PIXELS, read_image
from tests.helpers.fuzzing import mutations, outcome, report, why

ROOT = Path(__file__).resolve().parents[2]
SIZE = (48, 24)
FEW, MANY = 30, 3000  # cases per form of file


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


def fuzz_images(tmp_path: Path, form: str, seed: int, count: int) -> Counter:
    path = tmp_path / "x.jpg"
    found = Counter()
    for damaged in mutations(FORMS[form], seed, count):
        path.write_bytes(damaged)
        found[outcome(lambda: read_image(path, SIZE))] += 1
    return found


@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO")
@pytest.mark.parametrize("form", FORMS)
def test_damaged_images(form, tmp_path, tally):
    (tmp_path / "x.jpg").write_bytes(FORMS[form])
    assert read_image(tmp_path / "x.jpg", SIZE).shape == (3, *SIZE)
    found = fuzz_images(tmp_path, form, seed=1, count=FEW)
    report(tally, form, found)
    assert found["refused"] > 0


@pytest.mark.faults
@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO")
@pytest.mark.parametrize("form", FORMS)
def test_many_damaged_images(form, tmp_path, tally):
    report(tally, form, fuzz_images(tmp_path, form, seed=2, count=MANY))


# --- images: whole, but not what belongs there ----------------------------------------------------------------------


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
    "animated png": (encoded("PNG", **SECOND), "is animated"),
    "animated webp": (encoded("WEBP", **SECOND), "is animated"),
    "tiff": (encoded("TIFF"), "is none of JPEG"),
    "postscript": (encoded("EPS"), "is none of JPEG"),
}


@pytest.mark.parametrize("kind", NOT_READ)
def test_what_cannot_be_read_faithfully_is_refused(kind, tmp_path):
    content, words = NOT_READ[kind]
    path = tmp_path / "0001.jpg"
    path.write_bytes(content)
    message = why(read_image, path, SIZE)
    assert message.startswith(f"{path}: ")
    assert words in message


@pytest.mark.parametrize("form", FORMS)
def test_the_rest_is_read_as_it_is_meant(form, tmp_path):
    """Whatever the format and its modes: the first picture, in its own colours."""
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
@pytest.mark.parametrize("side", [6000, 10000, 20000])
def test_decompression_bombs_are_refused_before_they_are_decoded(side, tmp_path, recwarn):
    assert side**2 > MAX_PIXELS
    path = tmp_path / "0001.jpg"
    path.write_bytes(png_of(side, side, 8, 2, bytes(10**6)))
    tracemalloc.start()
    try:
        message = why(read_image, path, SIZE)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()
    assert "pixels" in message
    assert message.startswith(f"{path}: ")


def test_pillow_does_not_warn_beside_our_refusal(tmp_path):
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
