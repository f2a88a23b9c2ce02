"""A person's joints and outlines in a pose, and how they project onto the image.

Lengths are in body heights, angles in radians. A point is (lateral, y, forward): lateral is positive on the person's
left, y runs down from the crown (0) to the soles (1), forward is where the person faces.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, hypot, sin

from tools.synthetic.person import Person

Point = tuple[float, float, float]

_SHOULDER, _ANKLE = 0.175, 0.95
_KNEE_SHARE = 0.52  # of the way from the crotch to the ankle
_STEP = {"knee skirt": 0.8, "long skirt": 0.35, "coat": 0.75}  # long hems shorten the step


@dataclass(frozen=True)
class Pose:
    """How a person stands or walks."""

    yaw: float  # 0 faces the camera, positive turns to the right of the image
    phase: float  # of the walk, 0 to 2 pi
    stride: float  # how far the legs swing
    abduction: float  # of the upper arms, away from the torso
    elbow: float  # how far the elbows are bent
    lean: float  # sideways, in body heights


@dataclass(frozen=True)
class Body:
    """A person in a pose."""

    person: Person
    pose: Pose

    @property
    def turn(self) -> float:
        """1 where the person faces the right of the image, -1 the left."""
        return sin(self.pose.yaw)

    @property
    def facing(self) -> float:
        """1 where the person faces the camera, -1 where it sees the back."""
        return cos(self.pose.yaw)

    @property
    def crotch(self) -> float:
        return 1.0 - self.person.legs

    @property
    def waist(self) -> float:
        return _SHOULDER + 0.62 * (self.crotch - _SHOULDER)

    @property
    def knee(self) -> float:
        return self.crotch + _KNEE_SHARE * (_ANKLE - self.crotch)

    def project(self, lateral: float, y: float, forward: float) -> tuple[float, float]:
        """The point's (x, y) on the image, x to the right of the body's axis."""
        return lateral * self.facing + forward * self.turn + self.pose.lean * (0.6 - y), y

    def tube(self, joints: Sequence[Point], radii: Sequence[float]) -> list[tuple[float, float, float]]:
        """Project joints to (x, y, radius) each, for ``Canvas.limb``."""
        return [(*self.project(*joint), radius) for joint, radius in zip(joints, radii, strict=True)]

    def rows(self, profile: Sequence[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
        """Project (y, half width, half depth) to (y, middle, half width on the image), for ``Canvas.trunk``."""
        return [(y, self.project(0, y, 0)[0], self.half_width(lateral, depth)) for y, lateral, depth in profile]

    def half_width(self, lateral: float, depth: float) -> float:
        """Half width on the image of an ellipse with these half axes."""
        return hypot(lateral * self.facing, depth * self.turn)

    def nearness(self, side: int) -> float:
        """1 where a side of the body (-1 right, 1 left) points at the camera, -1 where it points away."""
        return -side * self.turn

    def torso(self, ease: float, hem: float) -> list[tuple[float, float, float]]:
        """Profile (y, half width, half depth) from the neck to the y of a hem; ``ease`` is the cloth's distance."""
        build, shoulders, hips = self.person.build, self.person.shoulders, self.person.hips
        profile = [
            (0.150, 0.034 + ease, 0.034 + ease),
            (0.166, 0.078 * shoulders + ease, 0.046 * build + ease),
            (0.195, 0.110 * shoulders + ease, 0.058 * build + ease),
            (0.270, 0.104 * (shoulders + build) / 2 + ease, 0.074 * build + ease),
            (self.waist, 0.086 * build + ease, 0.068 * build + ease),
            (self.crotch - 0.03, 0.1 * hips * (1 + build) / 2 + ease, 0.078 * build + ease),
        ]
        flare = 0.1 * max(0.0, hem - self.crotch)
        if hem < self.crotch - 0.03:
            profile.pop()
        return [*profile, (hem, profile[-1][1] + flare, profile[-1][2] + flare)]

    def leg(self, side: int) -> tuple[Point, Point, Point, Point]:
        """Hip, knee, ankle and toe of a side (-1 right, 1 left)."""
        stride = self.pose.stride * _STEP.get(self.person.lower, 1.0) * _STEP.get(self.person.upper, 1.0)
        swing = side * stride * sin(self.pose.phase)
        bend = 0.08 + 1.3 * stride * max(0.0, -side * sin(self.pose.phase + 0.7))
        thigh, shin = self.knee - self.crotch + 0.03, _ANKLE - self.knee
        lateral = 0.052 * self.person.hips
        hip = (lateral * side, self.crotch - 0.03, 0.0)
        knee = (lateral * side, hip[1] + thigh * cos(swing), thigh * sin(swing))
        ankle = (lateral * 0.9 * side, knee[1] + shin * cos(swing - bend), knee[2] + shin * sin(swing - bend))
        return hip, knee, ankle, (ankle[0] * 1.15, ankle[1] + 0.026, ankle[2] + 0.055)

    def arm(self, side: int) -> tuple[Point, Point, Point]:
        """Shoulder, elbow and wrist of a side (-1 right, 1 left)."""
        pose, person = self.pose, self.person
        swing = -0.8 * side * pose.stride * sin(pose.phase)
        length = 0.155 + 0.06 * (1.0 - person.legs - 0.48)
        shoulder = (side * (0.098 * person.shoulders + 0.01 * person.build), 0.195, 0.0)
        elbow = (
            shoulder[0] + side * length * sin(pose.abduction),
            shoulder[1] + length * cos(pose.abduction) * cos(swing),
            length * sin(swing),
        )
        bent = swing + pose.elbow
        wrist = (elbow[0] + side * 0.01, elbow[1] + length * cos(bent), elbow[2] + length * sin(bent))
        return shoulder, elbow, wrist
