"""Draws a person in a pose on a canvas: far parts first, near parts over them."""

from collections.abc import Sequence

from tools.synthetic.canvas import Canvas
from tools.synthetic.head import draw_hair_behind, draw_head
from tools.synthetic.skeleton import Body, Point
from tools.synthetic.tones import Region

# how far an upper garment stands off the body, and its hem below the crotch, in body heights
_EASE = {"vest": 0.002, "t-shirt": 0.006, "long sleeves": 0.005, "jacket": 0.016, "coat": 0.02, "hoodie": 0.02}
_HEM = {"vest": -0.03, "t-shirt": 0.015, "long sleeves": -0.01, "jacket": 0.03, "coat": 0.25, "hoodie": 0.01}


def draw_body(canvas: Canvas, body: Body) -> None:
    """Draw a person with a shadow on the ground."""
    far, near = sorted((-1, 1), key=body.nearness)
    x, _ = body.project(0, 1, 0)
    canvas.ellipse(x, 0.985, 0.17, 0.022, Region.SHADOW)
    from_behind = body.facing < 0
    if not from_behind:
        _draw_backpack(canvas, body)
        draw_hair_behind(canvas, body)
    _draw_leg(canvas, body, far)
    _draw_leg(canvas, body, near)
    _draw_lower(canvas, body)
    # from the front or behind both arms are seen before the torso, from the side one is hidden by it
    from_side = abs(body.turn) > 0.5
    if from_side:
        _draw_arm(canvas, body, far)
    _draw_upper(canvas, body)
    if from_behind:
        draw_head(canvas, body)
        _draw_backpack(canvas, body)
        _draw_straps(canvas, body)
    else:
        _draw_straps(canvas, body)
        draw_head(canvas, body)
    if not from_side:
        _draw_arm(canvas, body, far)
    _draw_arm(canvas, body, near)


def _between(start: Point, end: Point, share: float) -> Point:
    x, y, z = (a + share * (b - a) for a, b in zip(start, end, strict=True))
    return x, y, z


def _draw_leg(canvas: Canvas, body: Body, side: int) -> None:
    person = body.person
    girth = 0.4 + 0.6 * person.build
    hip, knee, ankle, toe = body.leg(side)
    calf = _between(knee, ankle, 0.45)
    canvas.limb(body.tube([hip, knee, ankle], [0.056 * girth, 0.038 * girth, 0.024 * girth]), Region.SKIN)
    if person.shoes == "boots":
        canvas.limb(body.tube([calf, ankle], [0.036 * girth, 0.033 * girth]), Region.SHOES)
    canvas.limb(body.tube([ankle, toe], [0.025, 0.018]), Region.SHOES)
    if "trousers" in person.lower:
        ease = 0.003 if person.lower == "slim trousers" else 0.016
        wide = person.lower == "wide trousers"
        radii = [0.06 * girth + ease, 0.04 * girth + ease, (0.05 if wide else 0.028) * girth + ease]
        end = ankle if wide or person.shoes == "flat" else calf
        _draw_trouser_leg(canvas, body, side, [hip, knee, end], radii)
    elif person.lower == "shorts":
        hem = _between(hip, knee, 0.85)
        _draw_trouser_leg(canvas, body, side, [hip, hem], [0.06 * girth + 0.01, 0.056 * girth + 0.012])


def _draw_trouser_leg(canvas: Canvas, body: Body, side: int, joints: Sequence[Point], radii: Sequence[float]) -> None:
    canvas.limb(body.tube(joints, radii), Region.LOWER, cut=body.person.lower != "slim trousers")
    if body.person.lower_pattern == "seam" and body.nearness(side) > -0.5:
        outer = [(x + 0.62 * side * radius, y, z) for (x, y, z), radius in zip(joints, radii, strict=True)]
        canvas.limb(body.tube(outer, [0.26 * radius for radius in radii]), Region.LOWER_ALT, cut=True)


def _draw_lower(canvas: Canvas, body: Body) -> None:
    """A skirt, or the part of trousers above the legs."""
    garment, crotch, waist = body.person.lower, body.crotch, body.waist
    _, lateral, depth = body.torso(0.004, crotch)[-1]
    if "skirt" not in garment:
        profile = [(waist, lateral * 0.9, depth), (crotch - 0.02, lateral, depth), (crotch + 0.02, lateral, depth)]
        canvas.trunk(body.rows(profile), Region.LOWER)
        return
    hem, flare = (body.knee - 0.01, 0.055) if garment == "knee skirt" else (0.9, 0.06)
    end = (lateral + flare, depth + flare)
    profile = [(waist, lateral * 0.88, depth * 0.9), (crotch, lateral + 0.012, depth + 0.012), (hem, *end)]
    canvas.trunk(body.rows(profile), Region.LOWER)
    if body.person.lower_pattern == "seam":
        canvas.trunk(body.rows([(hem - 0.045, *end), (hem, *end)]), Region.LOWER_ALT)


