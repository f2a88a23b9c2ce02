"""Cameras: what a place and its light do to every image taken there. Nothing here knows of identities."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .scenes import INFRARED, THERMAL, VISIBLE, draw_scene

# the salt keeps a camera's draws apart from those of an identity of the same number
_SALT = 0xCA3E7A


@dataclass(frozen=True)
class Camera:
    """What makes a camera's images its own.

    `scenes` are wide backgrounds, one of which is drawn for an image. `light` is a gain per pixel (H, W, 1), `cast`
    one per channel (3,), `curve` the response (256,) of the sensor in bytes. `scale` is a body's height as a share of
    the image's; `elevation` and `squash` describe a raised camera; `light_side` is -1 (left) to 1. `blur` is a radius
    in pixels of a 128-pixel-high image, `noise` a standard deviation as a share of white.
    """

    modality: str
    scenes: tuple[np.ndarray, ...]
    light: np.ndarray
    cast: np.ndarray
    scale: float
    elevation: float
    squash: float
    light_side: float
    blur: float
    noise: float
    curve: np.ndarray


@lru_cache(maxsize=16)
def make_camera(seed: int, number: int, modality: str, kinds: tuple[str, ...], size: tuple[int, int]) -> Camera:
    """The camera of a number: a function of its arguments alone.

    `kinds` names a scene each; a camera that moves about has several.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, _SALT, number)))
    bright = {VISIBLE: rng.uniform(0.75, 1.15), INFRARED: rng.uniform(0.8, 1.05), THERMAL: 1.0}[modality]
    gamma = {VISIBLE: rng.uniform(0.85, 1.15), INFRARED: rng.uniform(0.85, 1.1), THERMAL: 1.0}[modality]
    cast = 1 + rng.uniform(-0.14, 0.14, 3) if modality == VISIBLE else np.ones(3)
    return Camera(
        modality=modality,
        scenes=tuple(draw_scene(kind, modality, size, rng) for kind in kinds),
        light=bright * _light(modality, size, rng),
        cast=cast.astype(np.float32),
        scale=rng.uniform(0.84, 0.93),
        elevation=rng.uniform(0.0, 0.28),
        squash=rng.uniform(0.93, 1.0),
        light_side=rng.uniform(-1, 1),
        blur={VISIBLE: rng.uniform(0.0, 0.6), INFRARED: rng.uniform(0.2, 0.7), THERMAL: 0.8}[modality],
        noise={VISIBLE: rng.uniform(0.008, 0.022), INFRARED: rng.uniform(0.012, 0.024), THERMAL: 0.012}[modality],
        curve=(255 * np.linspace(0, 1, 256) ** gamma).astype(np.uint8),
    )


def _light(modality: str, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A gain map (H, W, 1): a slope in daylight, a spot that falls off around an active infrared lamp."""
    y, x = np.linspace(-1, 1, size[0])[:, None], np.linspace(-1, 1, size[1])[None, :]
    if modality == THERMAL:
        gain = np.ones(size)
    elif modality == INFRARED:
        gain = 1.15 / (
            1 + rng.uniform(0.2, 0.45) * ((x - rng.uniform(-0.3, 0.3)) ** 2 + (y + rng.uniform(0, 0.4)) ** 2)
        )
    else:
        gain = 1 + rng.uniform(-0.15, 0.15) * x + rng.uniform(-0.15, 0.15) * y
    return gain[..., None].astype(np.float32)
