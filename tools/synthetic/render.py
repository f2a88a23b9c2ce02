"""Renders one image: a person in a random pose, before a crop of the camera's scene, through the camera."""

from math import pi, sin

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .body import Pose, draw_body
from .camera import Camera
from .canvas import SUPERSAMPLING, Canvas, View
from .patterns import paint_patterns
from .person import Person
from .scenes import INFRARED, THERMAL, VISIBLE
from .tones import Region

_FACINGS = (0.0, pi, 0.5 * pi, -0.5 * pi)
_FACING_SHARES = (0.5, 0.28, 0.11, 0.11)
OCCLUDED_SHARE = 0.1
_OPACITY = np.full(256, 255, dtype=np.uint8)
_OPACITY[Region.BACKGROUND], _OPACITY[Region.SHADOW] = 0, 90


def image_rng(seed: int, camera: int, identity: int, instance: int) -> np.random.Generator:
    """The random generator of one image; it depends on nothing that was rendered before."""
    return np.random.default_rng(np.random.SeedSequence((seed, camera, identity, instance)))


def render(person: Person, camera: Camera, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Renders a person as `camera` sees it: an RGB image, or a single-channel one where it is not visible light."""
    labels, shade = _draw(person, camera, size, rng)
    opacity = _reduced(Image.fromarray(_OPACITY[np.asarray(labels)]))
    labels.putpalette(_tones(person, camera.modality, rng).tobytes())
    # tones of the background and of shadows are black, so that the figure comes out multiplied by its opacity
    figure = _reduced(labels.convert("RGB" if camera.modality == VISIBLE else "L")) * shade * _folds(size, rng)
    scene = _background(camera, size, rng)[..., : figure.shape[2]]
    return _expose(figure + scene * (1 - opacity), camera, rng)


def _reduced(image: Image.Image) -> np.ndarray:
    """Averages a drawing down to the image's size: floats (H, W, channels) in [0, 1]."""
    pixels = np.asarray(image.reduce(SUPERSAMPLING), dtype=np.float32) / 255
    return pixels.reshape(*pixels.shape[:2], -1)


def _draw(
    person: Person, camera: Camera, size: tuple[int, int], rng: np.random.Generator
) -> tuple[Image.Image, np.ndarray]:
    """Region labels (2H, 2W) and shading (H, W, 1) of the person and what stands before it."""
    pose = _pose(rng)
    view = _view(person, camera, size, rng)
    canvas = Canvas(size, view)
    draw_body(canvas, person, pose)
    labels, shade = canvas.bands()
    label_array = np.array(labels)
    paint_patterns(label_array, person, view, 0.35 * pose.lean, abs(sin(pose.yaw)))
    labels = Image.fromarray(label_array)
    _occlude(labels, shade, rng)
    return labels, _reduced(shade.filter(ImageFilter.BoxBlur(SUPERSAMPLING)))


def _pose(rng: np.random.Generator) -> Pose:
    return Pose(
        yaw=rng.choice(_FACINGS, p=_FACING_SHARES) + rng.normal(0, 0.2),
        phase=rng.uniform(0, 2 * pi),
        stride=rng.uniform(0.08, 0.45),
        abduction=rng.uniform(0.08, 0.24),
        elbow=rng.uniform(0.1, 0.7),
        lean=rng.normal(0, 0.025),
    )


def _view(person: Person, camera: Camera, size: tuple[int, int], rng: np.random.Generator) -> View:
    height, width = (SUPERSAMPLING * side for side in size)
    zoom = camera.scale * rng.uniform(0.94, 1.06)
    # boxes of a detector follow the body, so that its true height shows only in part
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


def _occlude(labels: Image.Image, shade: Image.Image, rng: np.random.Generator) -> None:
    """Now and then puts a post, a box or a bush before the person, in place."""
    if rng.random() >= OCCLUDED_SHARE:
        return
    width, height = labels.size
    kind, x = rng.integers(3), rng.uniform(0.1, 0.9) * width
    label, light = ImageDraw.Draw(labels), ImageDraw.Draw(shade)
    if kind == 0:
        half = rng.uniform(0.03, 0.07) * width
        label.rectangle((x - half, 0, x + half, height), fill=Region.OBSTACLE)
        light.rectangle((x - half, 0, x + half, height), fill=170)
        light.rectangle((x - 0.5 * half, 0, x + 0.5 * half, height), fill=250)
    elif kind == 1:
        top, half = rng.uniform(0.72, 0.86) * height, rng.uniform(0.25, 0.5) * width
        label.rectangle((x - half, top, x + half, height), fill=Region.OBSTACLE)
        light.rectangle((x - half, top, x + half, height), fill=200)
        light.rectangle((x - half, top, x + half, top + 0.02 * height), fill=255)
    else:
        for _ in range(14):
            left, top = x + rng.normal(0, 0.16) * width, rng.uniform(0.72, 1.0) * height
            radius = rng.uniform(0.05, 0.11) * width
            box = (left - radius, top - radius, left + radius, top + radius)
            label.ellipse(box, fill=Region.OBSTACLE_ALT)
            light.ellipse(box, fill=int(rng.integers(140, 255)))


def _background(camera: Camera, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    scene = camera.scenes[int(rng.integers(len(camera.scenes)))]
    top = int(rng.integers(scene.shape[0] - size[0] + 1))
    left = int(rng.integers(scene.shape[1] - size[1] + 1))
    return scene[top : top + size[0], left : left + size[1]]


def _tones(person: Person, modality: str, rng: np.random.Generator) -> np.ndarray:
    """The palette from region to tone, (256, 3) bytes."""
    tones = {VISIBLE: person.tones.visible, INFRARED: person.tones.infrared, THERMAL: person.tones.thermal}[modality]
    tones = tones.reshape(len(Region), -1).copy()
    obstacles = [Region.OBSTACLE, Region.OBSTACLE_ALT]
    tones[obstacles] = rng.uniform(0.15, 0.3 if modality == THERMAL else 0.7, size=(2, 3))[:, : tones.shape[1]]
    if modality == THERMAL:
        # clothes warm and cool as a person walks in and out
        tones[Region.HAIR :] *= rng.uniform(0.93, 1.05)
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(Region)] = np.clip(255 * tones, 0, 255)
    return palette


def _folds(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Soft creases, as a gain (H, W, 1)."""
    coarse = rng.normal(1, 0.06, (size[0] // 8 + 1, size[1] // 8 + 1)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))[..., None]


def _expose(image: np.ndarray, camera: Camera, rng: np.random.Generator) -> Image.Image:
    """Light, colour cast, gamma, blur, noise and 8 bits: (H, W, 1 or 3) -> image."""
    gain = rng.uniform(0.88, 1.12) if camera.modality != THERMAL else rng.uniform(0.95, 1.05)
    channels = image.shape[2]
    image = image * (camera.light * (camera.cast[:channels] * np.float32(gain)))
    np.clip(image, 0, 1, out=image)
    pixels = Image.fromarray(camera.curve[(image * 255).astype(np.uint8)].squeeze())
    radius = camera.blur * image.shape[0] / 128
    if radius > 0:
        pixels = pixels.filter(ImageFilter.GaussianBlur(radius))
    noise = rng.standard_normal(image.shape, dtype=np.float32).squeeze() * np.float32(255 * camera.noise)
    return Image.fromarray(np.clip(np.asarray(pixels) + noise, 0, 255).astype(np.uint8))
