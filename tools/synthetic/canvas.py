"""Draws labelled regions with shading, in units of the body.

Points are (x, y) in body heights: x to the right of the body's axis, y down from the crown (0) to the soles (1).
Shades are 0 (dark) to 255 (lit).
"""

from dataclasses import dataclass
from itertools import pairwise

from PIL import Image, ImageDraw

from tools.synthetic.tones import Region

SUPERSAMPLING = 2
_LIT, _EDGE = 250, 150


@dataclass(frozen=True)
class View:
    """Where a body stands on the canvas, and how the camera looks at it."""

    centre: float  # of the body, in pixels of the canvas
    top: float  # of the body, in pixels of the canvas
    width: float  # pixels per body height along x
    height: float  # pixels per body height along y
    elevation: float  # 0 to 0.4; enlarges what is near a raised camera
    light: float  # the side the light comes from, -1 (left) to 1 (right)


class Canvas:
    """A drawing for images of ``size`` (H, W): region labels and shades, (2H, 2W) each, drawn together."""

    def __init__(self, size: tuple[int, int], view: View):
        height, width = (SUPERSAMPLING * side for side in size)
        self.view = view
        # labels in the first channel, shades in the second
        self.image = Image.new("RGB", (width, height), (Region.BACKGROUND, 255, 0))
        self._draw = ImageDraw.Draw(self.image)

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point of the body."""
        view = self.view
        near = 1.0 + view.elevation * (0.5 - y)
        return view.centre + x * view.width * near, view.top + view.height * y * (1.0 + 0.5 * view.elevation * (1 - y))

    def polygon(self, points: list[tuple[float, float]], region: Region, shade: int = _LIT) -> None:
        """A filled polygon."""
        self._draw.polygon([self.pixel(x, y) for x, y in points], fill=(region, shade, 0))

    def ellipse(self, x: float, y: float, across: float, down: float, region: Region, shade: int = _LIT) -> None:
        """A filled ellipse around (x, y) with half axes ``across`` and ``down``."""
        self._draw.ellipse(self._box(x, y, across, down), fill=(region, shade, 0))

    def cap(self, x: float, y: float, across: float, down: float, region: Region, shade: int = _LIT) -> None:
        """The upper half of an ellipse."""
        self._draw.chord(self._box(x, y, across, down), 180, 360, fill=(region, shade, 0))

    def ball(self, x: float, y: float, across: float, down: float, region: Region) -> None:
        """An ellipse that is lit in the middle and dark at its edge."""
        self.ellipse(x, y, across, down, region, _EDGE + 30)
        self.ellipse(x + 0.2 * across * self.view.light, y, 0.75 * across, 0.8 * down, region)

    def limb(self, joints: list[tuple[float, float, float]], region: Region, *, cut: bool = False) -> None:
        """A tube through joints (x, y, radius), lit along its middle. Its ends are round, or the last one ``cut``."""
        for share, shade in ((1.0, _EDGE), (0.6, _LIT)):
            shift = 0.3 * self.view.light * (1.0 - share)
            tube = [(x + shift * radius, y, share * radius) for x, y, radius in joints]
            for (x0, y0, r0), (x1, y1, r1) in pairwise(tube):
                length = max(((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5, 1e-6)
                across, down = (y1 - y0) / length, (x0 - x1) / length
                right = [(x0 + r0 * across, y0 + r0 * down), (x1 + r1 * across, y1 + r1 * down)]
                left = [(x1 - r1 * across, y1 - r1 * down), (x0 - r0 * across, y0 - r0 * down)]
                self.polygon(right + left, region, shade)
            for x, y, radius in tube[:-1] if cut else tube:
                self.ellipse(x, y, radius, radius, region, shade)

    def trunk(self, rows: list[tuple[float, float, float]], region: Region) -> None:
        """A closed outline through rows (y, middle, half width) from top to bottom, lit along its middle."""
        for share, shade in ((1.0, _EDGE), (0.85, (_EDGE + _LIT) // 2), (0.66, _LIT)):
            shift = 0.5 * self.view.light * (1.0 - share)
            left = [(middle + (shift - share) * half, y) for y, middle, half in rows]
            right = [(middle + (shift + share) * half, y) for y, middle, half in rows]
            self.polygon(left + right[::-1], region, shade)

    def _box(self, x: float, y: float, across: float, down: float) -> tuple[float, float, float, float]:
        left, top = self.pixel(x, y)
        across, down = across * self.view.width, down * self.view.height
        return left - across, top - down, left + across, top + down
