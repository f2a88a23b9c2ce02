import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.loops import loop_mser
from tests.helpers.golden import golden_cases
from utils.rerank import MSER, NEIGHBOURS, Reranker, mser_distance

ROOT = Path(__file__).resolve().parents[2]
every_neighbours = pytest.mark.parametrize("neighbours", NEIGHBOURS)
examples = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def random_features(seed: int, *shape: int) -> Tensor:
    features = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))
    return torch.nn.functional.normalize(features, dim=-1)


def loops(query: Tensor, gallery: Tensor, mser: MSER, neighbours: str) -> np.ndarray:
    return loop_mser(query.double().numpy(), gallery.double().numpy(), *mser[:3], neighbours)


def infrared_once(case):
    """Golden inputs repeat the infrared features once per spectrum; extraction gives them once."""
    side = "query" if case["direction"] == "infrared_to_visible" else "gallery"
    return {**case, side: case[side][:1]}


def options(case):
    numbers = {"k1": int(case["k1"]), "k2": int(case["k2"]), "lam": float(case["lambda"])}
    return numbers | {"neighbours": str(case["neighbours"])}


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
    st.sampled_from(NEIGHBOURS), st.booleans(),
)  # fmt: skip
@examples
def test_equals_the_loops(kernels, seed, queries, images, k1, k2, neighbours, infrared_queries):
    spectra = (1, 4) if infrared_queries else (4, 1)
    query, gallery = random_features(seed, spectra[0], queries, 5), random_features(seed + 1, spectra[1], images, 5)
    found = mser_distance(query, gallery, k1=k1, k2=k2, lam=0.3, neighbours=neighbours)
    np.testing.assert_allclose(found, loops(query, gallery, MSER(k1, k2, 0.3), neighbours), atol=2e-6)


@pytest.mark.parametrize("k2", [1, 3])
@pytest.mark.parametrize("spectra", [(1, 4), (4, 1)])
def test_reverse_distance_equals_the_loops(kernels, spectra, k2):
    mser = MSER(7, k2, 0.2)
    query, gallery = random_features(1, spectra[0], 20, 6), random_features(2, spectra[1], 25, 6)
    reranker = Reranker(query, gallery, mser, neighbours="all")
    np.testing.assert_allclose(reranker.distance(), loops(query, gallery, mser, "all"), atol=2e-6)
    np.testing.assert_allclose(reranker.reverse_distance(), loops(gallery, query, mser, "all"), atol=2e-6)


def test_reverse_distance_needs_all_as_neighbours():
    reranker = Reranker(random_features(1, 1, 5, 6), random_features(2, 4, 5, 6), MSER(3, 2, 0.2), neighbours="queries")
    with pytest.raises(ValueError, match="only defined for neighbours 'all'"):
        reranker.reverse_distance()


def test_galleries_out_of_one_pool(kernels):
    """If only queries are neighbours, a gallery image's distances do not depend on the rest of the pool."""
    query, pool = random_features(1, 1, 30, 6), random_features(2, 4, 50, 6)
    reranker = Reranker(query, pool, MSER(8, 4, 0.3), neighbours="queries")
    for size in (1, 7, 50):
        columns = torch.from_numpy(np.random.default_rng(0).permutation(50)[:size])
        alone = mser_distance(query, pool[:, columns], k1=8, k2=4, lam=0.3, neighbours="queries")
        np.testing.assert_allclose(reranker.distance(columns), alone, atol=1e-6)


def test_columns_of_a_pool_whose_images_are_neighbours(kernels):
    reranker = Reranker(random_features(1, 1, 20, 6), random_features(2, 4, 25, 6), MSER(7, 3, 0.2), neighbours="all")
    columns = torch.tensor([24, 0, 7])
    np.testing.assert_allclose(reranker.distance(columns), reranker.distance()[:, columns], atol=1e-6)


def test_arguments_are_not_changed():
    case = golden_cases("mser")[0]
    query, gallery = case["query"].copy(), case["gallery"].copy()
    mser_distance(query, gallery, **options(case))
    np.testing.assert_array_equal(query, case["query"])
    np.testing.assert_array_equal(gallery, case["gallery"])


def test_results_are_not_views_of_what_is_kept(kernels):
    reranker = Reranker(random_features(1, 1, 9, 6), random_features(2, 4, 9, 6), MSER(3, 2, 0.2), neighbours="all")
    for compute in (reranker.distance, reranker.reverse_distance):
        expected = compute().clone()
        compute().zero_()
        assert torch.equal(compute(), expected)


def test_wrong_arguments():
    a, b = random_features(1, 4, 3, 2), random_features(2, 4, 5, 2)
    with pytest.raises(ValueError, match="one side has to be infrared"):
        mser_distance(a, b, k1=2, k2=1, lam=0.3, neighbours="all")
    with pytest.raises(ValueError, match="unknown neighbours 'some'"):
        mser_distance(a[:1], b, k1=2, k2=1, lam=0.3, neighbours="some")
    with pytest.raises(ValueError, match="spectra, images, dimensions"):
        mser_distance(a[0], b, k1=2, k2=1, lam=0.3, neighbours="all")


