import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.soft_rank import isotonic_regression, resolve_backend, soft_rank
from tests.helpers.golden import golden_cases
from tests.helpers.losses import BACKENDS
from utils.run.errors import UserError


def slow_isotonic(values: np.ndarray) -> np.ndarray:
    """Non-increasing fit by pooling adjacent violators, one value at a time."""
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            mean, count = blocks.pop()
            before, length = blocks.pop()
            blocks.append([(before * length + mean * count) / (length + count), length + count])
    return np.concatenate([np.full(count, mean) for mean, count in blocks])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", golden_cases("soft_rank"), ids=lambda case: f"{case['kind']}-{case['strength']:.1f}")
def test_golden_ranks_and_gradients(case, backend):
    values = torch.tensor(case["values"], requires_grad=True)
    ranks = soft_rank(values, float(case["strength"]), backend=backend)
    (ranks * torch.tensor(case["cotangent"])).sum().backward()
    np.testing.assert_allclose(ranks.detach(), case["ranks"], atol=1e-3)
    if case["kind"] != "ties":  # where several gradients are valid
        np.testing.assert_allclose(values.grad, case["grad"], atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("strength", [0.1, 0.5, 2.0])
def test_gradcheck(backend, strength):
    values = torch.rand(3, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2
    values.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: soft_rank(v, strength, backend=backend), values, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_operator_keeps_the_rules_of_torch_compile(dtype):
    for values in (torch.rand(3, 7, dtype=dtype), torch.rand(7, 3, dtype=dtype).T):
        torch.library.opcheck(torch.ops.mcja.sort_and_pool.default, (values.requires_grad_(), 0.5))


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_isotonic_regression_equals_pooling(values):
    fitted = isotonic_regression(torch.tensor([values], dtype=torch.float64))
    np.testing.assert_allclose(fitted[0], slow_isotonic(np.array(values)), atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_small_strength_gives_hard_ranks(backend):
    values = torch.tensor([[0.3, -1.0, 2.0, 0.9]])
    np.testing.assert_allclose(soft_rank(values, 1e-3, backend=backend), [[2, 1, 4, 3]], atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_shapes_and_dtypes(backend):
    values = torch.rand(2, 3, 5)
    ranks = soft_rank(values, backend=backend)
    assert ranks.shape == values.shape
    torch.testing.assert_close(ranks[1, 2], soft_rank(values[1, 2], backend=backend))
    torch.testing.assert_close(ranks.sum(-1), torch.full((2, 3), 15.0))  # ranks sum to 1 + ... + 5
    assert soft_rank(values.bfloat16(), backend=backend).dtype == torch.float32
    assert soft_rank(values.double(), backend=backend).dtype == torch.float64
    assert soft_rank(torch.zeros(0, 4), backend=backend).shape == (0, 4)


def test_auto_is_builtin_on_a_gpu(monkeypatch):
    """Also if torchsort's GPU kernel is installed, because that kernel makes the CPU wait."""
    monkeypatch.setattr("losses.soft_rank._torchsort_runs_on", lambda device_type: True)
    assert resolve_backend("auto", torch.device("cuda")) == "builtin"
    assert resolve_backend("auto", torch.device("cpu")) == "torchsort"
    assert resolve_backend("torchsort", torch.device("cuda")) == "torchsort"


def test_errors(monkeypatch):
    with pytest.raises(ValueError, match="strength"):
        soft_rank(torch.rand(2, 3), 0)
    with pytest.raises(ValueError, match="unknown soft rank backend 'fast'"):
        soft_rank(torch.rand(2, 3), backend="fast")
    monkeypatch.setattr("losses.soft_rank.torchsort", None)
    assert resolve_backend("auto", torch.device("cpu")) == "builtin"
    with pytest.raises(UserError, match="not installed"):
        soft_rank(torch.rand(2, 3), backend="torchsort")
