"""Renders one image: a person in a random pose, before a crop of the camera's scene, seen through the camera."""

from math import pi

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tools.synthetic.body import draw_body
from tools.synthetic.camera import Camera
from tools.synthetic.canvas import SUPERSAMPLING, Canvas, View
from tools.synthetic.modality import THERMAL
from tools.synthetic.patterns import add_patterns
from tools.synthetic.person import Person
from tools.synthetic.skeleton import Body, Pose
from tools.synthetic.tones import Region

# yaws, and how often each occurs
_YAWS, _YAW_SHARES = (0.0, pi, 0.5 * pi, -0.5 * pi), (0.5, 0.28, 0.11, 0.11)
OCCLUDED_SHARE = 0.1
_OPACITY = np.full(len(Region), 255, dtype=np.uint8)
_OPACITY[Region.BACKGROUND], _OPACITY[Region.SHADOW] = 0, 90


def image_rng(seed: int, camera: int, identity: int, instance: int) -> np.random.Generator:
    """The random generator of one image; does not depend on what was rendered before."""
    return np.random.default_rng(np.random.SeedSequence((seed, camera, identity, instance)))


def render(person: Person, camera: Camera, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Render a person as ``camera`` sees it: an RGB image of ``size`` (H, W).

    Infrared and thermal images have three equal channels, as the real data sets store them.
    """
    labels, shade = _draw_regions(person, camera, size, rng)
    opacity = _downsample(_OPACITY[labels])
    # background and shadow are black, so the figure is already multiplied by its opacity
    figure = _downsample(_sample_palette(person, camera.modality, rng)[labels]) * shade * _sample_folds(size, rng)
    scene = _crop_scene(camera, size, rng)[..., : figure.shape[2]]
    return _expose(figure + scene * (1 - opacity), camera, rng)


def _downsample(pixels: np.ndarray) -> np.ndarray:
    """Average bytes down to the image's size: (2H, 2W) or (2H, 2W, C) -> floats (H, W, C) in [0, 1]."""
    reduced = np.asarray(Image.fromarray(pixels.squeeze()).reduce(SUPERSAMPLING), dtype=np.float32) / 255
    return reduced.reshape(*reduced.shape[:2], -1)


def _draw_regions(
    person: Person, camera: Camera, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Region labels (2H, 2W) and shades (H, W, 1) of the person and of what stands before it."""
    body = Body(person, _sample_pose(rng))
    canvas = Canvas(size, _sample_view(person, camera, size, rng))
    draw_body(canvas, body)
    if rng.random() < OCCLUDED_SHARE:
        _draw_obstacle(canvas.image, rng)
    labels, shade, _ = canvas.image.split()
    shades = _downsample(np.asarray(shade.filter(ImageFilter.BoxBlur(SUPERSAMPLING))))
    return add_patterns(np.asarray(labels), body, canvas.view), shades


def _sample_pose(rng: np.random.Generator) -> Pose:
    return Pose(
        yaw=rng.choice(_YAWS, p=_YAW_SHARES) + rng.normal(0, 0.2),
        phase=rng.uniform(0, 2 * pi),
        stride=rng.uniform(0.08, 0.45),
        abduction=rng.uniform(0.08, 0.24),
        elbow=rng.uniform(0.1, 0.7),
        lean=rng.normal(0, 0.025),
    )


def _sample_view(person: Person, camera: Camera, size: tuple[int, int], rng: np.random.Generator) -> View:
    height, width = (SUPERSAMPLING * side for side in size)
    zoom = camera.scale * rng.uniform(0.94, 1.06)
    # a detector's boxes follow the body, so only a part of its true height can be seen
    tall = height * min(zoom * camera.squash * (0.6 + 0.4 * person.stature), 0.98)
    soles = height * (0.5 + 0.5 * zoom + rng.normal(0, 0.015))
    return View(
        centre=width * (0.5 + rng.normal(0, 0.035)),
        top=min(soles, 0.985 * height) - tall,
        width=2 * width * zoom,
        height=tall,
        elevation=camera.elevation,
        light=camera.light_side,
    )


def _draw_obstacle(image: Image.Image, rng: np.random.Generator) -> None:
    """Draw a post, a box or a bush on the image of a canvas."""
    width, height = image.size
    kind, x = rng.integers(3), rng.uniform(0.1, 0.9) * width
    draw = ImageDraw.Draw(image)
    if kind == 0:
        half = rng.uniform(0.03, 0.07) * width
        draw.rectangle((x - half, 0, x + half, height), fill=(Region.OBSTACLE, 170, 0))
        draw.rectangle((x - 0.5 * half, 0, x + 0.5 * half, height), fill=(Region.OBSTACLE, 250, 0))
    elif kind == 1:
        top, half = rng.uniform(0.72, 0.86) * height, rng.uniform(0.25, 0.5) * width
        draw.rectangle((x - half, top, x + half, height), fill=(Region.OBSTACLE, 200, 0))
        draw.rectangle((x - half, top, x + half, top + 0.02 * height), fill=(Region.OBSTACLE, 255, 0))
    else:
        for _ in range(14):
            left, top = x + rng.normal(0, 0.16) * width, rng.uniform(0.72, 1.0) * height
            radius = rng.uniform(0.05, 0.11) * width
            shade = int(rng.integers(140, 255))
            box = (left - radius, top - radius, left + radius, top + radius)
            draw.ellipse(box, fill=(Region.OBSTACLE_ALT, shade, 0))


def _crop_scene(camera: Camera, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A random crop (H, W, 3) of one of the camera's scenes."""
    scene = camera.scenes[int(rng.integers(len(camera.scenes)))]
    top = int(rng.integers(scene.shape[0] - size[0] + 1))
    left = int(rng.integers(scene.shape[1] - size[1] + 1))
    return scene[top : top + size[0], left : left + size[1]]


def _sample_palette(person: Person, modality: str, rng: np.random.Generator) -> np.ndarray:
    """The tone of each region in this image, bytes (15, 3) or (15, 1)."""
    tones = person.tones[modality].copy()
    obstacles = rng.uniform(0.15, 0.3 if modality == THERMAL else 0.7, size=(2, 3))
    tones[Region.OBSTACLE :] = obstacles[:, : tones.shape[1]]
    if modality == THERMAL:
        # clothes are warmer some time after a person came in, colder outside
        tones[Region.HAIR :] *= rng.uniform(0.93, 1.05)
    return np.clip(255 * tones, 0, 255).astype(np.uint8)


def _sample_folds(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Soft creases, as a gain (H, W, 1)."""
    coarse = rng.normal(1, 0.06, (size[0] // 8 + 1, size[1] // 8 + 1)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))[..., None]


def _expose(image: np.ndarray, camera: Camera, rng: np.random.Generator) -> Image.Image:
    """Apply light, colour cast, gamma, blur and noise: floats (H, W, 1 or 3) -> image of bytes."""
    gain = rng.uniform(0.88, 1.12) if camera.modality != THERMAL else rng.uniform(0.95, 1.05)
    cast = camera.cast[: image.shape[2]] * np.float32(gain)
    exposed = np.clip(image * (camera.light * cast), 0, 1)
    pixels = Image.fromarray(camera.curve[(exposed * 255).astype(np.uint8)].squeeze())
    radius = camera.blur * image.shape[0] / 128
    if radius > 0:
        pixels = pixels.filter(ImageFilter.GaussianBlur(radius))
    noise = rng.standard_normal(image.shape, dtype=np.float32).squeeze() * np.float32(255 * camera.noise)
    return Image.fromarray(np.clip(np.asarray(pixels) + noise, 0, 255).astype(np.uint8)).convert("RGB")
