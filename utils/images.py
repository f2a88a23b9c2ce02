"""Decode images as the released code does, and refuse those that 8-bit RGB cannot represent."""

import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from utils.run.errors import UnreadableImage, reason

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")  # EPS etc. are excluded: their decoders run other programs
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # at most eight bits per channel
MAX_PIXELS = 2**25  # larger than any re-ID image, small enough for memory

# Pillow warns of large images; here they are refused instead
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def open_image(path: Path) -> Image.Image:
    """Decode as RGB.

    Raises:
        UnreadableImage: the file is missing, cannot be decoded, or 8-bit RGB cannot represent it.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            _require_faithful(image, path)
            return image.convert("RGB")
    except UnreadableImage:
        raise
    except FileNotFoundError:
        raise UnreadableImage(f"{path}: no such image") from None
    except UnidentifiedImageError:
        raise UnreadableImage(f"{path}: cannot be decoded as an image (it is none of {', '.join(FORMATS)})") from None
    except Exception as error:  # Pillow raises many kinds of errors on damaged files
        why = getattr(error, "strerror", None) or reason(error)
        raise UnreadableImage(f"{path}: cannot be decoded as an image ({why})") from None


def _require_faithful(image: Image.Image, path: Path) -> None:
    """Refuse images that 8-bit RGB cannot represent, and huge ones; reads the header only."""
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(
            f"{path}: has {image.width} x {image.height} pixels, more than the limit of {MAX_PIXELS}; crop it to the"
            " person"
        )
    if image.mode not in MODES:
        raise UnreadableImage(f"{path}: has mode {image.mode}, which 8-bit RGB cannot represent; save it as RGB")
    # the first image of an MPO file is the photograph; phones store previews and depth maps after it
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise UnreadableImage(f"{path}: is animated; save a single image")
