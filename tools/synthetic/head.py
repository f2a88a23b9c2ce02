"""Draws the head: hair or hat, and a hint of the face where it is turned to the camera."""

from typing import NamedTuple

from tools.synthetic.canvas import Canvas
from tools.synthetic.skeleton import Body
from tools.synthetic.tones import Region

_CENTRE, _ACROSS, _DOWN = 0.072, 0.05, 0.066


class _Skull(NamedTuple):
    """Centre and half axes of the head on the image, in body heights."""

    x: float
    y: float
    across: float
    down: float


def draw_hair_behind(canvas: Canvas, body: Body) -> None:
    """Hair that hangs behind the neck of a person who faces the camera."""
    size, hair = body.person.head, body.person.hair
    x, _ = body.project(0, _CENTRE, -0.02)
    if hair == "long":
        canvas.trunk([(0.04, x, 0.05 * size), (0.13, x, 0.074 * size), (0.255, x, 0.082 * size)], Region.HAIR)
    elif hair == "ponytail":
        _draw_ponytail(canvas, body)


def draw_head(canvas: Canvas, body: Body) -> None:
    """The head, over neck and collar."""
    hair = body.person.hair
    x, _ = body.project(0, _CENTRE, 0.012)
    across, down = _ACROSS * body.person.head, _DOWN * body.person.head
    skull = _Skull(x, 0.14 - down, across, down)
    if hair == "afro":
        canvas.ball(x - 0.01 * body.turn, skull.y - 0.016, across * 1.75, down * 1.42, Region.HAIR)
    elif hair in ("bob", "long"):
        _draw_curtain(canvas, body, skull)
    canvas.ball(*skull, Region.SKIN)
    if hair not in ("bald", "cap", "brim", "beanie"):
        _draw_scalp(canvas, body, skull)
    if body.facing > -0.2:
        _draw_face(canvas, body, skull)
    _draw_top(canvas, body, skull)


def _draw_scalp(canvas: Canvas, body: Body, skull: _Skull) -> None:
    """Hair over the skull, with the face or the nape left free."""
    x, y, across, down = skull
    size, turn = body.person.head, body.turn
    canvas.ball(x - 0.02 * turn * size, y - 0.01 * size, across * 1.06, down * 0.98, Region.HAIR)
    if body.facing > -0.35:
        narrow = across * (0.86 - 0.16 * abs(turn))
        canvas.ball(x + 0.017 * turn * size, y + 0.017 * size, narrow, down * 0.8, Region.SKIN)
        return
    canvas.ellipse(x, y + down * 0.85, across * 0.7, down * 0.3, Region.SKIN, 200)
    if body.person.hair in ("bob", "long"):
        _draw_curtain(canvas, body, skull)


def _draw_face(canvas: Canvas, body: Body, skull: _Skull) -> None:
    x, y, across, down = skull
    for side in (-1, 1):
        if side * body.turn < 0.75:
            eye = x + across * (side * 0.42 * body.facing + 0.62 * body.turn)
            canvas.ellipse(eye, y + 0.004, 0.007, 0.006, Region.EYES)
    mouth = x + across * 0.6 * body.turn
    canvas.ellipse(mouth, y + down * 0.52, 0.014 * max(body.facing, 0.4), 0.004, Region.EYES, 255)


def _draw_curtain(canvas: Canvas, body: Body, skull: _Skull) -> None:
    """A bob or long hair."""
    x, y, across, down = skull
    long = body.person.hair == "long"
    back = x - 0.03 * body.turn
    end = 0.255 if long else 0.165
    wide = across * (1.35 - 0.25 * abs(body.turn))
    if long and body.facing > 0.35:
        # two locks before the shoulders leave the chest free
        for side in (-1, 1):
            lock = x + side * across * 1.12 * body.facing
            canvas.limb([(lock, y, 0.026), (lock + side * 0.006, end - 0.02, 0.024)], Region.HAIR)
    else:
        canvas.trunk([(y, back, wide), (end - 0.02, back, wide * 1.06), (end, back, wide * 0.8)], Region.HAIR)
    canvas.ball(back, y - 0.004, wide, down * 1.1, Region.HAIR)
    if not long and body.facing > 0:
        canvas.limb([(x, 0.13, 0.028), (x, 0.165, 0.034)], Region.SKIN)


def _draw_ponytail(canvas: Canvas, body: Body) -> None:
    joints = [(0.0, 0.05, -0.055), (0.0, 0.12, -0.1), (0.0, 0.21, -0.085)]
    canvas.limb(body.tube(joints, [0.02, 0.03, 0.014]), Region.HAIR)


def _draw_top(canvas: Canvas, body: Body, skull: _Skull) -> None:
    """What lies over the scalp: a bun, a ponytail or a hat."""
    x, y, across, down = skull
    hair, turn = body.person.hair, body.turn
    if hair == "bun":
        canvas.ball(x - 0.03 * turn, y - down * 1.05, 0.034, 0.032, Region.HAIR)
    elif hair == "ponytail" and body.facing <= 0.2:
        _draw_ponytail(canvas, body)
    elif hair == "beanie":
        back = x - 0.006 * turn
        canvas.cap(back, y - down * 0.12, across * 1.14, down * 1.08, Region.HAT)
        canvas.ellipse(back, y - down * 1.18, 0.02, 0.018, Region.HAT, 200)
        canvas.ellipse(back, y - down * 0.16, across * 1.16, down * 0.16, Region.HAT, 190)
    elif hair == "cap":
        canvas.cap(x - 0.005 * turn, y - down * 0.2, across * 1.1, down * 0.86, Region.HAT)
        if body.facing > -0.5:
            visor = x + turn * across * 1.1
            canvas.ellipse(visor, y - down * 0.22, across * (0.95 - 0.15 * abs(turn)), 0.013, Region.HAT, 140)
    elif hair == "brim":
        canvas.cap(x, y - down * 0.25, across * 1.02, down * 0.95, Region.HAT)
        canvas.ellipse(x, y - down * 0.28, across * 2.1, 0.02, Region.HAT, 185)
