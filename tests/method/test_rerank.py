import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.golden import golden_cases
from utils.kernels import torch as kernels_torch
from utils.rerank import MSER, QueryReranker, mser_distance, rerank_all

ROOT = Path(__file__).resolve().parents[2]


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
@pytest.mark.usefixtures("kernels")
def test_golden(case, once):
    case = infrared_once(case) if once else case
    distance = mser_distance(case["query"], case["gallery"], **options(case))
    np.testing.assert_allclose(distance, case["distance_float32"], atol=1e-5)
    np.testing.assert_allclose(distance, case["distance"], atol=5e-3)  # the released half precision


@given(
    st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 12), st.integers(1, 8), st.integers(1, 5),
    st.sampled_from(["queries", "all"]), st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_equals_the_slow_version(kernels, seed, queries, images, k1, k2, neighbours, infrared_queries):
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


def test_refuses_what_is_empty():
    one = random_features(np.random.default_rng(0), 1, 3, 2)
    for neighbours in ("queries", "all"):
        for sides in ((one, one[:, :0]), (one[:, :0], one), (one[:0], one)):
            with pytest.raises(ValueError, match="spectra, images, dimensions"):
                mser_distance(*sides, k1=2, k2=1, lam=0.3, neighbours=neighbours)


@pytest.mark.parametrize("neighbours", ["queries", "all"])
@pytest.mark.parametrize("visible_queries", [True, False])
def test_visible_images_without_colour_keep_their_spectra(kernels, neighbours, visible_queries):
    """Each of their equal spectra is a neighbour of its own."""
    random = np.random.default_rng(2)
    infrared, visible = random_features(random, 1, 20, 6), random_features(random, 1, 15, 6).repeat(4, 1, 1)
    sides = (visible, infrared) if visible_queries else (infrared, visible)
    expected = slow_mser(*(side.numpy() for side in sides), 5, 3, 0.3, neighbours)
    found = mser_distance(*sides, k1=5, k2=3, lam=0.3, neighbours=neighbours)
    # equal spectra tie, and rounding decides which of them is among the k nearest
    assert np.abs(found.numpy() - expected).mean() < 0.01


def random_features(random: np.random.Generator, *shape: int) -> torch.Tensor:
    features = random.standard_normal(shape).astype(np.float32)
    return torch.from_numpy(features / np.linalg.norm(features, axis=-1, keepdims=True))


def test_galleries_out_of_a_pool_are_ranked_as_if_alone(kernels):
    """Rank lists and reciprocal sets are shared between galleries; distances are those of each gallery alone."""
    random = np.random.default_rng(0)
    query, pool = random_features(random, 1, 30, 6), random_features(random, 4, 50, 6)
    reranker = QueryReranker(query, pool, MSER(8, 4, 0.3))
    for size in (1, 7, 50):
        columns = torch.from_numpy(random.permutation(50)[:size])
        alone = mser_distance(query, pool[:, columns], k1=8, k2=4, lam=0.3, neighbours="queries")
        np.testing.assert_allclose(reranker.distance(columns), alone, atol=1e-6)


@pytest.mark.parametrize("neighbours", ["queries", "all"])
def test_equal_features_have_equal_distances(kernels, neighbours):
    """As of a model that has collapsed: no distance is NaN."""
    same = random_features(np.random.default_rng(0), 1, 1, 6).repeat(1, 12, 1)
    distance = mser_distance(same, same.repeat(4, 1, 1), k1=5, k2=3, lam=0.3, neighbours=neighbours)
    assert distance.isfinite().all()
    assert distance.max() - distance.min() < 1


def test_rounding_of_infrared_spectra_is_forgiven(kernels):
    random = np.random.default_rng(0)
    query, gallery = random_features(random, 1, 20, 6), random_features(random, 4, 15, 6)
    expected = mser_distance(query, gallery, k1=5, k2=3, lam=0.3, neighbours="queries")
    four = query + torch.from_numpy(random.normal(0, 1e-6, (4, 20, 6)).astype(np.float32))
    np.testing.assert_allclose(
        mser_distance(four, gallery, k1=5, k2=3, lam=0.3, neighbours="queries"), expected, atol=1e-4
    )


def test_both_directions_at_once(kernels):
    random = np.random.default_rng(1)
    infrared, visible = random_features(random, 1, 20, 6), random_features(random, 4, 25, 6)
    forward, backward = rerank_all(infrared, visible, MSER(7, 3, 0.2))
    np.testing.assert_allclose(forward, slow_mser(infrared.numpy(), visible.numpy(), 7, 3, 0.2, "all"), atol=2e-6)
    np.testing.assert_allclose(backward, slow_mser(visible.numpy(), infrared.numpy(), 7, 3, 0.2, "all"), atol=2e-6)


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_blocks_change_nothing(kernels, rows, monkeypatch):
    case = infrared_once(golden_cases("mser")[0])
    whole = {
        neighbours: mser_distance(case["query"], case["gallery"], k1=9, k2=4, lam=0.3, neighbours=neighbours)
        for neighbours in ("queries", "all")
    }
    monkeypatch.setattr("utils.tensors.BLOCK_BYTES", rows * 4 * 140)
    monkeypatch.setattr("utils.kernels.torch.PAIRS", rows * 7)
    for neighbours, expected in whole.items():
        found = mser_distance(case["query"], case["gallery"], k1=9, k2=4, lam=0.3, neighbours=neighbours)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 30), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_smallest_is_a_stable_sort(kernels, seed, rows, columns, ties):
    random = np.random.default_rng(seed)
    values = random.integers(0, 4, (rows, columns)) if ties else random.random((rows, columns))
    values = torch.from_numpy(values.astype(np.float32))
    for count in (0, 1, columns // 2, columns):
        expected = np.argsort(values.numpy(), axis=1, kind="stable")[:, :count]
        np.testing.assert_array_equal(kernels.smallest(values, count), expected)


def test_without_numba_the_loops_run_in_torch():
    program = "import sys; sys.modules['numba'] = None; import utils.kernels as k; print(k.on_cpu.__name__)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == kernels_torch.__name__


def test_where_compiled_code_cannot_be_kept_it_is_made_each_time():
    program = (
        "from numba.core.caching import CacheImpl; CacheImpl._locator_classes = [];"
        " import torch, utils.kernels as k; a = torch.arange(12.0).reshape(3, 4);"
        " print(k.on_cpu.__name__, k.on_cpu.smallest(a, 2).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "utils.kernels_numba [[0, 1], [0, 1], [0, 1]]"


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_damaged_compiled_code_is_made_anew(content, tmp_path):
    """What numba keeps on the disk may be cut by a power failure; half of it stands for None."""
    program = (
        "import torch, utils.kernels_numba as k; a = torch.arange(12.0).reshape(3, 4);"
        " print(k.smallest(a, 2).tolist(), k.row_maxima(a, torch.tensor([0, 3])).tolist())"
    )
    command = [sys.executable, "-c", program]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}

    def run() -> str:
        options = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True}
        return subprocess.run(command, **options, check=True).stdout

    expected = run()
    kept = [path for path in tmp_path.rglob("*") if path.suffix in (".nbi", ".nbc")]
    assert kept
    for path in kept:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    assert run() == expected
