"""Samplers: which images form the batches of an epoch.

A sampler is a pure function of ``(labels, infrared, rng, sizes)``. It returns an int64 array of image positions, shape
(batches, batch size), and is called once per epoch. Incomplete last batches are dropped. Source, unless another is
named: the released code of MCJA, with the corrections listed in docs/differences.md.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from utils.run.errors import UserError


class Sizes(NamedTuple):
    """Size of a batch: P identities x K images, or ``batch_size`` for samplers that do not draw identities."""

    p_size: int
    k_size: int
    batch_size: int


Draw = Callable[[np.ndarray, np.ndarray, np.random.Generator, Sizes], np.ndarray]


class EpochSampler(Sampler[list[int]]):
    """Batches of image positions, a function of seed and epoch alone.

    Iteration skips the first ``start`` batches of the epoch, which a continued run has already trained on;
    ``set_epoch`` resets ``start`` to 0. ``len`` is the number of batches that are left, and differs between epochs.

    Args:
        labels: (N,) class index per image.
        infrared: (N,) whether the image is infrared.
        method: a name in ``SAMPLERS``.
        sizes: the size of a batch.
        seed: together with the epoch, it determines the batches.

    Raises:
        UserError: the images do not fill one batch, or a modality that the sampler needs is missing.
    """

    def __init__(self, labels: np.ndarray, infrared: np.ndarray, *, method: str, sizes: Sizes, seed: int):
        if method not in SAMPLERS:
            raise ValueError(f"unknown sampler {method!r}; choose from {', '.join(SAMPLERS)}")
        self.labels, self.infrared = np.asarray(labels), np.asarray(infrared)
        self.method, self.sizes, self.seed = method, sizes, seed
        self.start = 0
        self.set_epoch(1)

    def set_epoch(self, epoch: int) -> None:
        """Draw the batches of ``epoch``, which counts from 1."""
        self.start = 0
        rng = np.random.default_rng([self.seed, epoch])
        self.batches = np.empty((0, 0), dtype=np.int64)
        if len(self.labels):
            self.batches = SAMPLERS[self.method].draw(self.labels, self.infrared, rng, self.sizes)
        if not len(self.batches):
            raise UserError(
                f"sample_method: {self.method!r} gives no complete batch from {len(self.labels)} images of"
                f" {len(np.unique(self.labels))} identities; lower p_size ({self.sizes.p_size}),"
                f" k_size ({self.sizes.k_size}) or batch_size ({self.sizes.batch_size})"
            )

    def __len__(self) -> int:
        return len(self.batches) - self.start

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches[self.start :].tolist())


def shuffle(labels: np.ndarray, infrared: np.ndarray, rng: np.random.Generator, sizes: Sizes) -> np.ndarray:
    """All images in random order, whatever their identities and modalities."""
    return _rows_of(rng.permutation(len(labels)), sizes.batch_size)


def norm_triplet(labels: np.ndarray, infrared: np.ndarray, rng: np.random.Generator, sizes: Sizes) -> np.ndarray:
    """P identities x K images, drawn from both modalities together.

    Each identity's images are shuffled and cut into groups of K; the images of an identity with fewer than K are drawn
    with replacement.
    """
    groups = []
    for images in _by_label(labels):
        images = _sample(images, sizes.k_size, rng) if len(images) < sizes.k_size else rng.permutation(images)
        groups.append(_rows_of(images, sizes.k_size))
    return _group_batches(groups, rng, sizes)


def identity_cross_modality(
    labels: np.ndarray, infrared: np.ndarray, rng: np.random.Generator, sizes: Sizes
) -> np.ndarray:
    """P identities x K images, alternating infrared and visible.

    An identity has as many pairs as its smaller modality has images. A modality with fewer than K/2 images is filled
    to K/2 with replacement.
    """
    half = sizes.k_size // 2
    groups = []
    for visible, thermal in _by_label_and_modality(labels, infrared, "identity_cross_modality"):
        sides = [_sample(side, half, rng) if len(side) < half else rng.permutation(side) for side in (thermal, visible)]
        pairs = min(map(len, sides))
        groups.append(_rows_of(np.stack([side[:pairs] for side in sides], axis=1).ravel(), sizes.k_size))
    return _group_batches(groups, rng, sizes)


def cross_modality_identity(
    labels: np.ndarray, infrared: np.ndarray, rng: np.random.Generator, sizes: Sizes
) -> np.ndarray:
    """K/2 visible images of each of P identities, then K/2 infrared images of each of the same identities."""
    half = sizes.k_size // 2
    sides = list(zip(*_by_label_and_modality(labels, infrared, "cross_modality_identity"), strict=True))
    count = len(sides[0])
    passes = max(1, len(labels) // (count * sizes.k_size))
    batches = []
    for _ in range(passes):
        for chosen in _rows_of(rng.permutation(count), sizes.p_size):
            batches.append(np.concatenate([_sample(side[i], half, rng) for side in sides for i in chosen]))
    return np.array(batches, dtype=np.int64)


def cross_modality_random(
    labels: np.ndarray, infrared: np.ndarray, rng: np.random.Generator, sizes: Sizes
) -> np.ndarray:
    """Random visible images in the first half of a batch, random infrared ones in the second.

    The smaller modality is repeated, in a new random order each time.
    """
    sides = [np.flatnonzero(~infrared), np.flatnonzero(infrared)]
    if not all(map(len, sides)):
        raise UserError("sample_method: 'cross_modality_random' needs visible and infrared images, but one is missing")
    length = max(map(len, sides))
    halves = []
    for side in sides:
        repeats = -(-length // len(side))
        halves.append(np.concatenate([rng.permutation(side) for _ in range(repeats)])[:length])
    return np.concatenate([_rows_of(half, sizes.batch_size // 2) for half in halves], axis=1)


def cross_modality_uniform(
    labels: np.ndarray, infrared: np.ndarray, rng: np.random.Generator, sizes: Sizes
) -> np.ndarray:
    """K/2 visible images of each of P identities, then K/2 infrared images of the same identities in the same order.

    Every batch draws its identities afresh, without replacement within the batch, and its images with replacement. The
    number of batches is floor(N / (P K/2)) + 1 with N images of the larger modality. Source: the released code of AGW.
    """
    half = sizes.k_size // 2
    sides = list(zip(*_by_label_and_modality(labels, infrared, "cross_modality_uniform"), strict=True))
    count, size = len(sides[0]), sizes.p_size * sizes.k_size
    if count < sizes.p_size:
        return np.empty((0, size), dtype=np.int64)
    larger = max(int(infrared.sum()), int((~infrared).sum()))
    batches = np.empty((larger // (sizes.p_size * half) + 1, size), dtype=np.int64)
    for batch in batches:
        chosen = rng.choice(count, sizes.p_size, replace=False)
        batch[:] = np.concatenate([rng.choice(side[i], half) for side in sides for i in chosen])
    return batches


class SamplerKind(NamedTuple):
    """A sampler and what it needs."""

    draw: Draw
    draws_identities: bool  # a batch has p_size x k_size images, else batch_size
    halves: bool = False  # half of k_size (or of batch_size) comes from each modality


SAMPLERS = {
    "norm_triplet": SamplerKind(norm_triplet, draws_identities=True),
    "none": SamplerKind(shuffle, draws_identities=False),
    "cross_modality_random": SamplerKind(cross_modality_random, draws_identities=False, halves=True),
    "cross_modality_identity": SamplerKind(cross_modality_identity, draws_identities=True, halves=True),
    "cross_modality_uniform": SamplerKind(cross_modality_uniform, draws_identities=True, halves=True),
    "identity_cross_modality": SamplerKind(identity_cross_modality, draws_identities=True, halves=True),
}


def _by_label(labels: np.ndarray) -> list[np.ndarray]:
    """Positions of the images of each label, in the order of the labels."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _by_label_and_modality(
    labels: np.ndarray, infrared: np.ndarray, method: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions of the visible and of the infrared images of each label, in the order of the labels.

    Raises:
        UserError: a label lacks one of them; the message names ``method``.
    """
    pairs = []
    for images in _by_label(labels):
        pair = images[~infrared[images]], images[infrared[images]]
        if not all(map(len, pair)):
            raise UserError(
                f"sample_method: {method!r} needs both modalities, but class {labels[images[0]]} has only one"
            )
        pairs.append(pair)
    return pairs


def _rows_of(images: np.ndarray, size: int) -> np.ndarray:
    """The images in rows of ``size``: (N,) -> (N // size, size); the remainder is dropped."""
    return images[: len(images) // size * size].reshape(-1, size)


def _sample(images: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` random images, drawn with replacement only if there are fewer than ``count``."""
    return rng.choice(images, count, replace=len(images) < count)


def _group_batches(groups: list[np.ndarray], rng: np.random.Generator, sizes: Sizes) -> np.ndarray:
    """Batches of P groups, each of another identity, as long as at least P identities have a group left.

    Args:
        groups: per identity, a (groups, K) array of image positions.
    """
    left = [list(group) for group in groups]
    available = np.arange(len(left))
    batches = []
    while len(available) >= sizes.p_size:
        chosen = rng.choice(available, sizes.p_size, replace=False)
        batches.append(np.concatenate([left[i].pop(0) for i in chosen]))
        available = np.array([i for i in available if left[i]])
    return np.array(batches, dtype=np.int64)
