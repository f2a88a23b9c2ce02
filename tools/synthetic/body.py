"""Draws a person in a pose as labelled regions: joints in three dimensions, projected, far parts first."""

from dataclasses import dataclass
from math import cos, hypot, sin

from .canvas import Canvas
from .head import draw_hair_behind, draw_head
from .person import Person
from .tones import Region

_SHOULDER, _KNEE_SHARE = 0.175, 0.52
# how far a garment stands off the body and where it ends, relative to the crotch or (coat) as a share of the legs
_EASE = {"vest": 0.002, "t-shirt": 0.006, "long sleeves": 0.005, "jacket": 0.016, "coat": 0.02, "hoodie": 0.02}
_HEM = {"vest": -0.03, "t-shirt": 0.015, "long sleeves": -0.01, "jacket": 0.03, "coat": 0.25, "hoodie": 0.01}
_SHORT_SLEEVE = 0.62
_STEP = {"knee skirt": 0.8, "long skirt": 0.35, "coat": 0.75}


@dataclass(frozen=True)
class Pose:
    """`yaw` in radians (0 faces the camera, positive to the right of the image), `phase` of the walk in radians,
    `stride` and arm angles in radians, `lean` in body heights."""

    yaw: float
    phase: float
    stride: float = 0.35
    abduction: float = 0.15
    elbow: float = 0.3
    lean: float = 0.0


