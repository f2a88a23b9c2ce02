"""Decoding images as the released code read them, and refusing those that cannot be read faithfully."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.run.errors import UnreadableImage
from utils.run.messages import reason

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")  # no formats whose decoders run programs or write to the terminal
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # eight bits per channel at most
MOST_PIXELS = 2**25  # far more than a camera of a data set has, far less than what makes a machine swap

# Pillow warns of large images, and refuses those of 179 million pixels; here all that it warns of are refused
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_image(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    """Decode as RGB and resize (bilinear with antialias, as released): a (3, height, width) uint8 array.

    Raises:
        UnreadableImage: the file is missing, cannot be read, or is not an image that can be decoded faithfully.
    """
    height, width = image_size
    try:
        with Image.open(path, formats=FORMATS) as image:
            _require_faithful(image, path)
            resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    except UnreadableImage:
        raise
    except FileNotFoundError:
        raise UnreadableImage(f"{path}: no such image") from None
    except UnidentifiedImageError:
        raise UnreadableImage(f"{path}: cannot be decoded as an image (it is none of {', '.join(FORMATS)})") from None
    except Exception as error:  # Pillow raises nearly anything on a damaged file
        why = getattr(error, "strerror", None) or reason(error)
        raise UnreadableImage(f"{path}: cannot be decoded as an image ({why})") from None
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


def _require_faithful(image: Image.Image, path: Path) -> None:
    """Only looks at the head of the file: nothing is decoded yet."""
    if image.width * image.height > MOST_PIXELS:
        raise UnreadableImage(
            f"{path}: has {image.width} x {image.height} pixels, and {MOST_PIXELS} in all are the most that is decoded;"
            " crop it to the person"
        )
    if image.mode not in MODES:
        raise UnreadableImage(
            f"{path}: is of mode {image.mode}, which RGB of 8 bits cannot hold faithfully; save it as RGB"
        )
    # the first image of an MPO file is the photograph; phones put previews and depth behind it
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise UnreadableImage(f"{path}: is animated; save the one image that is meant")