@every_neighbours
def test_empty_sides_are_an_error(neighbours):
    one = random_features(0, 1, 3, 2)
    for sides in ((one, one[:, :0]), (one[:, :0], one), (one[:0], one)):
        with pytest.raises(ValueError, match="spectra, images, dimensions"):
            mser_distance(*sides, k1=2, k2=1, lam=0.3, neighbours=neighbours)


@every_neighbours
@pytest.mark.parametrize("visible_queries", [True, False])
def test_visible_images_without_colour_keep_their_spectra(kernels, neighbours, visible_queries):
    """The spectra of a visible image are equal, but each counts as a separate neighbour."""
    infrared, visible = random_features(1, 1, 20, 6), random_features(2, 1, 15, 6).repeat(4, 1, 1)
    sides = (visible, infrared) if visible_queries else (infrared, visible)
    found = mser_distance(*sides, k1=5, k2=3, lam=0.3, neighbours=neighbours)
    # equal spectra tie, and rounding decides which of them is among the k nearest
    assert np.abs(found.numpy() - loops(*sides, MSER(5, 3, 0.3), neighbours)).mean() < 0.01


@every_neighbours
def test_equal_features_give_finite_distances(kernels, neighbours):
    """All embeddings of a collapsed model are equal."""
    same = random_features(0, 1, 1, 6).repeat(1, 12, 1)
    distance = mser_distance(same, same.repeat(4, 1, 1), k1=5, k2=3, lam=0.3, neighbours=neighbours)
    assert distance.isfinite().all()
    assert distance.max() - distance.min() < 1


def test_infrared_spectra_may_differ_by_rounding(kernels):
    query, gallery = random_features(1, 1, 20, 6), random_features(2, 4, 15, 6)
    expected = mser_distance(query, gallery, k1=5, k2=3, lam=0.3, neighbours="queries")
    four = query + 1e-6 * random_features(3, 4, 20, 6)
    found = mser_distance(four, gallery, k1=5, k2=3, lam=0.3, neighbours="queries")
    np.testing.assert_allclose(found, expected, atol=1e-4)


@every_neighbours
@pytest.mark.parametrize("rows", [1, 3, 100])
def test_block_size_does_not_matter(kernels, rows, neighbours, monkeypatch):
    case = infrared_once(golden_cases("mser")[0])
    arguments = options(case) | {"neighbours": neighbours}
    expected = mser_distance(case["query"], case["gallery"], **arguments)
    monkeypatch.setattr("utils.tensors.BLOCK_BYTES", rows * 4 * 140)
    monkeypatch.setattr("utils.kernels.torch_kernels.PAIRS", rows * 7)
    found = mser_distance(case["query"], case["gallery"], **arguments)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 30), st.booleans())
@examples
def test_smallest_is_a_stable_sort(kernels, seed, rows, columns, ties):
    random = np.random.default_rng(seed)
    values = random.integers(0, 4, (rows, columns)) if ties else random.random((rows, columns))
    values = torch.from_numpy(values.astype(np.float32))
    for count in (1, (columns + 1) // 2, columns):
        expected = np.argsort(values.numpy(), axis=1, kind="stable")[:, :count]
        np.testing.assert_array_equal(kernels.smallest(values, count), expected)


def output(program: str, **environment: str) -> str:
    command = [sys.executable, "-c", program]
    options = {"cwd": ROOT, "env": os.environ | environment, "capture_output": True, "text": True, "check": True}
    return subprocess.run(command, **options).stdout.strip()


SMALLEST = "import torch, utils.kernels as k; print(k.on_cpu.__name__, k.on_cpu.smallest(torch.ones(3, 4), 2).tolist())"
EXPECTED = "[[0, 1], [0, 1], [0, 1]]"


def test_without_numba():
    assert output(f"import sys; sys.modules['numba'] = None; {SMALLEST}") == f"utils.kernels.torch_kernels {EXPECTED}"


def test_without_a_writable_cache_folder():
    program = f"from numba.core.caching import CacheImpl; CacheImpl._locator_classes = []; {SMALLEST}"
    assert output(program) == f"utils.kernels.numba_kernels {EXPECTED}"


@pytest.mark.faults  # slow
@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_damaged_cache_is_compiled_again(content, tmp_path):
    """A power failure may truncate numba's cached files. None: each file is cut to half."""
    assert output(SMALLEST, NUMBA_CACHE_DIR=str(tmp_path)) == f"utils.kernels.numba_kernels {EXPECTED}"
    kept = [path for path in tmp_path.rglob("*") if path.suffix in (".nbi", ".nbc")]
    assert kept
    for path in kept:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    assert output(SMALLEST, NUMBA_CACHE_DIR=str(tmp_path)) == f"utils.kernels.numba_kernels {EXPECTED}"
