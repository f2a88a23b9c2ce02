"""Triplet and centre losses: golden values, loops as oracles, degenerate batches."""

from functools import partial

import numpy as np
import pytest
import torch

from losses.centers import hetero_center, hetero_center_triplet
from losses.triplet import batch_hard_triplet, weighted_regularization_triplet
from tests.helpers.golden import GOLDEN

NAMES = {
    "wrt": lambda f, ids, ir: weighted_regularization_triplet(f, ids),
    "wrt_exact": lambda f, ids, ir: weighted_regularization_triplet(f, ids, exact=True),
    "batch_hard_m0.3": lambda f, ids, ir: batch_hard_triplet(f, ids, margin=0.3),
    "hc_l2_m0": hetero_center,
    "hc_l2_m0.1": partial(hetero_center, margin=0.1),
    "hc_cos_m0": partial(hetero_center, distance="cosine"),
    "hc_triplet_m0.3": hetero_center_triplet,
}


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN / "triplet_losses.npz"))


@pytest.fixture
def shuffled(golden):
    """The order of the images must not matter."""
    return torch.from_numpy(np.random.default_rng(0).permutation(len(golden["labels"])))


@pytest.mark.parametrize("scale", ["x1", "x025", "x6"])
@pytest.mark.parametrize("name", NAMES)
def test_golden_values_and_gradients(name, scale, golden, shuffled):
    embeddings = torch.from_numpy(golden[f"embeddings_{scale}"]).requires_grad_()
    ids, infrared = (torch.from_numpy(golden[key]) for key in ("labels", "is_infrared"))
    loss = NAMES[name](embeddings[shuffled], ids[shuffled], infrared[shuffled])
    loss.backward()
    np.testing.assert_allclose(loss.item(), golden[f"{name}_{scale}/value"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(embeddings.grad, golden[f"{name}_{scale}/grad"], rtol=1e-5, atol=1e-7)


def slow(name: str, features: np.ndarray, ids: np.ndarray, infrared: np.ndarray) -> float:
    """The losses image by image, identity by identity."""
    if name.startswith("hc"):
        pairs = [
            tuple(features[(ids == i) & (infrared == modality)].mean(axis=0) for modality in (False, True))
            for i in np.unique(ids)
            if len(set(infrared[ids == i])) == 2
        ]
        if name == "hc_cos_m0":
            return sum(1 - v @ t / np.linalg.norm(v) / np.linalg.norm(t) for v, t in pairs)
        if name != "hc_triplet_m0.3":
            return sum(max(0, ((v - t) ** 2).sum() - float(name[7:])) for v, t in pairs)
        features, ids, name = np.array([c for pair in pairs for c in pair]), np.repeat(range(len(pairs)), 2), "batch"
    losses = []
    for i, anchor in enumerate(features):
        d = np.sqrt(np.maximum(((features - anchor) ** 2).sum(axis=1), 1e-12))
        positives, negatives = d[ids == ids[i]], d[ids != ids[i]]
        if not len(negatives):
            continue
        if name.startswith("batch"):
            losses.append(max(0, positives.max() - negatives.min() + 0.3))
        else:
            tiny = 0 if name == "wrt_exact" else 1e-6
            near, far = np.exp(-negatives), np.exp(positives - positives.max())
            gap = far @ positives / (far.sum() + tiny) - near @ negatives / (near.sum() + tiny)
            losses.append(np.log1p(np.exp(gap)))
    return float(np.mean(losses)) if losses else 0.0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", NAMES)
def test_values_equal_those_of_loops(name, seed):
    rng = np.random.default_rng(seed)
    ids, infrared = rng.integers(0, 5, 14), rng.random(14) < 0.4  # some identities are seen in one modality only
    features = rng.standard_normal((14, 6))
    found = NAMES[name](*(torch.from_numpy(values) for values in (features, ids, infrared)))
    assert found.item() == pytest.approx(slow(name, features, ids, infrared), abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name):
    random = torch.Generator().manual_seed(0)
    features = torch.randn(8, 3, generator=random, dtype=torch.float64, requires_grad=True)
    ids, infrared = torch.tensor([0, 0, 1, 1, 0, 1, 2, 2]), torch.arange(8) % 2 == 1
    assert torch.autograd.gradcheck(lambda f: NAMES[name](f, ids, infrared), features)


DEGENERATE = {
    "one image": ([3], [True]),
    "one identity": ([3, 3, 3, 3], [False, True, False, True]),
    "one image of each identity": ([1, 2, 3], [False, True, False]),
    "one modality": ([1, 1, 2, 2], [True] * 4),
}


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("equal", [True, False])
def test_degenerate_batches_are_finite_and_differentiable(name, case, equal):
    ids, infrared = map(torch.tensor, DEGENERATE[case])
    features = torch.zeros(len(ids), 4) if equal else torch.randn(len(ids), 4)
    features.requires_grad_()
    loss = NAMES[name](features, ids, infrared)
    loss.backward()
    assert loss.isfinite()
    assert features.grad.isfinite().all()
    one_identity = case in ("one image", "one identity")
    needs_both_modalities, needs_a_negative = name.startswith("hc"), name not in ("hc_l2_m0", "hc_l2_m0.1", "hc_cos_m0")
    if (needs_both_modalities and case != "one identity") or (needs_a_negative and one_identity):
        assert loss == 0
        assert not features.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_autocast_does_not_reach_them(name, dtype):
    features = torch.randn(12, 6)
    ids, infrared = torch.arange(12) // 4, torch.arange(12) % 2 == 1
    expected = NAMES[name](features, ids, infrared)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(NAMES[name](features, ids, infrared), expected)
    assert NAMES[name](features.to(dtype), ids, infrared).dtype == torch.float32


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("gap", [80.0, 95.0, 1000.0])
def test_far_negatives_do_not_overflow(gap, exact):
    """exp of a distance above 88 is infinite in float32; a masked infinity would be NaN."""
    embeddings = torch.tensor([[0.0, 0], [1, 0], [gap, 0], [gap + 1, 0]], requires_grad=True)
    loss = weighted_regularization_triplet(embeddings, torch.tensor([0, 0, 1, 1]), exact=exact)
    loss.backward()
    assert loss.isfinite()
    assert embeddings.grad.isfinite().all()
