"""Tones of a person's regions: colour, near-infrared reflectance and temperature, each sampled independently."""

from collections.abc import Callable
from enum import IntEnum

import numpy as np

from tools.synthetic.modality import INFRARED, THERMAL, VISIBLE

LUMINANCE = np.array([0.299, 0.587, 0.114])


class Region(IntEnum):
    """Labels of a drawing: what is seen at a pixel."""

    BACKGROUND, SHADOW, SKIN, HAIR, HAT, UPPER, UPPER_ALT, INNER = range(8)
    LOWER, LOWER_ALT, SHOES, BAG, EYES, OBSTACLE, OBSTACLE_ALT = range(8, 15)


# pairs that must differ for cut and pattern to show, with the least difference of luminance or reflectance
_CONTRASTS = (
    (Region.UPPER, Region.UPPER_ALT, 0.32),
    (Region.LOWER, Region.LOWER_ALT, 0.25),
    (Region.UPPER, Region.INNER, 0.25),
    (Region.UPPER, Region.LOWER, 0.2),
    (Region.UPPER, Region.BAG, 0.2),
    (Region.LOWER, Region.SHOES, 0.1),
)
# bare arms and legs must show against sleeves and hems
_SKIN_CONTRAST = 0.25
_CLOTHES = range(Region.HAT, Region.BAG + 1)
# sets of tones sampled at once, of which the first with enough contrast is taken
_CANDIDATES = 64
_SKINS = np.array([(0.96, 0.80, 0.69), (0.89, 0.68, 0.54), (0.76, 0.55, 0.40), (0.55, 0.36, 0.25), (0.35, 0.22, 0.16)])
_HAIRS = np.array([(0.07, 0.06, 0.06), (0.22, 0.14, 0.09), (0.42, 0.27, 0.15), (0.78, 0.64, 0.38), (0.62, 0.62, 0.62)])
_WARMTH = {
    "vest": 0.8, "t-shirt": 0.76, "long sleeves": 0.66, "jacket": 0.5, "coat": 0.42, "hoodie": 0.56,
    "slim trousers": 0.68, "wide trousers": 0.56, "shorts": 0.66, "knee skirt": 0.54, "long skirt": 0.48,
}  # fmt: skip


def sample_tones(seeds: list[np.random.SeedSequence], upper: str, lower: str) -> dict[str, np.ndarray]:
    """Sample one identity's tone of every region in [0, 1]: visible (15, 3), infrared and thermal (15, 1).

    Each modality has a seed of its own, so visible and infrared tones are independent. Thermal tones follow the
    thickness of the garments ``upper`` and ``lower``.
    """
    visible, infrared, thermal = (np.random.default_rng(seed) for seed in seeds)
    tones = {
        VISIBLE: _sample_visible(visible),
        INFRARED: _sample_infrared(infrared),
        THERMAL: _sample_thermal(thermal, _WARMTH[upper], _WARMTH[lower]),
    }
    return {modality: values.astype(np.float32) for modality, values in tones.items()}


def _sample_visible(rng: np.random.Generator) -> np.ndarray:
    tones = np.zeros((len(Region), 3))
    tones[Region.SKIN] = _sample_between(rng, _SKINS)
    tones[Region.HAIR] = _sample_between(rng, _HAIRS)
    tones[Region.EYES] = tones[Region.SKIN] * 0.3
    return _dress(tones, lambda count: _sample_colours(rng, count), weights=LUMINANCE)


def _sample_infrared(rng: np.random.Generator) -> np.ndarray:
    tones = np.zeros((len(Region), 1))
    tones[Region.SKIN] = rng.uniform(0.86, 0.96)
    tones[Region.HAIR] = rng.uniform(0.12, 0.6)
    tones[Region.EYES] = 0.35
    return _dress(tones, lambda count: rng.uniform(0.08, 0.82, (*count, 1)), weights=np.ones(1))


def _sample_thermal(rng: np.random.Generator, upper_warmth: float, lower_warmth: float) -> np.ndarray:
    tones = np.zeros((len(Region), 1))
    upper = upper_warmth + rng.uniform(-0.06, 0.06)
    lower = lower_warmth + rng.uniform(-0.06, 0.06)
    tones[Region.SKIN] = rng.uniform(0.92, 0.98)
    tones[Region.HAIR] = rng.uniform(0.42, 0.55)
    tones[Region.HAT] = rng.uniform(0.36, 0.48)
    tones[Region.EYES] = 0.98
    # printed patterns hardly change how much heat a garment gives off
    tones[Region.UPPER], tones[Region.UPPER_ALT] = upper, upper + rng.choice([-0.05, 0.05])
    tones[Region.LOWER], tones[Region.LOWER_ALT] = lower, lower + rng.choice([-0.05, 0.05])
    tones[Region.INNER] = max(0.76, upper + 0.15)
    tones[Region.SHOES] = rng.uniform(0.3, 0.42)
    tones[Region.BAG] = rng.uniform(0.2, 0.3)
    return tones


def _dress(tones: np.ndarray, sample: Callable[[tuple[int, int]], np.ndarray], *, weights: np.ndarray) -> np.ndarray:
    """Sample the clothes' tones until they contrast with each other and the skin: (15, C) -> (15, C).

    ``sample`` gives tones (n, clothes, C) for (n, clothes); ``weights`` (C,) give a tone's brightness.
    """
    candidates = np.tile(tones, (_CANDIDATES, 1, 1))
    while True:
        candidates[:, _CLOTHES] = sample((_CANDIDATES, len(_CLOTHES)))
        brightness = candidates @ weights
        fits = np.ones(_CANDIDATES, dtype=bool)
        for a, b, least in _CONTRASTS:
            fits &= np.abs(brightness[:, a] - brightness[:, b]) >= least
        for region in (Region.UPPER, Region.LOWER):
            fits &= np.abs(candidates[:, region] - candidates[:, Region.SKIN]).max(axis=-1) >= _SKIN_CONTRAST
        if fits.any():
            return candidates[fits.argmax()]


def _sample_colours(rng: np.random.Generator, count: tuple[int, int]) -> np.ndarray:
    """Random colours of cloth, (*count, 3): some grey, most coloured."""
    hue, value = rng.random((*count, 1)), rng.uniform(0.1, 0.97, (*count, 1))
    grey = rng.random((*count, 1)) < 0.4
    saturation = np.where(grey, rng.uniform(0.0, 0.15, grey.shape), rng.uniform(0.3, 0.85, grey.shape))
    pure = np.clip(np.abs((6 * hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return value * (1 - saturation + saturation * pure)


def _sample_between(rng: np.random.Generator, colours: np.ndarray) -> np.ndarray:
    """A random colour (3,) between two neighbours of a scale of colours (n, 3)."""
    low, share = divmod(rng.uniform(0, len(colours) - 1), 1)
    return colours[int(low)] * (1 - share) + colours[int(low) + 1] * share
