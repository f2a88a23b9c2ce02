"""Synthetic identities: what a person looks like to every camera and in every modality.

The shape (body, cuts, patterns, bag) is the same in all modalities. The tones of its regions are sampled independently
for each, so that only shape is shared between modalities.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tools.synthetic.tones import sample_tones

_PATTERNS = (
    "solid", "wide stripes", "narrow stripes", "vertical stripes", "checks", "dots",
    "block", "halves", "band", "diagonal", "contrast sleeves",
)  # fmt: skip
_CHOICES = {
    "hair": ("bald", "short", "afro", "bob", "long", "bun", "ponytail", "cap", "brim", "beanie"),
    "upper": ("vest", "t-shirt", "long sleeves", "jacket", "coat", "hoodie"),
    "lower": ("slim trousers", "wide trousers", "shorts", "knee skirt", "long skirt"),
    "pattern": _PATTERNS,
    "lower_pattern": ("solid", "bands", "checks", "seam"),
    "shoes": ("flat", "boots"),
    "bag": ("none", "backpack", "cross-body", "handbag"),
    "bag_side": (-1, 1),
}
# where a choice is not uniform
_WEIGHTS = {"lower_pattern": (0.4, 0.2, 0.2, 0.2), "bag": (0.28, 0.24, 0.24, 0.24)}
# people who shared nearly all of these could only be told apart by their proportions
_DISTINCTIVE = ("hair", "upper", "lower", "pattern", "bag")
_MOST_SHARED = 3
_TRIES = 40


@dataclass(frozen=True)
class Person:
    """One identity; the body's proportions are factors around 1, the attributes are listed in ``_CHOICES``."""

    stature: float
    build: float
    shoulders: float
    hips: float
    head: float
    legs: float  # the share of the height below the crotch
    hair: str
    upper: str
    lower: str
    pattern: str
    lower_pattern: str
    shoes: str
    bag: str
    bag_side: int  # the shoulder or hand that carries the bag, -1 (right) or 1 (left)
    tones: dict[str, np.ndarray]  # for each modality, see ``sample_tones``

    @property
    def distinctive(self) -> tuple[str, ...]:
        """The five attributes by which people are told apart at a glance."""
        return tuple(getattr(self, name) for name in _DISTINCTIVE)


def sample_person(seed: int, identity: int, *, attempt: int = 0) -> Person:
    """Sample one identity, which depends on nothing but the arguments."""
    shape_seed, *tone_seeds = np.random.SeedSequence((seed, identity, attempt)).spawn(4)
    shape = _sample_shape(np.random.default_rng(shape_seed))
    return Person(**shape, tones=sample_tones(tone_seeds, shape["upper"], shape["lower"]))


def sample_people(seed: int, identities: int) -> list[Person]:
    """Sample identities 1 to ``identities``; no two share more than three of the five distinctive attributes.

    A person does not depend on how many follow. Many hundreds of identities use up the combinations; later ones may
    share more.
    """
    people: list[Person] = []
    taken: set[tuple] = set()
    for identity in range(1, identities + 1):
        for attempt in range(_TRIES):
            person = sample_person(seed, identity, attempt=attempt)
            groups = set(combinations(enumerate(person.distinctive), _MOST_SHARED + 1))
            if not groups & taken:
                break
        taken |= groups
        people.append(person)
    return people


def _sample_shape(rng: np.random.Generator) -> dict:
    """Everything but the tones."""
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
    return {**proportions, **attributes}
