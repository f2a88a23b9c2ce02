"""Draws the head: hair or hat, and a hint of the face where it is turned to the camera."""

from __future__ import annotations

from math import cos, sin
from typing import TYPE_CHECKING

from .canvas import Canvas
from .tones import Region

if TYPE_CHECKING:
    from .body import Body

_CENTRE, _ACROSS, _DOWN = 0.072, 0.05, 0.066


def draw_hair_behind(canvas: Canvas, body: Body) -> None:
    """Hair that hangs behind the neck of a person who faces the camera."""
    size, hair = body.person.head, body.person.hair
    x, _ = body.project(0, _CENTRE, -0.02)
    if hair == "long":
        canvas.trunk([(0.04, x, 0.05 * size), (0.13, x, 0.074 * size), (0.255, x, 0.082 * size)], Region.HAIR)
    elif hair == "ponytail":
        _draw_ponytail(canvas, body)


def draw_head(canvas: Canvas, body: Body) -> None:
    """The head, above neck and collar."""
    person, yaw = body.person, body.pose.yaw
    size, hair = person.head, person.hair
    x, _ = body.project(0, _CENTRE, 0.012)
    across, down = _ACROSS * size, _DOWN * size
    centre = 0.14 - down
    turn, facing = sin(yaw), cos(yaw)
    covered = hair not in ("bald", "cap", "brim", "beanie")
    if hair == "afro":
        canvas.ball(x - 0.01 * turn, centre - 0.016, across * 1.75, down * 1.42, Region.HAIR)
    elif hair in ("bob", "long"):
        _draw_curtain(canvas, body, x, centre, across, down)
    canvas.ball(x, centre, across, down, Region.SKIN)
    if covered:
        back = x - 0.02 * turn * size
        canvas.ball(back, centre - 0.01 * size, across * 1.06, down * 0.98, Region.HAIR)
        if facing > -0.35:
            narrow = across * (0.86 - 0.16 * abs(turn))
            canvas.ball(x + 0.017 * turn * size, centre + 0.017 * size, narrow, down * 0.8, Region.SKIN)
        else:
            canvas.ellipse(x, centre + down * 0.85, across * 0.7, down * 0.3, Region.SKIN, 200)
            if hair in ("bob", "long"):
                _draw_curtain(canvas, body, x, centre, across, down)
    if facing > -0.2:
        for side in (-1, 1):
            if side * turn < 0.75:
                eye = x + across * (side * 0.42 * facing + 0.62 * turn)
                canvas.ellipse(eye, centre + 0.004, 0.007, 0.006, Region.EYES)
        mouth = x + across * 0.6 * turn
        canvas.ellipse(mouth, centre + down * 0.52, 0.014 * max(facing, 0.4), 0.004, Region.EYES, 255)
    _draw_top(canvas, body, x, centre, across, down)


def _draw_curtain(canvas: Canvas, body: Body, x: float, centre: float, across: float, down: float) -> None:
    turn, facing = sin(body.pose.yaw), cos(body.pose.yaw)
    back = x - 0.03 * turn
    end = 0.165 if body.person.hair == "bob" else 0.255
    wide = across * (1.35 - 0.25 * abs(turn))
    if facing > 0.35 and body.person.hair == "long":
        # two locks before the shoulders, the chest between them stays free
        for side in (-1, 1):
            lock = x + side * across * 1.12 * facing
            canvas.limb([(lock, centre, 0.026), (lock + side * 0.006, end - 0.02, 0.024)], Region.HAIR)
    else:
        canvas.trunk([(centre, back, wide), (end - 0.02, back, wide * 1.06), (end, back, wide * 0.8)], Region.HAIR)
    canvas.ball(back, centre - 0.004, wide, down * 1.1, Region.HAIR)
    if facing > 0 and body.person.hair == "bob":
        canvas.limb([(x, 0.13, 0.028), (x, 0.165, 0.034)], Region.SKIN)


def _draw_ponytail(canvas: Canvas, body: Body) -> None:
    tail = [(0.0, 0.05, -0.055), (0.0, 0.12, -0.1), (0.0, 0.21, -0.085)]
    joints = [(*body.project(*joint), radius) for joint, radius in zip(tail, (0.02, 0.03, 0.014), strict=True)]
    canvas.limb(joints, Region.HAIR)


def _draw_top(canvas: Canvas, body: Body, x: float, centre: float, across: float, down: float) -> None:
    hair, turn, facing = body.person.hair, sin(body.pose.yaw), cos(body.pose.yaw)
    if hair == "bun":
        canvas.ball(x - 0.03 * turn, centre - down * 1.05, 0.034, 0.032, Region.HAIR)
    elif hair == "ponytail" and facing <= 0.2:
        _draw_ponytail(canvas, body)
    elif hair == "beanie":
        canvas.cap(x - 0.006 * turn, centre - down * 0.12, across * 1.14, down * 1.08, Region.HAT)
        canvas.ellipse(x - 0.006 * turn, centre - down * 1.18, 0.02, 0.018, Region.HAT, 200)
        canvas.ellipse(x - 0.006 * turn, centre - down * 0.16, across * 1.16, down * 0.16, Region.HAT, 190)
    elif hair == "cap":
        canvas.cap(x - 0.005 * turn, centre - down * 0.2, across * 1.1, down * 0.86, Region.HAT)
        if facing > -0.5:
            visor = x + turn * across * 1.1
            canvas.ellipse(visor, centre - down * 0.22, across * (0.95 - 0.15 * abs(turn)), 0.013, Region.HAT, 140)
    elif hair == "brim":
        canvas.cap(x, centre - down * 0.25, across * 1.02, down * 0.95, Region.HAT)
        canvas.ellipse(x, centre - down * 0.28, across * 2.1, 0.02, Region.HAT, 185)
