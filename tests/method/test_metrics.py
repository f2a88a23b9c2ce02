import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.loops import loop_metrics
from tests.helpers.golden import golden_cases
from utils.metrics import EXCLUDE, exclusion_keys, retrieval_metrics


@pytest.mark.parametrize("case", [*golden_cases("metrics"), *golden_cases("metrics_short")])
@pytest.mark.usefixtures("kernels")
def test_golden(case):
    inputs = ("distance", "query_ids", "query_cameras", "gallery_ids", "gallery_cameras")
    metrics = retrieval_metrics(*(case[name] for name in inputs))
    np.testing.assert_allclose(metrics.cmc, case["cmc"], atol=1e-6)
    np.testing.assert_allclose([metrics.mAP, metrics.mINP], [case["mAP"], case["mINP"]], atol=1e-6)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 12),
    st.integers(1, 25),
    st.integers(1, 6),
    st.booleans(),
    st.sampled_from(EXCLUDE),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_equals_the_loops(kernels, seed, queries, images, identities, ties, exclude):
    random = np.random.default_rng(seed)
    distance = random.integers(0, 4, (queries, images)) if ties else random.random((queries, images))
    ids = random.integers(0, identities, queries), random.integers(0, identities, images)
    cameras = random.integers(1, 4, queries), random.integers(1, 4, images)
    arguments = (distance, ids[0], cameras[0], ids[1], cameras[1])
    match = (ids[0][:, None] == ids[1]) & (cameras[0][:, None] != cameras[1])
    if not match.any():
        with pytest.raises(ValueError, match="no query has a match"):
            retrieval_metrics(*arguments, exclude=exclude)
        return
    metrics = retrieval_metrics(*arguments, exclude=exclude)
    cmc, mAP, mINP = loop_metrics(*arguments, exclude=exclude)
    np.testing.assert_allclose(metrics.cmc, cmc, atol=1e-12)
    np.testing.assert_allclose([metrics.mAP, metrics.mINP], [mAP, mINP], atol=1e-12)


def test_arguments_are_not_changed():
    random = np.random.default_rng(0)
    arguments = [random.random((3, 9)), *(random.integers(0, 3, n) for n in (3, 3, 9, 9))]
    copies = [argument.copy() for argument in arguments]
    retrieval_metrics(*arguments)
    for argument, copy in zip(arguments, copies, strict=True):
        np.testing.assert_array_equal(argument, copy)


@pytest.mark.usefixtures("kernels")
def test_nan_is_an_error():
    distance = np.zeros((2, 3), dtype=np.float32)
    distance[1, 2] = np.nan
    with pytest.raises(ValueError, match="is NaN"):
        retrieval_metrics(distance, [1, 1], [1, 1], [1, 1, 2], [2, 2, 2])


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, np.uint16, ">f4"])
def test_number_types(dtype):
    metrics = retrieval_metrics(np.array([[3, 1, 2]], dtype=dtype), [1], [1], [1, 2, 1], [2, 2, 2])
    assert metrics.mAP == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.usefixtures("kernels")
def test_views_and_read_only_arrays():
    distance = np.array([[2.0, 1.0, 3.0]])
    distance.flags.writeable = False
    for view in (distance[:, ::-1], np.asfortranarray(distance[:, ::-1]), torch.tensor([[3.0, 1, 2]])):
        assert retrieval_metrics(view, [1], [1], [1, 2, 1], [2, 2, 2]).mAP == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.usefixtures("kernels")
def test_same_identity_and_camera_are_ignored_but_other_identities_stay():
    """The nearest image shows the query itself, the second another identity in the same camera."""
    distance, gallery = np.array([[1.0, 2, 3]]), ([7, 8, 7], [1, 1, 2])
    assert retrieval_metrics(distance, [7], [1], *gallery, exclude="identity_and_camera").cmc.tolist() == [0, 1]
    assert retrieval_metrics(distance, [7], [1], *gallery).cmc.tolist() == [1, 1]
    with pytest.raises(ValueError, match="no query has a match"):
        retrieval_metrics(distance, [7], [1], [7, 8, 7], [1, 2, 1], exclude="identity_and_camera")


def test_pairs_of_identity_and_camera_have_keys_of_their_own():
    ids, cameras = np.divmod(np.arange(12), 3)
    queries, gallery = exclusion_keys(ids, 5 * cameras, ids[::-1], 5 * cameras[::-1], "identity_and_camera")
    assert len(set(queries.tolist())) == 12
    np.testing.assert_array_equal(queries, gallery[::-1])


def test_unknown_exclude_is_an_error():
    with pytest.raises(ValueError, match="unknown exclude 'place'; choose from camera, identity_and_camera"):
        retrieval_metrics(np.zeros((1, 1)), [1], [1], [1], [2], exclude="place")


def test_empty_gallery_is_an_error():
    with pytest.raises(ValueError, match="no query has a match"):
        retrieval_metrics(np.zeros((1, 0)), [1], [1], [], [])


def test_wrong_shapes_are_an_error():
    with pytest.raises(ValueError, match=r"\(2, 3\) do not fit"):
        retrieval_metrics(np.zeros((2, 3)), [1, 1], [1, 1], [1, 1], [2, 2])
