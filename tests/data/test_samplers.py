from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.samplers import SAMPLERS, EpochSampler, Sizes
from utils.run.errors import UserError

SIZES = Sizes(p_size=3, k_size=4, batch_size=10)


def random_labels(seed: int, identities: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and modalities in random order; every identity has both modalities."""
    random = np.random.default_rng(seed)
    pairs = [
        (label, side) for label in range(identities) for side in (0, 1) for _ in range(random.integers(1, most + 1))
    ]
    labels, infrared = np.array(pairs)[random.permutation(len(pairs))].T
    return labels, infrared.astype(bool)


def sampler(method, labels, infrared, sizes=SIZES, seed=0):
    return EpochSampler(labels, infrared, method=method, sizes=sizes, seed=seed)


@pytest.mark.parametrize("method", SAMPLERS)
@given(seed=st.integers(0, 10**6), identities=st.integers(4, 9), most=st.integers(2, 12))
@settings(max_examples=30, deadline=None)
def test_every_batch_is_complete_and_len_counts_them(method, seed, identities, most):
    labels, infrared = random_labels(seed, identities, most)
    drawn = sampler(method, labels, infrared, seed=seed) if len(labels) >= SIZES.batch_size else None
    if drawn is None:
        return
    for epoch in range(1, 4):
        drawn.set_epoch(epoch)
        batches = list(drawn)
        assert len(batches) == len(drawn) > 0
        size = SIZES.p_size * SIZES.k_size if SAMPLERS[method].draws_identities else SIZES.batch_size
        assert {len(batch) for batch in batches} == {size}
        assert all(0 <= index < len(labels) for batch in batches for index in batch)


@pytest.mark.parametrize("method", SAMPLERS)
def test_a_function_of_seed_and_epoch(method):
    labels, infrared = random_labels(0, 8, 9)
    np.random.seed(0)
    first = sampler(method, labels, infrared, seed=5)
    epochs = {}
    for epoch in (1, 2, 3):
        first.set_epoch(epoch)
        epochs[epoch] = list(first)
    np.random.seed(1)  # the global generator must not matter
    again = sampler(method, labels, infrared, seed=5)
    for epoch in (3, 1, 2):
        again.set_epoch(epoch)
        assert list(again) == epochs[epoch]
    assert epochs[1] != epochs[2]
    assert list(sampler(method, labels, infrared, seed=6)) != epochs[1]


def test_norm_triplet_groups():
    labels = np.repeat(np.arange(5), [9, 8, 2, 12, 7])
    infrared = np.arange(len(labels)) % 2 == 0
    batches = SAMPLERS["norm_triplet"].draw(labels, infrared, np.random.default_rng(0), SIZES)
    used = Counter()
    for batch in batches:
        groups = labels[batch].reshape(SIZES.p_size, SIZES.k_size)
        assert (groups == groups[:, :1]).all()  # K images of one identity side by side
        assert len(set(groups[:, 0])) == SIZES.p_size  # P different identities
        used.update(groups[:, 0].tolist())
    # groups: 2, 2, 1 (drawn with replacement), 3, 1; none is used twice
    assert all(used[label] <= count for label, count in enumerate((2, 2, 1, 3, 1)))
    without_replacement = [i for i in batches.ravel().tolist() if labels[i] != 2]
    assert len(set(without_replacement)) == len(without_replacement)
    left = [count - used[label] for label, count in enumerate((2, 2, 1, 3, 1))]
    assert sum(count > 0 for count in left) < SIZES.p_size  # it draws until too few identities have a group left


def test_norm_triplet_ignores_modality():
    labels, infrared = np.zeros(400, dtype=int), np.arange(400) < 300
    batches = SAMPLERS["norm_triplet"].draw(labels, infrared, np.random.default_rng(0), Sizes(1, 4, 1))
    shares = Counter(infrared[batches].sum(axis=1).tolist())
    assert set(shares) >= {2, 3, 4}


def test_epoch_of_published_size():
    """SYSU-MM01's 34,167 images of 395 identities make 229 or 230 batches of 8 x 16, RegDB's 4,120 make 51."""
    random = np.random.default_rng(0)
    counts = random.multinomial(34167 - 395 * 40, np.full(395, 1 / 395)) + 40
    labels = np.repeat(np.arange(395), counts)
    batches = SAMPLERS["norm_triplet"].draw(labels, labels % 2 == 0, random, Sizes(8, 16, 128))
    assert 34167 / 128 * 0.85 < len(batches) <= 34167 // 128
    labels = np.repeat(np.arange(206), 20)  # 20 < K 32: one group each, drawn with replacement
    assert len(SAMPLERS["norm_triplet"].draw(labels, labels % 2 == 0, random, Sizes(4, 32, 128))) == 51


def test_cross_modality_random_halves_and_repeats():
    for visible, infrared_count in ((30, 11), (11, 30)):  # infrared may outnumber visible
        infrared = np.array([False] * visible + [True] * infrared_count)
        batches = SAMPLERS["cross_modality_random"].draw(np.zeros(41, int), infrared, np.random.default_rng(0), SIZES)
        assert len(batches) == 30 // 5
        assert not infrared[batches[:, :5]].any()
        assert infrared[batches[:, 5:]].all()
        scarce = batches[:, 5:] if infrared_count < visible else batches[:, :5]
        uses = Counter(scarce.ravel().tolist())
        assert len(uses) == 11  # every image of the smaller modality
        assert max(uses.values()) - min(uses.values()) <= 1


def test_cross_modality_identity_order():
    labels, infrared = random_labels(1, 7, 9)
    batches = SAMPLERS["cross_modality_identity"].draw(labels, infrared, np.random.default_rng(0), SIZES)
    passes = max(1, len(labels) // (7 * SIZES.k_size))
    assert len(batches) == passes * (7 // SIZES.p_size)
    for batch in batches:
        visible, thermal = batch[:6], batch[6:]
        assert not infrared[visible].any()
        assert infrared[thermal].all()
        assert (labels[visible] == labels[thermal]).all()
        assert len(set(labels[visible].tolist())) == SIZES.p_size


def test_identity_cross_modality_alternates():
    labels, infrared = random_labels(2, 7, 9)
    batches = SAMPLERS["identity_cross_modality"].draw(labels, infrared, np.random.default_rng(0), SIZES)
    for batch in batches:
        assert infrared[batch[0::2]].all()
        assert not infrared[batch[1::2]].any()
        groups = labels[batch].reshape(SIZES.p_size, SIZES.k_size)
        assert (groups == groups[:, :1]).all()
    half = SIZES.k_size // 2
    scarcer = np.minimum(np.bincount(labels[infrared], minlength=7), np.bincount(labels[~infrared], minlength=7))
    left = np.maximum(scarcer, half) // half - np.bincount(labels[batches[:, :: SIZES.k_size]].ravel(), minlength=7)
    assert (left >= 0).all()
    assert (left > 0).sum() < SIZES.p_size  # it draws until too few identities have a group left


@pytest.mark.parametrize(("larger", "batches"), [(22258, 696), (2060, 65), (16946, 530)])
def test_cross_modality_uniform_epochs_of_published_sizes(larger, batches):
    """AGW's batches of 8 x 4 visible and 8 x 4 infrared images on SYSU-MM01, RegDB and LLCM."""
    labels = np.concatenate([np.arange(larger) % 200, np.arange(1000) % 200])
    infrared = np.arange(len(labels)) >= larger
    for swapped in (infrared, ~infrared):
        draw = SAMPLERS["cross_modality_uniform"].draw
        assert draw(labels, swapped, np.random.default_rng(0), Sizes(8, 8, 1)).shape == (batches, 64)


def test_cross_modality_uniform_is_uniform():
    """Identities and images are drawn afresh for every batch: identities equally often, whatever they have."""
    labels = np.repeat(np.arange(6), [40, 2, 2, 2, 2, 2])
    labels, infrared = np.concatenate([labels, labels]), np.arange(100) >= 50
    draw, sizes = SAMPLERS["cross_modality_uniform"].draw, Sizes(3, 8, 1)
    batches = np.concatenate([draw(labels, infrared, np.random.default_rng(seed), sizes) for seed in range(300)])
    shares = np.bincount(labels[batches[:, ::4]].ravel(), minlength=6) / batches[:, ::4].size
    np.testing.assert_allclose(shares, 1 / 6, atol=0.02)
    visible = batches[:, :12][labels[batches[:, :12]] == 1]
    shares = np.bincount(visible, minlength=50)[40:42] / len(visible)
    np.testing.assert_allclose(shares, 1 / 2, atol=0.05)
    groups = batches.reshape(-1, 4)
    repeats = [len(set(group)) < 4 for group in groups.tolist() if labels[group[0]] == 0]
    assert np.mean(repeats) == pytest.approx(1 - 39 * 38 * 37 / 40**3, abs=0.04)  # drawn with replacement


@pytest.mark.parametrize(
    "method",
    ["cross_modality_identity", "cross_modality_uniform", "identity_cross_modality", "cross_modality_random"],
)
def test_one_modality_is_refused(method):
    with pytest.raises(UserError, match=f"{method}.*one"):
        sampler(method, np.repeat(np.arange(4), 5), np.zeros(20, dtype=bool))


@pytest.mark.parametrize("method", ["cross_modality_identity", "cross_modality_uniform", "identity_cross_modality"])
def test_the_class_that_lacks_a_modality_is_named(method):
    with pytest.raises(UserError, match=f"{method}.*class 5 "):
        sampler(method, np.repeat([0, 5, 7], 6), np.array([False, True] * 3 + [True] * 6 + [False, True] * 3))


@pytest.mark.parametrize("method", SAMPLERS)
def test_no_complete_batch_is_refused(method):
    with pytest.raises(UserError, match="no complete batch.*p_size"):
        sampler(method, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]).astype(bool), Sizes(3, 4, 10))