@dataclass(frozen=True)
class Body:
    """A person's measures in a pose, in body heights."""

    person: Person
    pose: Pose

    @property
    def crotch(self) -> float:
        return 1.0 - self.person.legs

    @property
    def knee(self) -> float:
        return self.crotch + _KNEE_SHARE * (0.95 - self.crotch)

    @property
    def stride(self) -> float:
        """Swing of the legs in radians; a long hem shortens the step."""
        return self.pose.stride * _STEP.get(self.person.lower, 1.0) * _STEP.get(self.person.upper, 1.0)

    def project(self, lateral: float, y: float, forward: float) -> tuple[float, float]:
        """(x, y) of a point given sideways (the person's left is positive), down and forward."""
        pose = self.pose
        return lateral * cos(pose.yaw) + forward * sin(pose.yaw) + pose.lean * (0.6 - y), y

    def depth(self, lateral: float, forward: float) -> float:
        """How near the camera a point is; positive in front of the body's axis."""
        return forward * cos(self.pose.yaw) - lateral * sin(self.pose.yaw)

    def rows(self, profile: list[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
        """Projects a profile of (y, lateral half, depth half) to rows (y, middle, half width)."""
        pose = self.pose
        return [
            (y, self.project(0, y, 0)[0], hypot(lateral * cos(pose.yaw), depth * sin(pose.yaw)))
            for y, lateral, depth in profile
        ]

    def torso(self, ease: float, hem: float) -> list[tuple[float, float, float]]:
        """Profile of a garment from the neck to its hem."""
        person, crotch = self.person, self.crotch
        build, shoulders, hips = person.build, person.shoulders, person.hips
        waist = _SHOULDER + 0.62 * (crotch - _SHOULDER)
        profile = [
            (0.150, 0.034 + ease, 0.034 + ease),
            (0.166, 0.078 * shoulders + ease, 0.046 * build + ease),
            (0.195, 0.110 * shoulders + ease, 0.058 * build + ease),
            (0.270, 0.104 * (shoulders + build) / 2 + ease, 0.074 * build + ease),
            (waist, 0.086 * build + ease, 0.068 * build + ease),
            (crotch - 0.03, 0.1 * hips * (1 + build) / 2 + ease, 0.078 * build + ease),
        ]
        flare = 0.1 * max(0.0, hem - crotch)
        if hem < crotch - 0.03:
            profile.pop()
        return [*profile, (hem, profile[-1][1] + flare, profile[-1][2] + flare)]

    def leg(self, side: int) -> list[tuple[float, float, float]]:
        """Hip, knee, ankle and toe of a leg in three dimensions (lateral, y, forward)."""
        pose, crotch, knee = self.pose, self.crotch, self.knee
        swing = side * self.stride * sin(pose.phase)
        bend = 0.08 + 1.3 * self.stride * max(0.0, -side * sin(pose.phase + 0.7))
        thigh, shin = knee - crotch + 0.03, 0.95 - knee
        lateral = 0.052 * self.person.hips
        hip = (lateral * side, crotch - 0.03, 0.0)
        joint = (lateral * side, hip[1] + thigh * cos(swing), thigh * sin(swing))
        ankle = (lateral * 0.9 * side, joint[1] + shin * cos(swing - bend), joint[2] + shin * sin(swing - bend))
        return [hip, joint, ankle, (ankle[0] * 1.15, ankle[1] + 0.026, ankle[2] + 0.055)]

    def arm(self, side: int) -> list[tuple[float, float, float]]:
        """Shoulder, elbow and wrist of an arm in three dimensions (lateral, y, forward)."""
        pose, person = self.pose, self.person
        swing = -0.8 * side * pose.stride * sin(pose.phase)
        length = 0.155 + 0.06 * (1.0 - person.legs - 0.48)
        shoulder = (side * (0.098 * person.shoulders + 0.01 * person.build), 0.195, 0.0)
        out = pose.abduction
        elbow = (
            shoulder[0] + side * length * sin(out),
            shoulder[1] + length * cos(out) * cos(swing),
            length * sin(swing),
        )
        bent = swing + pose.elbow
        wrist = (elbow[0] + side * 0.01, elbow[1] + length * cos(bent), elbow[2] + length * sin(bent))
        return [shoulder, elbow, wrist]


def draw_body(canvas: Canvas, person: Person, pose: Pose) -> None:
    """Draws a person on the canvas."""
    body = Body(person, pose)
    sides = sorted((-1, 1), key=lambda side: body.depth(side, 0.0))
    away = cos(pose.yaw) < 0
    x, _ = body.project(0, 1, 0)
    canvas.ellipse(x, 0.985, 0.17, 0.022, Region.SHADOW)
    if not away:
        _draw_backpack(canvas, body)
        draw_hair_behind(canvas, body)
    for side in sides:
        _draw_leg(canvas, body, side)
    _draw_lower(canvas, body)
    # seen from the front or the back both arms hang before the torso, seen from the side one is behind it
    aside = abs(sin(pose.yaw)) > 0.5
    if aside:
        _draw_arm(canvas, body, sides[0])
    _draw_upper(canvas, body)
    if away:
        draw_head(canvas, body)
        _draw_backpack(canvas, body)
        _draw_strap(canvas, body)
    else:
        _draw_strap(canvas, body)
        draw_head(canvas, body)
    for side in sides[1:] if aside else sides:
        _draw_arm(canvas, body, side)


def _tube(body: Body, joints: list[tuple[float, float, float]], radii: list[float]) -> list[tuple[float, float, float]]:
    return [(*body.project(*joint), radius) for joint, radius in zip(joints, radii, strict=True)]


def _draw_leg(canvas: Canvas, body: Body, side: int) -> None:
    person = body.person
    girth = 0.4 + 0.6 * person.build
    hip, knee, ankle, toe = body.leg(side)
    bare = _tube(body, [hip, knee, ankle], [0.056 * girth, 0.038 * girth, 0.024 * girth])
    canvas.limb(bare, Region.SKIN)
    shin = [knee + share * (ankle_ - knee) for knee, ankle_, share in zip(knee, ankle, (0.45,) * 3, strict=True)]
    if person.shoes == "boots":
        canvas.limb(_tube(body, [tuple(shin), ankle], [0.036 * girth, 0.033 * girth]), Region.SHOES)
    canvas.limb(_tube(body, [ankle, toe], [0.025, 0.018]), Region.SHOES)
    if "trousers" in person.lower:
        loose = 0.003 if person.lower == "slim trousers" else 0.016
        wide = person.lower == "wide trousers"
        radii = [0.06 * girth + loose, 0.04 * girth + loose, 0.05 * girth + loose if wide else 0.028 * girth + loose]
        end = ankle if wide or person.shoes == "flat" else tuple(shin)
        _draw_trouser(canvas, body, side, [hip, knee, end], radii)
    elif person.lower == "shorts":
        hem = tuple(h + 0.85 * (k - h) for h, k in zip(hip, knee, strict=True))
        _draw_trouser(canvas, body, side, [hip, hem], [0.06 * girth + 0.01, 0.056 * girth + 0.012])


def _draw_trouser(canvas: Canvas, body: Body, side: int, joints: list, radii: list[float]) -> None:
    canvas.limb(_tube(body, joints, radii), Region.LOWER, cut=body.person.lower != "slim trousers")
    if body.person.lower_pattern == "seam" and body.depth(side, 0.0) > -0.5:
        outer = [(x + 0.62 * side * radius, y, z) for (x, y, z), radius in zip(joints, radii, strict=True)]
        canvas.limb(_tube(body, outer, [0.26 * radius for radius in radii]), Region.LOWER_ALT, cut=True)


def _draw_lower(canvas: Canvas, body: Body) -> None:
    person, crotch = body.person, body.crotch
    _, lateral, depth = body.torso(0.004, crotch)[-1]
    waist = _SHOULDER + 0.62 * (crotch - _SHOULDER)
    if "skirt" not in person.lower:
        canvas.trunk(
            body.rows(
                [(waist, lateral * 0.9, depth), (crotch - 0.02, lateral, depth), (crotch + 0.02, lateral, depth)]
            ),
            Region.LOWER,
        )
        return
    hem, flare = (body.knee - 0.01, 0.055) if person.lower == "knee skirt" else (0.9, 0.06)
    profile = [
        (waist, lateral * 0.88, depth * 0.9),
        (crotch, lateral + 0.012, depth + 0.012),
        (hem, lateral + flare, depth + flare),
    ]
    canvas.trunk(body.rows(profile), Region.LOWER)
    if person.lower_pattern == "seam":
        canvas.trunk(
            body.rows([(hem - 0.045, lateral + flare, depth + flare), (hem, lateral + flare, depth + flare)]),
            Region.LOWER_ALT,
        )


def _draw_upper(canvas: Canvas, body: Body) -> None:
    person, pose = body.person, body.pose
    ease, hem = _EASE[person.upper], body.crotch + _HEM[person.upper]
    rows = body.rows(body.torso(ease, hem))
    neck, _ = body.project(0, 0.14, 0.005)
    canvas.limb([(neck, 0.12, 0.034), (neck, 0.165, 0.04)], Region.SKIN)
    canvas.trunk(rows, Region.UPPER)
    facing = cos(pose.yaw)
    if person.upper == "vest" and abs(facing) > 0.4:
        canvas.ellipse(rows[0][1], 0.165, 0.052 * abs(facing), 0.035, Region.SKIN, 220)
    if person.upper in ("jacket", "coat") and facing > 0.15:
        opening = [(y, middle + 0.06 * sin(pose.yaw), (0.026 + 0.02 * (y > 0.3)) * facing) for y, middle, _ in rows]
        end = min(hem, body.crotch + 0.02)
        canvas.trunk([row for row in opening if row[0] < end] + [(end, *opening[-1][1:])], Region.INNER)
    if person.upper == "hoodie":
        back, _ = body.project(0, 0.15, -0.035)
        canvas.ball(back, 0.152, 0.078 + 0.012 * abs(facing), 0.034 if facing > 0 else 0.06, Region.UPPER)
        if facing > 0.3:
            middle, _ = body.project(0, body.crotch - 0.1, 0.06)
            canvas.polygon(
                [
                    (middle - 0.07 * facing, body.crotch - 0.05),
                    (middle - 0.045 * facing, body.crotch - 0.13),
                    (middle + 0.045 * facing, body.crotch - 0.13),
                    (middle + 0.07 * facing, body.crotch - 0.05),
                ],
                Region.UPPER,
                175,
            )


def _draw_arm(canvas: Canvas, body: Body, side: int) -> None:
    person = body.person
    girth = 0.5 + 0.5 * person.build
    shoulder, elbow, wrist = body.arm(side)
    x, y = body.project(wrist[0], wrist[1] + 0.018, wrist[2] + 0.006)
    if person.bag == "handbag" and side == person.bag_side:
        canvas.limb([(x, y, 0.007), (x, y + 0.075, 0.007)], Region.BAG)
        across = 0.05 + 0.035 * abs(sin(body.pose.yaw))
        canvas.trunk([(y + 0.055, x, across * 0.85), (y + 0.16, x, across)], Region.BAG)
    canvas.limb(_tube(body, [shoulder, elbow, wrist], [0.029 * girth, 0.025 * girth, 0.018 * girth]), Region.SKIN)
    canvas.ball(x, y, 0.02, 0.026, Region.SKIN)
    sleeve = Region.UPPER_ALT if person.pattern == "contrast sleeves" else Region.UPPER
    ease = 0.6 * _EASE[person.upper]
    if person.upper == "t-shirt":
        end = tuple(s + _SHORT_SLEEVE * (e - s) for s, e in zip(shoulder, elbow, strict=True))
        canvas.limb(_tube(body, [shoulder, end], [0.034 * girth + ease, 0.038 * girth + ease]), sleeve, cut=True)
    elif person.upper != "vest":
        radii = [0.031 * girth + ease, 0.028 * girth + ease, 0.022 * girth + ease]
        canvas.limb(_tube(body, [shoulder, elbow, wrist], radii), sleeve)


def _draw_backpack(canvas: Canvas, body: Body) -> None:
    if body.person.bag != "backpack":
        return
    lateral, depth = 0.098, 0.055
    middle, _ = body.project(0, 0.3, -(0.065 * body.person.build + depth))
    half = hypot(lateral * cos(body.pose.yaw), depth * sin(body.pose.yaw))
    rows = [(0.175, half * 0.6), (0.2, half * 0.95), (0.3, half * 1.05), (0.4, half * 1.05), (0.425, half * 0.8)]
    canvas.trunk([(y, middle, width) for y, width in rows], Region.BAG)


def _draw_strap(canvas: Canvas, body: Body) -> None:
    person, side = body.person, body.person.bag_side
    front = 1 if cos(body.pose.yaw) > 0 else -1
    if person.bag == "backpack" and cos(body.pose.yaw) > -0.3:
        for strap in (-1, 1):
            if body.depth(strap, 0.0) > -0.8:
                points = [(strap * 0.065, 0.165, 0.02), (strap * 0.072, 0.25, 0.06), (strap * 0.085, 0.36, 0.02)]
                canvas.limb(_tube(body, points, [0.012] * 3), Region.BAG)
    if person.bag == "cross-body":
        hip = (-side * 0.105 * person.hips, body.crotch - 0.03, 0.03 * front)
        canvas.limb(_tube(body, [(side * 0.07, 0.16, 0.0), (0, 0.3, 0.06 * front), hip], [0.011] * 3), Region.BAG)
        if body.depth(-side, 0.0) > -0.6:
            x, y = body.project(*hip)
            across = 0.045 + 0.03 * abs(sin(body.pose.yaw))
            canvas.trunk([(y - 0.03, x, across * 0.9), (y + 0.08, x, across)], Region.BAG)
