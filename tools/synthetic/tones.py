"""Tones of a person's regions: colour, near-infrared reflectance and temperature, each drawn on its own."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

LUMINANCE = np.array([0.299, 0.587, 0.114])


class Region(IntEnum):
    """Labels of a drawing: what is seen at a pixel."""

    BACKGROUND = 0
    SHADOW = 1
    SKIN = 2
    HAIR = 3
    HAT = 4
    UPPER = 5
    UPPER_ALT = 6
    INNER = 7
    LOWER = 8
    LOWER_ALT = 9
    SHOES = 10
    BAG = 11
    EYES = 12
    OBSTACLE = 13
    OBSTACLE_ALT = 14


@dataclass(frozen=True)
class Tones:
    """Tone of every region in [0, 1]: visible (15, 3), infrared and thermal (15,)."""

    visible: np.ndarray
    infrared: np.ndarray
    thermal: np.ndarray


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
_DRAWN = [
    Region.HAT,
    Region.UPPER,
    Region.UPPER_ALT,
    Region.INNER,
    Region.LOWER,
    Region.LOWER_ALT,
    Region.SHOES,
    Region.BAG,
]
# sets of tones drawn at once, of which the first that fits is taken
_CANDIDATES = 64
_SKINS = np.array([(0.96, 0.80, 0.69), (0.89, 0.68, 0.54), (0.76, 0.55, 0.40), (0.55, 0.36, 0.25), (0.35, 0.22, 0.16)])
_HAIRS = np.array([(0.07, 0.06, 0.06), (0.22, 0.14, 0.09), (0.42, 0.27, 0.15), (0.78, 0.64, 0.38), (0.62, 0.62, 0.62)])
_UPPER_WARMTH = {"vest": 0.8, "t-shirt": 0.76, "long sleeves": 0.66, "jacket": 0.5, "coat": 0.42, "hoodie": 0.56}
_LOWER_WARMTH = {
    "slim trousers": 0.68,
    "wide trousers": 0.56,
    "shorts": 0.66,
    "knee skirt": 0.54,
    "long skirt": 0.48,
}


def draw_tones(seeds: list[np.random.SeedSequence], upper: str, lower: str) -> Tones:
    """Draws the tones of one identity from three seeds: visible, infrared, thermal.

    No draw sees another's, so visible and infrared tones are independent; thermal ones follow the thickness of the
    garments `upper` and `lower`, as they do in life.
    """
    visible, infrared, thermal = (np.random.default_rng(seed) for seed in seeds)
    return Tones(_draw_visible(visible), _draw_infrared(infrared), _draw_thermal(thermal, upper, lower))


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Luminance of colours: (..., 3) -> (...)."""
    return rgb @ LUMINANCE


def _first_contrasting(candidates: np.ndarray, levels: np.ndarray) -> np.ndarray | None:
    """The first of candidates (n, regions, channels), with their levels (n, regions), that shows cut and pattern."""
    fits = np.ones(len(candidates), dtype=bool)
    for a, b, least in _CONTRASTS:
        fits &= np.abs(levels[:, a] - levels[:, b]) >= least
    for region in (Region.UPPER, Region.LOWER):
        fits &= np.abs(candidates[:, region] - candidates[:, Region.SKIN]).max(axis=-1) >= _SKIN_CONTRAST
    return candidates[fits.argmax()] if fits.any() else None


def _draw_colours(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random colours of cloth, (*shape, 3): some grey, most coloured."""
    hue, value = rng.random((*shape, 1)), rng.uniform(0.1, 0.97, (*shape, 1))
    grey = rng.random((*shape, 1)) < 0.4
    saturation = np.where(grey, rng.uniform(0.0, 0.15, grey.shape), rng.uniform(0.3, 0.85, grey.shape))
    pure = np.clip(np.abs((6 * hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return value * (1 - saturation + saturation * pure)


def _draw_visible(rng: np.random.Generator) -> np.ndarray:
    candidates = np.zeros((_CANDIDATES, len(Region), 3))
    candidates[:, Region.SKIN] = _between(rng, _SKINS)
    candidates[:, Region.HAIR] = _between(rng, _HAIRS)
    candidates[:, Region.EYES] = candidates[:, Region.SKIN] * 0.3
    tones = None
    while tones is None:
        candidates[:, _DRAWN] = _draw_colours(rng, (_CANDIDATES, len(_DRAWN)))
        tones = _first_contrasting(candidates, luminance(candidates))
    return tones.astype(np.float32)


def _draw_infrared(rng: np.random.Generator) -> np.ndarray:
    candidates = np.zeros((_CANDIDATES, len(Region), 1))
    candidates[:, Region.SKIN] = rng.uniform(0.86, 0.96)
    candidates[:, Region.HAIR] = rng.uniform(0.12, 0.6)
    candidates[:, Region.EYES] = 0.35
    tones = None
    while tones is None:
        candidates[:, _DRAWN] = rng.uniform(0.08, 0.82, (_CANDIDATES, len(_DRAWN), 1))
        tones = _first_contrasting(candidates, candidates[..., 0])
    return tones[:, 0].astype(np.float32)


def _draw_thermal(rng: np.random.Generator, upper_garment: str, lower_garment: str) -> np.ndarray:
    tones = np.zeros(len(Region))
    upper = _UPPER_WARMTH[upper_garment] + rng.uniform(-0.06, 0.06)
    lower = _LOWER_WARMTH[lower_garment] + rng.uniform(-0.06, 0.06)
    tones[Region.SKIN] = rng.uniform(0.92, 0.98)
    tones[Region.HAIR] = rng.uniform(0.42, 0.55)
    tones[Region.HAT] = rng.uniform(0.36, 0.48)
    tones[Region.EYES] = 0.98
    # a printed pattern changes emission a little, never enough to read it from afar
    tones[Region.UPPER], tones[Region.UPPER_ALT] = upper, upper + rng.choice([-0.05, 0.05])
    tones[Region.LOWER], tones[Region.LOWER_ALT] = lower, lower + rng.choice([-0.05, 0.05])
    tones[Region.INNER] = max(0.76, upper + 0.15)
    tones[Region.SHOES] = rng.uniform(0.3, 0.42)
    tones[Region.BAG] = rng.uniform(0.2, 0.3)
    return tones.astype(np.float32)


def _between(rng: np.random.Generator, scale: np.ndarray) -> np.ndarray:
    """A random point on the polyline through `scale` (n, 3)."""
    low, share = divmod(rng.uniform(0, len(scale) - 1), 1)
    return scale[int(low)] * (1 - share) + scale[int(low) + 1] * share