def test_unknown_sampler_names_the_choices():
    with pytest.raises(ValueError, match="unknown sampler 'triplet'; choose from norm_triplet, none"):
        sampler("triplet", np.zeros(4), np.zeros(4))


class Layout(NamedTuple):
    """Arbitrary identities, modalities and batch sizes."""

    labels: np.ndarray
    infrared: np.ndarray
    sizes: Sizes

    def sampler(self, method: str, seed: int) -> EpochSampler:
        return EpochSampler(self.labels, self.infrared, method=method, sizes=self.sizes, seed=seed)


@st.composite
def layouts(draw) -> Layout:
    images = draw(st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=60))
    labels = np.array([label for label, _ in images], dtype=np.int64)
    infrared = np.array([side for _, side in images], dtype=bool)
    # k_size and batch_size are even, as the configuration demands
    return Layout(
        labels, infrared, Sizes(draw(st.integers(1, 4)), 2 * draw(st.integers(1, 4)), 2 * draw(st.integers(1, 9)))
    )


def check_none(layout: Layout, batches: np.ndarray) -> None:
    images = batches.ravel().tolist()
    assert len(set(images)) == len(images)  # no image twice
    assert len(batches) == len(layout.labels) // layout.sizes.batch_size


def check_norm_triplet(layout: Layout, batches: np.ndarray) -> None:
    uses = Counter(batches.ravel().tolist())
    for batch in batches:
        groups = layout.labels[batch].reshape(layout.sizes.p_size, layout.sizes.k_size)
        assert (groups == groups[:, :1]).all()
        assert len(set(groups[:, 0])) == layout.sizes.p_size
    counts = Counter(layout.labels.tolist())
    for image, times in uses.items():  # an image repeats only if its identity has too few images for one group
        assert times == 1 or counts[layout.labels[image]] < layout.sizes.k_size
    for label, count in Counter(layout.labels[batches].ravel().tolist()).items():
        assert count <= max(layout.sizes.k_size, counts[label])


