"""Procedural backgrounds: wide scenes, of which each image shows a crop."""

import colorsys
from collections.abc import Callable
from enum import IntEnum

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tools.synthetic.modality import INFRARED, VISIBLE

# a scene is this many times as high and wide as an image
_HEIGHT, _WIDTH = 1.15, 5.0
# (strength, size in pixels) of random blotches
_TEXTURES = ((0.05, 2), (0.05, 9), (0.09, 40))


class Material(IntEnum):
    """What a background is made of."""

    WALL, TRIM, FLOOR, TILE, GLASS, METAL, LEAVES, GRASS, SKY, WOOD = range(10)


def draw_scene(kind: str, modality: str, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw one of ``SCENES`` for images of ``size`` (H, W): (1.15 H, 5 W, 3) floats in [0, 1].

    The channels of infrared and thermal scenes are equal.
    """
    height, width = round(size[0] * _HEIGHT), round(size[1] * _WIDTH)
    drawing = _Drawing(2 * height, 2 * width, rng)
    SCENES[kind](drawing)
    material, shade, _ = drawing.image.split()
    light = np.asarray(shade.filter(ImageFilter.GaussianBlur(1)), dtype=np.float32)[..., None] / 255
    tones = _sample_tones(modality, rng)[np.asarray(material)] * light
    tones = tones.reshape(height, 2, width, 2, 3).mean(axis=(1, 3))
    texture = np.zeros((height, width), dtype=np.float32)
    for strength, cell in _TEXTURES:
        texture += strength * _noise(rng, (height, width), cell)
    return np.clip(tones * (1 + texture[..., None]), 0, 1).astype(np.float32)


def _sample_tones(modality: str, rng: np.random.Generator) -> np.ndarray:
    """The tone of each material, (10, 3); sampled anew for each scene and modality."""
    materials = len(Material)
    if modality == VISIBLE:
        hsv = np.stack(
            [rng.random(materials), rng.uniform(0.02, 0.2, materials), rng.uniform(0.3, 0.8, materials)], axis=1
        )
        hsv[Material.LEAVES] = rng.uniform(0.24, 0.36), rng.uniform(0.35, 0.6), rng.uniform(0.22, 0.45)
        hsv[Material.GRASS] = rng.uniform(0.2, 0.33), rng.uniform(0.3, 0.5), rng.uniform(0.35, 0.55)
        hsv[Material.SKY] = rng.uniform(0.55, 0.62), rng.uniform(0.05, 0.3), rng.uniform(0.8, 0.95)
        hsv[Material.WOOD] = rng.uniform(0.05, 0.1), rng.uniform(0.3, 0.5), rng.uniform(0.25, 0.5)
        hsv[Material.GLASS, 2] = rng.uniform(0.15, 0.85)
        return np.array([colorsys.hsv_to_rgb(*row) for row in hsv])
    if modality == INFRARED:
        levels = rng.uniform(0.2, 0.7, materials)
        # leaves reflect much near-infrared light; a sky at night reflects none
        levels[[Material.LEAVES, Material.GRASS]] = rng.uniform(0.5, 0.75, 2)
        levels[[Material.SKY, Material.GLASS]] = rng.uniform(0.05, 0.2, 2)
    else:
        levels = rng.uniform(0.12, 0.3, materials)
        levels[Material.SKY] = 0.04
        levels[Material.LEAVES] = rng.uniform(0.1, 0.2)
    return np.repeat(levels[:, None], 3, axis=1)


def _noise(rng: np.random.Generator, shape: tuple[int, int], cell: int) -> np.ndarray:
    """Smooth noise of ``shape`` (H, W) with blotches of ``cell`` pixels."""
    coarse = rng.standard_normal((shape[0] // cell + 2, shape[1] // cell + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BILINEAR))


class _Drawing:
    """Materials with shades (0 dark to 255 lit), drawn together; lengths are in pixels of the drawing."""

    def __init__(self, height: int, width: int, rng: np.random.Generator):
        self.height, self.width, self.rng = height, width, rng
        # materials in the first channel, shades in the second
        self.image = Image.new("RGB", (width, height), (Material.WALL, 230, 0))
        self.pen = ImageDraw.Draw(self.image)

    def box(self, left: float, top: float, right: float, bottom: float, material: Material, shade: int) -> None:
        self.pen.rectangle((left, top, right, bottom), fill=(material, shade, 0))

    def line(self, x0: float, y0: float, x1: float, y1: float, material: Material, shade: int, width: int = 1) -> None:
        self.pen.line((x0, y0, x1, y1), fill=(material, shade, 0), width=width)

    def disc(self, x: float, y: float, radius: float, material: Material, shade: int) -> None:
        self.pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(material, shade, 0))

    def floor(self, horizon: float, material: Material) -> None:
        """A floor from ``horizon``, a share of the height, to the bottom."""
        top = int(horizon * self.height)
        for row in range(top, self.height):
            near = (row - top) / (self.height - top)
            self.line(0, row, self.width, row, material, int(165 + 80 * near))

    def tiles(self, horizon: float) -> None:
        """Joints between the tiles of a floor."""
        h, rng = self.height, self.rng
        top, centre, pitch = horizon * h, self.width * rng.uniform(0.3, 0.7), h * rng.uniform(0.12, 0.25)
        for index in range(-40, 41):
            self.line(centre + index * pitch, top, centre + index * pitch * 2.2, h, Material.TILE, 200)
        for depth in (0.08, 0.2, 0.38, 0.62, 0.9):
            row = top + depth * (h - top)
            self.line(0, row, self.width, row, Material.TILE, 200)

    def repeat(self, pitch: float) -> np.ndarray:
        """The left ends of what is repeated along the scene, from a random start."""
        return np.arange(-self.rng.uniform(0, pitch), self.width, pitch)


def _corridor(scene: _Drawing) -> None:
    h, w, rng = scene.height, scene.width, scene.rng
    horizon = rng.uniform(0.66, 0.76)
    scene.box(0, 0, w, 0.07 * h, Material.SKY, 235)
    scene.box(0, (horizon - 0.05) * h, w, horizon * h, Material.TRIM, 190)
    for left in scene.repeat(h * rng.uniform(0.55, 0.85)):
        right, top = left + 0.3 * h, rng.uniform(0.14, 0.18) * h
        scene.box(left - 5, top - 5, right + 5, horizon * h, Material.TRIM, 215)
        scene.box(left, top, right, horizon * h, Material.WOOD, 235)
        scene.box(left + 0.2 * h, 0.24 * h, right - 8, 0.42 * h, Material.GLASS, 225)
        scene.pen.ellipse((left + 6, 0.45 * h, left + 13, 0.45 * h + 7), fill=(Material.METAL, 250, 0))
    scene.floor(horizon, Material.FLOOR)
    scene.tiles(horizon)


def _lobby(scene: _Drawing) -> None:
    h, rng = scene.height, scene.rng
    horizon = rng.uniform(0.6, 0.72)
    sill = (horizon - 0.1) * h
    for left in scene.repeat(0.42 * h):
        scene.box(left, 0.08 * h, left + 0.37 * h, sill, Material.GLASS, 240)
        scene.line(left + 0.18 * h, 0.08 * h, left + 0.18 * h, sill, Material.METAL, 220, width=4)
    scene.floor(horizon, Material.FLOOR)
    scene.tiles(horizon)
    for left in scene.repeat(h * rng.uniform(1.0, 1.4)):
        for share, shade in ((1.0, 170), (0.7, 215), (0.4, 250)):
            middle, half = left + 0.09 * h, 0.09 * h * share
            scene.box(middle - half, 0, middle + half, (horizon + 0.06) * h, Material.TRIM, shade)


def _room(scene: _Drawing) -> None:
    h, rng = scene.height, scene.rng
    horizon = rng.uniform(0.7, 0.78)
    for left in scene.repeat(h * rng.uniform(0.5, 0.7)):
        wide, top = rng.uniform(0.25, 0.45) * h, rng.uniform(0.1, 0.45) * h
        scene.box(left, top, left + wide, horizon * h, Material.WOOD, 225)
        for shelf in np.arange(top, horizon * h, 0.09 * h):
            scene.box(left + 5, shelf + 5, left + wide - 5, shelf + 0.07 * h, Material.TRIM, 170)
    scene.floor(horizon, Material.FLOOR)


def _street(scene: _Drawing) -> None:
    h, w, rng = scene.height, scene.width, scene.rng
    horizon = rng.uniform(0.6, 0.7)
    pitch = h * rng.uniform(0.2, 0.3)
    pane = 0.6 * pitch
    # windows stand one above the other
    columns = np.arange(-np.random.default_rng(int(pitch)).uniform(0, pitch), w, pitch)
    for row in np.arange(0.02 * h, (horizon - 0.15) * h, pitch * 0.9):
        for left in columns:
            scene.box(left, row, left + pane, row + pane, Material.TRIM, 220)
            scene.box(left + 4, row + 4, left + pane - 4, row + pane, Material.GLASS, 235)
    scene.floor(horizon, Material.TILE)
    scene.floor(horizon + 0.12, Material.FLOOR)
    base = (horizon + 0.04) * h
    for left in scene.repeat(h * rng.uniform(1.1, 1.6)):
        _car(scene, left, base)


def _car(scene: _Drawing, left: float, base: float) -> None:
    h, pen = scene.height, scene.pen
    pen.rounded_rectangle((left, base - 0.2 * h, left + 0.6 * h, base), 12, fill=(Material.METAL, 215, 0))
    windows = (left + 0.12 * h, base - 0.28 * h, left + 0.48 * h, base - 0.15 * h)
    pen.rounded_rectangle(windows, 10, fill=(Material.GLASS, 200, 0))
    for wheel in (0.12, 0.46):
        x = left + wheel * h
        pen.ellipse((x, base - 0.05 * h, x + 0.09 * h, base + 0.04 * h), fill=(Material.METAL, 70, 0))


def _park(scene: _Drawing) -> None:
    h, w, rng = scene.height, scene.width, scene.rng
    horizon = rng.uniform(0.52, 0.64)
    scene.box(0, 0, w, horizon * h, Material.SKY, 235)
    scene.floor(horizon, Material.GRASS)
    scene.floor(horizon + 0.2, Material.FLOOR)
    for left in scene.repeat(h * rng.uniform(0.3, 0.45)):
        x = left + rng.uniform(-0.1, 0.1) * h
        base = (horizon + rng.uniform(0.0, 0.15)) * h
        scene.box(x - 0.025 * h, 0.2 * h, x + 0.025 * h, base, Material.WOOD, 190)
        for _ in range(16):
            across, down = x + rng.normal(0, 0.12) * h, rng.uniform(-0.02, 0.36) * h
            scene.disc(across, down, rng.uniform(0.03, 0.09) * h, Material.LEAVES, int(rng.integers(150, 255)))


def _yard(scene: _Drawing) -> None:
    h, w, rng = scene.height, scene.width, scene.rng
    horizon = rng.uniform(0.62, 0.72)
    scene.box(0, 0, w, 0.18 * h, Material.SKY, 220)
    brick = 0.05 * h
    for index, row in enumerate(np.arange(0.2 * h, horizon * h, brick)):
        for left in np.arange(-(index % 2) * brick, w, 2 * brick):
            shade = int(rng.integers(190, 245))
            scene.box(left, row, left + 2 * brick - 2, row + brick - 2, Material.WALL, shade)
    for left in scene.repeat(h * rng.uniform(0.7, 1.0)):
        for _ in range(9):
            x, y = left + rng.normal(0, 0.08) * h, (horizon - rng.uniform(0.0, 0.2)) * h
            scene.disc(x, y, rng.uniform(0.03, 0.07) * h, Material.LEAVES, int(rng.integers(140, 250)))
    scene.floor(horizon, Material.FLOOR)
    for left in scene.repeat(0.14 * h):
        scene.line(left, (horizon - 0.22) * h, left, (horizon + 0.03) * h, Material.METAL, 200, width=4)
    scene.line(0, (horizon - 0.2) * h, w, (horizon - 0.2) * h, Material.METAL, 230, width=6)


SCENES: dict[str, Callable[[_Drawing], None]] = {
    "corridor": _corridor,
    "lobby": _lobby,
    "room": _room,
    "street": _street,
    "park": _park,
    "yard": _yard,
}
