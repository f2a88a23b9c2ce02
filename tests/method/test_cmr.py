import numpy as np
import pytest
import torch
from torch.nn import functional

from losses.cmr import cross_modality_retrieval_loss
from losses.soft_rank import soft_rank
from tests.helpers.golden import golden_cases
from tests.helpers.losses import BACKENDS


def slow_loss(embeddings, identities, is_infrared):
    """Loop over queries; each gallery is ranked alone."""
    normalised = functional.normalize(embeddings, dim=1)
    means = []
    for side in (False, True):
        errors = []
        gallery = [j for j in range(len(embeddings)) if bool(is_infrared[j]) != side]
        for i in (i for i in range(len(embeddings)) if bool(is_infrared[i]) == side):
            match = torch.tensor([bool(identities[i] == identities[j]) for j in gallery])
            if match.any() and not match.all():
                distance = (1 - normalised[gallery] @ normalised[i]) / 2
                target = torch.where(match, 1.0, float(len(gallery)))
                errors.append((soft_rank(distance[None], 0.5, backend="builtin")[0] - target).abs())
        if errors:
            means.append(torch.cat(errors).mean())
    return sum(means) / len(means) if means else embeddings.sum() * 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", golden_cases("cmr_loss"), ids=lambda case: str(case["note"])[:20])
def test_golden_loss_and_gradient(case, backend):
    embeddings = torch.tensor(case["embeddings"], requires_grad=True)
    loss = cross_modality_retrieval_loss(
        embeddings, torch.tensor(case["identities"]), torch.tensor(case["is_infrared"]), backend=backend
    )
    loss.backward()
    np.testing.assert_allclose(loss.item(), case["loss"], rtol=1e-4)
    scale = np.abs(case["grad"]).max()
    np.testing.assert_allclose(embeddings.grad / scale, case["grad"] / scale, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(8))
def test_equals_the_slow_version(seed, backend):
    random = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(14, 6, generator=random, dtype=torch.float64)
    identities = torch.randint(0, 4, (14,), generator=random)
    is_infrared = torch.rand(14, generator=random) < (0.1, 0.3, 0.5, 0.8)[seed % 4]
    loss = cross_modality_retrieval_loss(embeddings, identities, is_infrared, backend=backend)
    torch.testing.assert_close(loss, slow_loss(embeddings, identities, is_infrared), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend):
    random = torch.Generator().manual_seed(5)
    embeddings = torch.randn(8, 4, generator=random, dtype=torch.float64, requires_grad=True)
    identities = torch.tensor([0, 0, 1, 1, 2, 2, 0, 1])
    is_infrared = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1]).bool()
    assert torch.autograd.gradcheck(
        lambda e: cross_modality_retrieval_loss(e, identities, is_infrared, backend=backend),
        embeddings,
        eps=1e-7,
        atol=1e-4,
    )


DEGENERATE = {
    "one modality": ([0, 0, 1, 1], [0, 0, 0, 0]),
    "the other modality": ([0, 0, 1, 1], [1, 1, 1, 1]),
    "no match": ([0, 1, 2, 3], [0, 0, 1, 1]),
    "nothing but matches": ([5, 5, 5, 5], [0, 1, 0, 1]),
    "one sample": ([3], [1]),
    "no sample": ([], []),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch", DEGENERATE.values(), ids=DEGENERATE)
def test_degenerate_batches_are_zero_and_differentiable(batch, backend):
    identities, is_infrared = (torch.tensor(values, dtype=torch.long) for values in batch)
    embeddings = torch.randn(len(identities), 3, requires_grad=True)
    loss = cross_modality_retrieval_loss(embeddings, identities, is_infrared, backend=backend)
    loss.backward()
    assert loss.item() == 0
    assert embeddings.grad.abs().sum() == 0


def test_one_valid_modality_counts_alone():
    embeddings = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    identities, is_infrared = torch.tensor([0, 0, 1, 0]), torch.tensor([0, 0, 0, 1])
    # visible queries have one gallery image, so they have only matches or no match and are left out
    loss = cross_modality_retrieval_loss(embeddings, identities, is_infrared)
    torch.testing.assert_close(loss, slow_loss(embeddings, identities, is_infrared), rtol=1e-5, atol=1e-6)
    assert loss > 0


def batch(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    embeddings = torch.randn(8, 4, generator=torch.Generator().manual_seed(1)).to(dtype)
    return embeddings, torch.arange(8) // 4, torch.arange(8) % 2 == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_result_is_in_the_dtype_of_the_embeddings_at_least_float32(dtype):
    embeddings, identities, is_infrared = batch(dtype)
    loss = cross_modality_retrieval_loss(embeddings, identities, is_infrared)
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(loss, cross_modality_retrieval_loss(embeddings.to(loss.dtype), identities, is_infrared))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast_changes_nothing(dtype):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_modality_retrieval_loss(*batch(dtype))
    assert torch.equal(loss, cross_modality_retrieval_loss(*batch(dtype)))


def test_order_of_the_images_does_not_matter():
    embeddings, identities, is_infrared = batch(torch.float64)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(2))
    shuffled = cross_modality_retrieval_loss(embeddings[order], identities[order], is_infrared[order])
    torch.testing.assert_close(shuffled, cross_modality_retrieval_loss(embeddings, identities, is_infrared))
