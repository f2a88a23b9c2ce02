"""The criterion and every loss in the registry."""

import itertools

import pytest
import torch
from torch.nn import functional

from configs.default import strategy_cfg
from losses import LOSSES, build_criterion
from losses.cmr import cross_modality_retrieval_loss
from tests.helpers.losses import mcja_criterion

CPU = torch.device("cpu")
LABELS, IS_INFRARED = torch.arange(8) // 4, torch.arange(8) % 2 == 1


def outputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings (8, 4) and logits (8, 2)."""
    random = torch.Generator().manual_seed(0)
    return tuple(torch.randn(8, n, generator=random).to(dtype).requires_grad_() for n in (4, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_a_scalar_in_at_least_float32(name, dtype):
    embeddings, logits = outputs(dtype)
    loss = LOSSES[name](strategy_cfg, CPU)(embeddings, logits, LABELS, IS_INFRARED)
    assert (loss.shape, loss.dtype) == ((), torch.promote_types(dtype, torch.float32))
    loss.backward()
    gradients = [values.grad for values in (embeddings, logits) if values.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


def test_values_by_name():
    embeddings, logits = outputs()
    criterion = mcja_criterion("builtin")
    losses = criterion(embeddings, logits, LABELS, IS_INFRARED)
    assert tuple(criterion.losses) == tuple(losses) == ("loss_id", "loss_cmr")
    assert torch.equal(losses["loss_id"], functional.cross_entropy(logits, LABELS))
    expected = cross_modality_retrieval_loss(embeddings, LABELS, IS_INFRARED, backend="builtin")
    assert torch.equal(losses["loss_cmr"], expected)
    assert str(criterion) == "loss_id + loss_cmr (soft rank: builtin)"


@pytest.mark.parametrize("switches", list(itertools.product([True, False], repeat=len(LOSSES))))
def test_the_configuration_switches_losses(switches):
    cfg = strategy_cfg.clone()
    cfg.update(dict(zip(LOSSES, switches, strict=True)))
    if any(switches):
        assert tuple(build_criterion(cfg, CPU).losses) == tuple(name for name in LOSSES if cfg[name])
    else:
        with pytest.raises(ValueError, match="at least one loss"):
            build_criterion(cfg, CPU)


def test_a_compiled_step_uses_the_builtin_soft_rank():
    cfg = strategy_cfg.clone()
    cfg.compile = True
    assert "soft rank: builtin" in str(build_criterion(cfg, CPU))
