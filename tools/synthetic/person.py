"""Made-up identities: what a person is like, whichever camera looks and in whatever light.

Shape (body, cuts, pattern geometry, bag) is shared by all modalities. The tones of the same regions are drawn
separately for each modality (see `tones`), so that nothing but shape carries across.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from .tones import Tones, draw_tones

HAIR = ("bald", "short", "afro", "bob", "long", "bun", "ponytail", "cap", "brim", "beanie")
UPPER = ("vest", "t-shirt", "long sleeves", "jacket", "coat", "hoodie")
LOWER = ("slim trousers", "wide trousers", "shorts", "knee skirt", "long skirt")
PATTERN = (
    "solid",
    "wide stripes",
    "narrow stripes",
    "vertical stripes",
    "checks",
    "dots",
    "block",
    "halves",
    "band",
    "diagonal",
    "contrast sleeves",
)
LOWER_PATTERN = ("solid", "bands", "checks", "seam")
SHOES = ("flat", "boots")
BAG = ("none", "backpack", "cross-body", "handbag")
SIDE = (-1, 1)

_CHOICES = {
    "hair": HAIR,
    "upper": UPPER,
    "lower": LOWER,
    "pattern": PATTERN,
    "lower_pattern": LOWER_PATTERN,
    "shoes": SHOES,
    "bag": BAG,
    "bag_side": SIDE,
}
# weights of a choice, where it is not uniform: common enough to look like a street, varied enough to tell apart
_WEIGHTS = {"lower_pattern": (0.4, 0.2, 0.2, 0.2), "bag": (0.28, 0.24, 0.24, 0.24)}
# what a witness would describe; people who share nearly all of it could only be told apart by proportions
_TELLING = ("hair", "upper", "lower", "pattern", "bag")
_MOST_SHARED = 3
_TRIES = 40


@dataclass(frozen=True)
class Person:
    """One identity. Proportions are factors around 1, except `legs` (share of the height below the crotch)."""

    stature: float
    build: float
    shoulders: float
    hips: float
    head: float
    legs: float
    hair: str
    upper: str
    lower: str
    pattern: str
    lower_pattern: str
    shoes: str
    bag: str
    bag_side: int
    tones: Tones

    @property
    def telling(self) -> tuple[str, ...]:
        """The attributes by which a witness would describe this person."""
        return tuple(getattr(self, name) for name in _TELLING)


def draw_person(seed: int, identity: int, *, attempt: int = 0) -> Person:
    """Draws one identity; a function of its arguments alone."""
    shape, tone_seeds = _draw_shape(seed, identity, attempt)
    return Person(**shape, tones=draw_tones(tone_seeds, shape["upper"], shape["lower"]))


def draw_people(seed: int, identities: int) -> list[Person]:
    """Draws identities 1 … `identities`, no two of which share more than three of five telling attributes.

    Person i does not depend on how many follow. Sets of many hundreds use up the combinations, and pairs as close as
    chance makes them then occur.
    """
    people: list[Person] = []
    taken: set[tuple] = set()
    for identity in range(1, identities + 1):
        for attempt in range(_TRIES):
            shape, _ = _draw_shape(seed, identity, attempt)
            groups = set(combinations(((name, shape[name]) for name in _TELLING), _MOST_SHARED + 1))
            if not groups & taken:
                break
        taken |= groups
        people.append(draw_person(seed, identity, attempt=attempt))
    return people


def _draw_shape(seed: int, identity: int, attempt: int) -> tuple[dict, list[np.random.SeedSequence]]:
    """Everything but the tones, and the seeds of those."""
    shape_seed, *tone_seeds = np.random.SeedSequence((seed, identity, attempt)).spawn(4)
    rng = np.random.default_rng(shape_seed)
    proportions = {
        "stature": rng.uniform(0.84, 1.0),
        "build": rng.uniform(0.8, 1.32),
        "shoulders": rng.uniform(0.9, 1.14),
        "hips": rng.uniform(0.9, 1.2),
        "head": rng.uniform(1.0, 1.22),
        "legs": rng.uniform(0.45, 0.54),
    }
    attributes = {
        name: options[int(rng.choice(len(options), p=_WEIGHTS.get(name)))] for name, options in _CHOICES.items()
    }
    return {**proportions, **attributes}, tone_seeds
