"""Garment patterns: which pixels of a garment have its second tone."""

import numpy as np

from tools.synthetic.canvas import View
from tools.synthetic.skeleton import Body
from tools.synthetic.tones import Region


def add_patterns(labels: np.ndarray, body: Body, view: View) -> np.ndarray:
    """Give patterned garments their second tone: region labels (2H, 2W) -> (2H, 2W)."""
    height, width = labels.shape
    y = ((np.arange(height, dtype=np.float32) + 0.5 - view.top) / view.height)[:, None]
    x = ((np.arange(width, dtype=np.float32) + 0.5 - view.centre) / view.width - 0.35 * body.pose.lean)[None, :]
    x = x / (1.0 - 0.25 * abs(body.turn))
    patterned = labels.copy()
    if body.person.pattern in _UPPER:
        patterned[(labels == Region.UPPER) & _UPPER[body.person.pattern](x, y - 0.19)] = Region.UPPER_ALT
    if body.person.lower_pattern in _LOWER:
        patterned[(labels == Region.LOWER) & _LOWER[body.person.lower_pattern](x, y)] = Region.LOWER_ALT
    return patterned


def _stripes(along: np.ndarray, period: float) -> np.ndarray:
    return along % period < 0.5 * period


def _dots(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    row = np.floor(y / 0.07)
    across = (x + 0.0375 + 0.0375 * (row % 2)) % 0.075 - 0.0375
    return across**2 + (y % 0.07 - 0.035) ** 2 < 0.024**2


# Whether a point has the second tone. x (1, 2W) and y (2H, 1) are in body heights; x starts at the torso's middle, y at
# the shoulders (upper garments) or the crown (lower garments). Patterns without an entry are plain or drawn in body.py.
_UPPER = {
    "wide stripes": lambda x, y: _stripes(y, 0.14),
    "narrow stripes": lambda x, y: _stripes(y, 0.068),
    "vertical stripes": lambda x, y: _stripes(x + 0.0175, 0.07),
    "checks": lambda x, y: _stripes(y, 0.11) ^ _stripes(x + 0.0275, 0.11),
    "dots": _dots,
    "block": lambda x, y: (np.abs(x) < 0.062) & (np.abs(y - 0.09) < 0.05),
    "halves": lambda x, y: y > 0.135,
    "band": lambda x, y: np.abs(y - 0.09) < 0.035,
    "diagonal": lambda x, y: _stripes(y + x, 0.13),
}
_LOWER = {
    "bands": lambda x, y: _stripes(y - 0.55, 0.15),
    "checks": lambda x, y: _stripes(y - 0.5, 0.08) ^ _stripes(x + 0.02, 0.08),
}
