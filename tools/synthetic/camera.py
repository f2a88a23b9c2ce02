"""Cameras: what a camera's location and light do to each of its images, whoever is in it."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tools.synthetic.modality import INFRARED, THERMAL, VISIBLE
from tools.synthetic.scenes import draw_scene

# makes a camera's random numbers differ from those of the identity of the same number
_SALT = 0xCA3E7A


@dataclass(frozen=True)
class CameraSpec:
    """What a layout says about a camera."""

    modality: str
    scenes: tuple[str, ...]  # names in ``SCENES``; several for a camera that is carried from location to location


@dataclass(frozen=True)
class Camera:
    """What the images of one camera share."""

    modality: str
    scenes: tuple[np.ndarray, ...]  # wide backgrounds, see ``draw_scene``; an image shows a crop of one of them
    light: np.ndarray  # gain of each pixel, (H, W, 1)
    cast: np.ndarray  # gain of each channel, (3,)
    curve: np.ndarray  # response of the sensor, 256 bytes
    scale: float  # height of a body as a share of the image's
    elevation: float  # how far the camera looks down, see ``View``
    squash: float  # how much shorter bodies look from above, a factor
    light_side: float  # the side the light comes from, -1 (left) to 1 (right)
    blur: float  # radius in pixels of an image 128 pixels high
    noise: float  # standard deviation as a share of white


@lru_cache(maxsize=32)
def make_camera(seed: int, number: int, spec: CameraSpec, size: tuple[int, int]) -> Camera:
    """Sample a camera for images of ``size`` (H, W), which depends on nothing but the arguments."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, _SALT, number)))
    modality = spec.modality
    # values of both modalities are sampled, whichever is used
    bright = {VISIBLE: rng.uniform(0.75, 1.15), INFRARED: rng.uniform(0.8, 1.05), THERMAL: 1.0}[modality]
    gamma = {VISIBLE: rng.uniform(0.85, 1.15), INFRARED: rng.uniform(0.85, 1.1), THERMAL: 1.0}[modality]
    cast = 1 + rng.uniform(-0.14, 0.14, 3) if modality == VISIBLE else np.ones(3)
    return Camera(
        modality=modality,
        cast=cast.astype(np.float32),
        curve=(255 * np.linspace(0, 1, 256) ** gamma).astype(np.uint8),
        # sampled from here on: another order would give other cameras
        scenes=tuple(draw_scene(kind, modality, size, rng) for kind in spec.scenes),
        light=bright * _sample_light(modality, size, rng),
        scale=rng.uniform(0.84, 0.93),
        elevation=rng.uniform(0.0, 0.28),
        squash=rng.uniform(0.93, 1.0),
        light_side=rng.uniform(-1, 1),
        blur={VISIBLE: rng.uniform(0.0, 0.6), INFRARED: rng.uniform(0.2, 0.7), THERMAL: 0.8}[modality],
        noise={VISIBLE: rng.uniform(0.008, 0.022), INFRARED: rng.uniform(0.012, 0.024), THERMAL: 0.012}[modality],
    )


def _sample_light(modality: str, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Gain of each pixel, (H, W, 1): a slope in daylight, a spot around an infrared lamp."""
    y, x = np.linspace(-1, 1, size[0])[:, None], np.linspace(-1, 1, size[1])[None, :]
    if modality == THERMAL:
        gain = np.ones(size)
    elif modality == INFRARED:
        fall = rng.uniform(0.2, 0.45)
        gain = 1.15 / (1 + fall * ((x - rng.uniform(-0.3, 0.3)) ** 2 + (y + rng.uniform(0, 0.4)) ** 2))
    else:
        gain = 1 + rng.uniform(-0.15, 0.15) * x + rng.uniform(-0.15, 0.15) * y
    return gain[..., None].astype(np.float32)