def _draw_upper(canvas: Canvas, body: Body) -> None:
    garment, facing = body.person.upper, body.facing
    hem = body.crotch + _HEM[garment]
    rows = body.rows(body.torso(_EASE[garment], hem))
    neck, _ = body.project(0, 0.14, 0.005)
    canvas.limb([(neck, 0.12, 0.034), (neck, 0.165, 0.04)], Region.SKIN)
    canvas.trunk(rows, Region.UPPER)
    if garment == "vest" and abs(facing) > 0.4:
        canvas.ellipse(rows[0][1], 0.165, 0.052 * abs(facing), 0.035, Region.SKIN, 220)
    if garment in ("jacket", "coat") and facing > 0.15:
        opening = [(y, middle + 0.06 * body.turn, (0.026 + 0.02 * (y > 0.3)) * facing) for y, middle, _ in rows]
        end = min(hem, body.crotch + 0.02)
        canvas.trunk([row for row in opening if row[0] < end] + [(end, *opening[-1][1:])], Region.INNER)
    if garment == "hoodie":
        _draw_hood_and_pocket(canvas, body)


def _draw_hood_and_pocket(canvas: Canvas, body: Body) -> None:
    facing, crotch = body.facing, body.crotch
    x, _ = body.project(0, 0.15, -0.035)
    canvas.ball(x, 0.152, 0.078 + 0.012 * abs(facing), 0.034 if facing > 0 else 0.06, Region.UPPER)
    if facing > 0.3:
        x, _ = body.project(0, crotch - 0.1, 0.06)
        bottom, top = 0.07 * facing, 0.045 * facing
        left = [(x - bottom, crotch - 0.05), (x - top, crotch - 0.13)]
        right = [(x + top, crotch - 0.13), (x + bottom, crotch - 0.05)]
        canvas.polygon(left + right, Region.UPPER, 175)


def _draw_arm(canvas: Canvas, body: Body, side: int) -> None:
    person, garment = body.person, body.person.upper
    girth = 0.5 + 0.5 * person.build
    shoulder, elbow, wrist = body.arm(side)
    x, y = body.project(wrist[0], wrist[1] + 0.018, wrist[2] + 0.006)
    if person.bag == "handbag" and side == person.bag_side:
        canvas.limb([(x, y, 0.007), (x, y + 0.075, 0.007)], Region.BAG)
        across = 0.05 + 0.035 * abs(body.turn)
        canvas.trunk([(y + 0.055, x, across * 0.85), (y + 0.16, x, across)], Region.BAG)
    canvas.limb(body.tube([shoulder, elbow, wrist], [0.029 * girth, 0.025 * girth, 0.018 * girth]), Region.SKIN)
    canvas.ball(x, y, 0.02, 0.026, Region.SKIN)
    sleeve = Region.UPPER_ALT if person.pattern == "contrast sleeves" else Region.UPPER
    ease = 0.6 * _EASE[garment]
    if garment == "t-shirt":
        joints = [shoulder, _between(shoulder, elbow, 0.62)]
        canvas.limb(body.tube(joints, [0.034 * girth + ease, 0.038 * girth + ease]), sleeve, cut=True)
    elif garment != "vest":
        radii = [0.031 * girth + ease, 0.028 * girth + ease, 0.022 * girth + ease]
        canvas.limb(body.tube([shoulder, elbow, wrist], radii), sleeve)


def _draw_backpack(canvas: Canvas, body: Body) -> None:
    if body.person.bag != "backpack":
        return
    lateral, depth = 0.098, 0.055
    x, _ = body.project(0, 0.3, -(0.065 * body.person.build + depth))
    half = body.half_width(lateral, depth)
    rows = [(0.175, half * 0.6), (0.2, half * 0.95), (0.3, half * 1.05), (0.4, half * 1.05), (0.425, half * 0.8)]
    canvas.trunk([(y, x, width) for y, width in rows], Region.BAG)


def _draw_straps(canvas: Canvas, body: Body) -> None:
    """The straps of a backpack, or a cross-body bag with its strap."""
    person = body.person
    if person.bag == "backpack" and body.facing > -0.3:
        for side in (-1, 1):
            if body.nearness(side) > -0.8:
                joints = [(side * 0.065, 0.165, 0.02), (side * 0.072, 0.25, 0.06), (side * 0.085, 0.36, 0.02)]
                canvas.limb(body.tube(joints, [0.012] * 3), Region.BAG)
    if person.bag == "cross-body":
        shoulder, hip = person.bag_side, -person.bag_side
        front = 1 if body.facing > 0 else -1
        end = (hip * 0.105 * person.hips, body.crotch - 0.03, 0.03 * front)
        joints = [(shoulder * 0.07, 0.16, 0.0), (0, 0.3, 0.06 * front), end]
        canvas.limb(body.tube(joints, [0.011] * 3), Region.BAG)
        if body.nearness(hip) > -0.6:
            x, y = body.project(*end)
            across = 0.045 + 0.03 * abs(body.turn)
            canvas.trunk([(y - 0.03, x, across * 0.9), (y + 0.08, x, across)], Region.BAG)
