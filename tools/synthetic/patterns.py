"""Garment patterns: which pixels of a garment take its second tone."""

import numpy as np

from .canvas import View
from .person import Person
from .tones import Region


def paint_patterns(labels: np.ndarray, person: Person, view: View, middle: float, turned: float) -> None:
    """Gives patterned garments their second tone, in place.

    `labels` (2H, 2W) is a drawing, `middle` the torso's offset from the body's axis in body heights and `turned`
    (0 … 1) how much of the torso's width is turned away from the camera.
    """
    height, width = labels.shape
    y = ((np.arange(height, dtype=np.float32) + 0.5 - view.top) / view.height)[:, None]
    x = ((np.arange(width, dtype=np.float32) + 0.5 - view.centre) / view.width - middle)[None, :]
    x = x / (1.0 - 0.25 * turned)
    upper = _upper(person.pattern, x, y)
    if upper is not None:
        labels[(labels == Region.UPPER) & upper] = Region.UPPER_ALT
    lower = _lower(person.lower_pattern, x, y)
    if lower is not None:
        labels[(labels == Region.LOWER) & lower] = Region.LOWER_ALT


def _stripes(along: np.ndarray, period: float, share: float = 0.5) -> np.ndarray:
    return along % period < share * period


def _upper(pattern: str, x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    from_shoulder = y - 0.19
    if pattern == "wide stripes":
        return _stripes(from_shoulder, 0.14)
    if pattern == "narrow stripes":
        return _stripes(from_shoulder, 0.068)
    if pattern == "vertical stripes":
        return _stripes(x + 0.0175, 0.07)
    if pattern == "checks":
        return _stripes(from_shoulder, 0.11) ^ _stripes(x + 0.0275, 0.11)
    if pattern == "dots":
        row = np.floor(from_shoulder / 0.07)
        across = (x + 0.0375 + 0.0375 * (row % 2)) % 0.075 - 0.0375
        return across**2 + (from_shoulder % 0.07 - 0.035) ** 2 < 0.024**2
    if pattern == "block":
        return (np.abs(x) < 0.062) & (np.abs(from_shoulder - 0.09) < 0.05)
    if pattern == "halves":
        return from_shoulder > 0.135
    if pattern == "band":
        return np.abs(from_shoulder - 0.09) < 0.035
    if pattern == "diagonal":
        return _stripes(from_shoulder + x, 0.13)
    return None


def _lower(pattern: str, x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    if pattern == "bands":
        return _stripes(y - 0.55, 0.15)
    if pattern == "checks":
        return _stripes(y - 0.5, 0.08) ^ _stripes(x + 0.02, 0.08)
    return None
