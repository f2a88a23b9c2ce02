"""Procedural backgrounds: wide scenes, of which every image shows a crop."""

import colorsys
from collections.abc import Callable
from enum import IntEnum

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

VISIBLE, INFRARED, THERMAL = "visible", "infrared", "thermal"
# a scene is this much higher and wider than an image
MARGIN, BREADTH = 1.15, 5.0


class Material(IntEnum):
    """What a background is made of."""

    WALL = 0
    TRIM = 1
    FLOOR = 2
    TILE = 3
    GLASS = 4
    METAL = 5
    LEAVES = 6
    GRASS = 7
    SKY = 8
    WOOD = 9


def draw_scene(kind: str, modality: str, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A scene of one of `SCENES` as (1.15 H, 5 W, 3) floats in [0, 1], for images of `size` (H, W).

    Infrared and thermal scenes have three equal channels.
    """
    height, width = round(size[0] * MARGIN), round(size[1] * BREADTH)
    image = Image.new("RGB", (2 * width, 2 * height), (Material.WALL, 230, 0))
    SCENES[kind](ImageDraw.Draw(image), 2 * height, 2 * width, rng)
    material, shade, _ = image.split()
    shade = np.asarray(shade.filter(ImageFilter.GaussianBlur(1)), dtype=np.float32)[..., None] / 255
    tones = _palette(modality, rng)[np.asarray(material)] * shade
    tones = tones.reshape(height, 2, width, 2, 3).mean(axis=(1, 3))
    texture = sum(
        strength * _noise(rng, (height, width), cell) for strength, cell in ((0.05, 2), (0.05, 9), (0.09, 40))
    )
    return np.clip(tones * (1 + texture[..., None]), 0, 1).astype(np.float32)


def _palette(modality: str, rng: np.random.Generator) -> np.ndarray:
    """(materials, 3): drawn anew for each scene and modality."""
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
        # foliage reflects near-infrared strongly; a sky at night reflects nothing
        levels[[Material.LEAVES, Material.GRASS]] = rng.uniform(0.5, 0.75, 2)
        levels[[Material.SKY, Material.GLASS]] = rng.uniform(0.05, 0.2, 2)
    else:
        levels = rng.uniform(0.12, 0.3, materials)
        levels[Material.SKY] = 0.04
        levels[Material.LEAVES] = rng.uniform(0.1, 0.2)
    return np.repeat(levels[:, None], 3, axis=1)


def _noise(rng: np.random.Generator, shape: tuple[int, int], cell: int) -> np.ndarray:
    coarse = rng.standard_normal((shape[0] // cell + 2, shape[1] // cell + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BILINEAR))


def _floor(draw: ImageDraw.ImageDraw, height: int, width: int, horizon: float, material: Material) -> None:
    top = int(horizon * height)
    for row in range(top, height):
        near = (row - top) / (height - top)
        draw.line((0, row, width, row), fill=(material, int(165 + 80 * near), 0))


def _tiles(draw: ImageDraw.ImageDraw, height: int, width: int, horizon: float, rng: np.random.Generator) -> None:
    top, centre, pitch = horizon * height, width * rng.uniform(0.3, 0.7), height * rng.uniform(0.12, 0.25)
    for index in range(-40, 41):
        draw.line((centre + index * pitch, top, centre + index * pitch * 2.2, height), fill=(Material.TILE, 200, 0))
    for depth in (0.08, 0.2, 0.38, 0.62, 0.9):
        row = top + depth * (height - top)
        draw.line((0, row, width, row), fill=(Material.TILE, 200, 0))


def _repeat(width: int, pitch: float, rng: np.random.Generator) -> np.ndarray:
    return np.arange(-rng.uniform(0, pitch), width, pitch)


def _corridor(draw: ImageDraw.ImageDraw, height: int, width: int, rng: np.random.Generator) -> None:
    horizon = rng.uniform(0.66, 0.76)
    draw.rectangle((0, 0, width, 0.07 * height), fill=(Material.SKY, 235, 0))
    draw.rectangle((0, (horizon - 0.05) * height, width, horizon * height), fill=(Material.TRIM, 190, 0))
    for left in _repeat(width, height * rng.uniform(0.55, 0.85), rng):
        right, top = left + 0.3 * height, rng.uniform(0.14, 0.18) * height
        draw.rectangle((left - 5, top - 5, right + 5, horizon * height), fill=(Material.TRIM, 215, 0))
        draw.rectangle((left, top, right, horizon * height), fill=(Material.WOOD, 235, 0))
        draw.rectangle((left + 0.2 * height, 0.24 * height, right - 8, 0.42 * height), fill=(Material.GLASS, 225, 0))
        draw.ellipse((left + 6, 0.45 * height, left + 13, 0.45 * height + 7), fill=(Material.METAL, 250, 0))
    _floor(draw, height, width, horizon, Material.FLOOR)
    _tiles(draw, height, width, horizon, rng)


def _lobby(draw: ImageDraw.ImageDraw, height: int, width: int, rng: np.random.Generator) -> None:
    horizon = rng.uniform(0.6, 0.72)
    for left in _repeat(width, 0.42 * height, rng):
        draw.rectangle(
            (left, 0.08 * height, left + 0.37 * height, (horizon - 0.1) * height), fill=(Material.GLASS, 240, 0)
        )
        draw.line(
            (left + 0.18 * height, 0.08 * height, left + 0.18 * height, (horizon - 0.1) * height),
            fill=(Material.METAL, 220, 0),
            width=4,
        )
    _floor(draw, height, width, horizon, Material.FLOOR)
    _tiles(draw, height, width, horizon, rng)
    for left in _repeat(width, height * rng.uniform(1.0, 1.4), rng):
        for share, shade in ((1.0, 170), (0.7, 215), (0.4, 250)):
            middle, half = left + 0.09 * height, 0.09 * height * share
            draw.rectangle((middle - half, 0, middle + half, (horizon + 0.06) * height), fill=(Material.TRIM, shade, 0))


def _room(draw: ImageDraw.ImageDraw, height: int, width: int, rng: np.random.Generator) -> None:
    horizon = rng.uniform(0.7, 0.78)
    for left in _repeat(width, height * rng.uniform(0.5, 0.7), rng):
        wide = rng.uniform(0.25, 0.45) * height
        top = rng.uniform(0.1, 0.45) * height
        draw.rectangle((left, top, left + wide, horizon * height), fill=(Material.WOOD, 225, 0))
        for shelf in np.arange(top, horizon * height, 0.09 * height):
            draw.rectangle((left + 5, shelf + 5, left + wide - 5, shelf + 0.07 * height), fill=(Material.TRIM, 170, 0))
    _floor(draw, height, width, horizon, Material.FLOOR)


def _street(draw: ImageDraw.ImageDraw, height: int, width: int, rng: np.random.Generator) -> None:
    horizon = rng.uniform(0.6, 0.7)
    pitch = height * rng.uniform(0.2, 0.3)
    for row in np.arange(0.02 * height, (horizon - 0.15) * height, pitch * 0.9):
        for left in _repeat(width, pitch, np.random.default_rng(int(pitch))):
            draw.rectangle((left, row, left + 0.6 * pitch, row + 0.6 * pitch), fill=(Material.TRIM, 220, 0))
            draw.rectangle(
                (left + 4, row + 4, left + 0.6 * pitch - 4, row + 0.6 * pitch), fill=(Material.GLASS, 235, 0)
            )
    _floor(draw, height, width, horizon, Material.TILE)
    _floor(draw, height, width, horizon + 0.12, Material.FLOOR)
    for left in _repeat(width, height * rng.uniform(1.1, 1.6), rng):
        base = (horizon + 0.04) * height
        draw.rounded_rectangle(
            (left, base - 0.2 * height, left + 0.6 * height, base), 12, fill=(Material.METAL, 215, 0)
        )
        draw.rounded_rectangle(
            (left + 0.12 * height, base - 0.28 * height, left + 0.48 * height, base - 0.15 * height),
            10,
            fill=(Material.GLASS, 200, 0),
        )
        for wheel in (0.12, 0.46):
            x = left + wheel * height
            draw.ellipse(
                (x, base - 0.05 * height, x + 0.09 * height, base + 0.04 * height), fill=(Material.METAL, 70, 0)
            )


def _park(draw: ImageDraw.ImageDraw, height: int, width: int, rng: np.random.Generator) -> None:
    horizon = rng.uniform(0.52, 0.64)
    draw.rectangle((0, 0, width, horizon * height), fill=(Material.SKY, 235, 0))
    _floor(draw, height, width, horizon, Material.GRASS)
    _floor(draw, height, width, horizon + 0.2, Material.FLOOR)
    for left in _repeat(width, height * rng.uniform(0.3, 0.45), rng):
        x = left + rng.uniform(-0.1, 0.1) * height
        base = (horizon + rng.uniform(0.0, 0.15)) * height
        draw.rectangle((x - 0.025 * height, 0.2 * height, x + 0.025 * height, base), fill=(Material.WOOD, 190, 0))
        for _ in range(16):
            across, down = x + rng.normal(0, 0.12) * height, rng.uniform(-0.02, 0.36) * height
            radius = rng.uniform(0.03, 0.09) * height
            draw.ellipse(
                (across - radius, down - radius, across + radius, down + radius),
                fill=(Material.LEAVES, int(rng.integers(150, 255)), 0),
            )


def _yard(draw: ImageDraw.ImageDraw, height: int, width: int, rng: np.random.Generator) -> None:
    horizon = rng.uniform(0.62, 0.72)
    draw.rectangle((0, 0, width, 0.18 * height), fill=(Material.SKY, 220, 0))
    brick = 0.05 * height
    for index, row in enumerate(np.arange(0.2 * height, horizon * height, brick)):
        for left in np.arange(-(index % 2) * brick, width, 2 * brick):
            draw.rectangle(
                (left, row, left + 2 * brick - 2, row + brick - 2), fill=(Material.WALL, int(rng.integers(190, 245)), 0)
            )
    for left in _repeat(width, height * rng.uniform(0.7, 1.0), rng):
        for _ in range(9):
            x, y = left + rng.normal(0, 0.08) * height, (horizon - rng.uniform(0.0, 0.2)) * height
            radius = rng.uniform(0.03, 0.07) * height
            draw.ellipse(
                (x - radius, y - radius, x + radius, y + radius),
                fill=(Material.LEAVES, int(rng.integers(140, 250)), 0),
            )
    _floor(draw, height, width, horizon, Material.FLOOR)
    for left in _repeat(width, 0.14 * height, rng):
        draw.line(
            (left, (horizon - 0.22) * height, left, (horizon + 0.03) * height), fill=(Material.METAL, 200, 0), width=4
        )
    draw.line((0, (horizon - 0.2) * height, width, (horizon - 0.2) * height), fill=(Material.METAL, 230, 0), width=6)


SCENES: dict[str, Callable[[ImageDraw.ImageDraw, int, int, np.random.Generator], None]] = {
    "corridor": _corridor,
    "lobby": _lobby,
    "room": _room,
    "street": _street,
    "park": _park,
    "yard": _yard,
}