def check_cross_modality_random(layout: Layout, batches: np.ndarray) -> None:
    uses = Counter(batches.ravel().tolist())
    larger = layout.infrared.mean() > 0.5
    for batch in batches:
        visible, thermal = np.split(batch, 2)
        assert not layout.infrared[visible].any()
        assert layout.infrared[thermal].all()
    assert all(times == 1 for image, times in uses.items() if layout.infrared[image] == larger)
    scarce = [times for image, times in uses.items() if layout.infrared[image] != larger]
    few, many = sorted((layout.infrared.sum(), (~layout.infrared).sum()))
    assert max(scarce) <= -(-many // few)


def check_cross_modality_identity(layout: Layout, batches: np.ndarray) -> None:
    half = layout.sizes.k_size // 2
    for batch in batches:
        visible, thermal = (side.reshape(layout.sizes.p_size, half) for side in np.split(batch, 2))
        assert not layout.infrared[visible].any()
        assert layout.infrared[thermal].all()
        assert (layout.labels[visible] == layout.labels[thermal]).all()
        assert len(set(layout.labels[visible[:, 0]].tolist())) == layout.sizes.p_size
        for group in (*visible, *thermal):
            there = layout.labels == layout.labels[group[0]]
            there &= layout.infrared == layout.infrared[group[0]]
            assert len(set(group.tolist())) == half or there.sum() < half  # repeats only if images are too few


def check_identity_cross_modality(layout: Layout, batches: np.ndarray) -> None:
    half = layout.sizes.k_size // 2
    uses = Counter(batches.ravel().tolist())
    for batch in batches:
        assert layout.infrared[batch[0::2]].all()
        assert not layout.infrared[batch[1::2]].any()
        groups = layout.labels[batch].reshape(layout.sizes.p_size, layout.sizes.k_size)
        assert (groups == groups[:, :1]).all()
        assert len(set(groups[:, 0])) == layout.sizes.p_size
    for image, times in uses.items():
        there = (layout.labels == layout.labels[image]) & (layout.infrared == layout.infrared[image])
        assert times == 1 or there.sum() < half


def check_cross_modality_uniform(layout: Layout, batches: np.ndarray) -> None:
    half = layout.sizes.k_size // 2
    larger = max(layout.infrared.sum(), (~layout.infrared).sum())
    assert len(batches) == larger // (layout.sizes.p_size * half) + 1
    for batch in batches:
        visible, thermal = (side.reshape(layout.sizes.p_size, half) for side in np.split(batch, 2))
        assert not layout.infrared[visible].any()
        assert layout.infrared[thermal].all()
        assert (layout.labels[visible] == layout.labels[thermal]).all()
        assert (layout.labels[visible] == layout.labels[visible[:, :1]]).all()
        assert len(set(layout.labels[visible[:, 0]].tolist())) == layout.sizes.p_size


CHECKS = {
    "cross_modality_uniform": check_cross_modality_uniform,
    "none": check_none,
    "norm_triplet": check_norm_triplet,
    "cross_modality_random": check_cross_modality_random,
    "cross_modality_identity": check_cross_modality_identity,
    "identity_cross_modality": check_identity_cross_modality,
}


def test_every_sampler_has_its_check():
    assert CHECKS.keys() == SAMPLERS.keys()


@pytest.mark.parametrize("method", SAMPLERS)
@given(layout=layouts(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None)
def test_any_layout_keeps_what_the_method_promises_or_is_refused(method, layout, seed):
    before = layout.labels.copy(), layout.infrared.copy()
    try:
        drawn = layout.sampler(method, seed)
    except UserError as error:
        assert str(error).startswith("sample_method: ")
        assert str(error).isprintable()
        return
    size = layout.sizes.p_size * layout.sizes.k_size if SAMPLERS[method].draws_identities else layout.sizes.batch_size
    lists = {}
    for epoch in (1, 2, 5):
        drawn.set_epoch(epoch)
        lists[epoch] = list(drawn)
        assert len(drawn) == len(lists[epoch]) > 0
        batches = np.array(lists[epoch])
        assert batches.shape == (len(drawn), size)
        assert 0 <= batches.min() <= batches.max() < len(layout.labels)
        CHECKS[method](layout, batches)
    again = layout.sampler(method, seed)
    for epoch in (5, 1, 2):  # the epochs before make no difference
        again.set_epoch(epoch)
        assert list(again) == lists[epoch]
    assert (before[0] == layout.labels).all()
    assert (before[1] == layout.infrared).all()


@pytest.mark.parametrize("method", SAMPLERS)
def test_no_image_at_all_is_refused(method):
    with pytest.raises(UserError, match="no complete batch from 0 images"):
        sampler(method, np.array([], dtype=int), np.array([], dtype=bool))
