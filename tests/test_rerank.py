import numpy as np
import pytest
from conftest import golden_cases
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.rerank import mser_distance


def slow_mser(query, gallery, k1, k2, lam, neighbours):
    """Row by row, as the method is worded, in float64."""
    spectra = [features.reshape(-1, features.shape[-1]).astype(np.float64) for features in (query, gallery)]
    count, rows = len(spectra[0]), np.concatenate(spectra)
    distance = ((rows[:, None] - rows[None]) ** 2).sum(axis=-1)
    relative = distance / distance.max(axis=1, keepdims=True)
    candidates = np.arange(count if neighbours == "queries" else len(rows))
    ranked = [candidates[np.argsort(row[candidates], kind="stable")] for row in distance]
    weights = np.zeros_like(distance)
    for i in range(len(rows)):
        mutual = [j for j in ranked[i][: k1 + 1] if i in ranked[j][: k1 + 1]]
        if mutual:
            weights[i, mutual] = np.exp(-relative[i, mutual])
            weights[i] /= weights[i].sum()
    if k2 != 1:
        weights = np.stack([weights[near[:k2]].mean(axis=0) for near in ranked])
    shared = np.minimum(weights[:count, None], weights[None, count:]).sum(axis=-1)
    final = (1 - lam) * (1 - shared / (2 - shared)) + lam * relative[:count, count:]
    return final.reshape(len(query), query.shape[1], len(gallery), gallery.shape[1]).mean(axis=(0, 2))


def infrared_once(case):
    """Golden inputs repeat the infrared side four times; extraction gives it once."""
    side = "query" if case["direction"] == "infrared_to_visible" else "gallery"
    return {**case, side: case[side][:1]}


def options(case):
    return {
        "k1": int(case["k1"]),
        "k2": int(case["k2"]),
        "lam": float(case["lambda"]),
        "neighbours": str(case["neighbours"]),
    }


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("case", golden_cases("mser"), ids=lambda case: f"{case['direction']}-{case['neighbours']}")
def test_golden(case, once):
    case = infrared_once(case) if once else case
    distance = mser_distance(case["query"], case["gallery"], **options(case))
    np.testing.assert_allclose(distance, case["distance_float32"], atol=1e-5)
    np.testing.assert_allclose(distance, case["distance"], atol=5e-3)  # the released half precision


@given(
    st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 12), st.integers(1, 8), st.integers(1, 5),
    st.sampled_from(["queries", "all"]), st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_equals_the_slow_version(seed, queries, images, k1, k2, neighbours, infrared_queries):
    random = np.random.default_rng(seed)
    sides = (1, 4) if infrared_queries else (4, 1)
    query, gallery = (
        random.standard_normal((spectra, count, 5)).astype(np.float32)
        for spectra, count in zip(sides, (queries, images), strict=True)
    )
    query, gallery = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (query, gallery))
    found = mser_distance(query, gallery, k1=k1, k2=k2, lam=0.3, neighbours=neighbours)
    np.testing.assert_allclose(found, slow_mser(query, gallery, k1, k2, 0.3, neighbours), atol=2e-6)


def test_arguments_are_left_as_they_are():
    case = golden_cases("mser")[0]
    query, gallery = case["query"].copy(), case["gallery"].copy()
    mser_distance(query, gallery, **options(case))
    np.testing.assert_array_equal(query, case["query"])
    np.testing.assert_array_equal(gallery, case["gallery"])


def test_refuses_what_cannot_pair():
    random = np.random.default_rng(0)
    a, b = random.random((4, 3, 2)), random.random((4, 5, 2))
    with pytest.raises(ValueError, match="one side has to be infrared"):
        mser_distance(a, b, k1=2, k2=1, lam=0.3, neighbours="all")
    with pytest.raises(ValueError, match="unknown neighbours 'some'"):
        mser_distance(a[:1], b, k1=2, k2=1, lam=0.3, neighbours="some")
    with pytest.raises(ValueError, match="spectra, images, dimensions"):
        mser_distance(a[0], b, k1=2, k2=1, lam=0.3, neighbours="all")
