"""The criterion and every loss in the registry."""

import itertools

import pytest
import torch
from torch.nn import functional
from yacs.config import CfgNode

from configs.default import strategy_cfg
from losses import LOSSES, TRIPLETS, Outputs, build_criterion
from losses.centers import hetero_center, hetero_center_triplet
from losses.cmr import cross_modality_retrieval_loss
from losses.triplet import batch_hard_triplet, weighted_regularization_triplet
from tests.helpers.losses import mcja_criterion

CPU = torch.device("cpu")
LABELS, IS_INFRARED = torch.arange(8) // 4, torch.arange(8) % 2 == 1


def random_outputs(dtype: torch.dtype = torch.float32) -> Outputs:
    """Features before and after the neck, (8, 4) each, and logits (8, 2)."""
    random = torch.Generator().manual_seed(0)
    return Outputs(*(torch.randn(8, n, generator=random).to(dtype).requires_grad_() for n in (4, 4, 2)))


def configured(**keys) -> CfgNode:
    cfg = strategy_cfg.clone()
    cfg.update(keys)
    return cfg


CONFIGURATIONS = [
    *((name, {}) for name in ("loss_id", "loss_cmr")),
    *(("loss_triplet", {"loss_triplet": name}) for name in TRIPLETS),
]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "keys"), CONFIGURATIONS)
def test_every_loss_is_a_scalar_in_at_least_float32(name, keys, dtype):
    outputs = random_outputs(dtype)
    loss = LOSSES[name](configured(margin=5.0, **keys), CPU)(outputs, LABELS, IS_INFRARED)
    if keys == {"loss_triplet": "hetero_center"}:
        loss = LOSSES[name](configured(margin=0.0, **keys), CPU)(outputs, LABELS, IS_INFRARED)
    assert (loss.shape, loss.dtype) == ((), torch.promote_types(dtype, torch.float32))
    loss.backward()
    gradients = [values.grad for values in outputs if values.grad is not None]
    assert len(gradients) == 1
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


def test_values_by_name():
    outputs = random_outputs()
    criterion = mcja_criterion("builtin")
    losses = criterion(outputs, LABELS, IS_INFRARED)
    assert tuple(criterion.losses) == tuple(losses) == ("loss_id", "loss_cmr")
    assert torch.equal(losses["loss_id"], functional.cross_entropy(outputs.logits, LABELS))
    expected = cross_modality_retrieval_loss(outputs.embeddings, LABELS, IS_INFRARED, backend="builtin")
    assert torch.equal(losses["loss_cmr"], expected)
    assert str(criterion) == "loss_id + loss_cmr (both, strength 0.5, soft rank: builtin)"


@pytest.mark.parametrize("switches", list(itertools.product([True, False], [True, False], ["none", *TRIPLETS])))
def test_the_configuration_switches_losses(switches):
    cfg = configured(**dict(zip(LOSSES, switches, strict=True)))
    on = [name for name, switch in zip(LOSSES, switches, strict=True) if switch not in (False, "none")]
    if on:
        assert list(build_criterion(cfg, CPU).losses) == on
    else:
        with pytest.raises(ValueError, match="at least one loss"):
            build_criterion(cfg, CPU)


def test_a_compiled_step_uses_the_builtin_soft_rank():
    assert "soft rank: builtin" in str(build_criterion(configured(compile=True), CPU))


def losses_with(**keys) -> dict[str, float]:
    criterion = build_criterion(configured(soft_rank="builtin", **keys), CPU)
    return {name: loss.item() for name, loss in criterion(random_outputs(), LABELS, IS_INFRARED).items()}


def test_keys_of_the_losses_reach_what_they_name():
    """Each key changes its own loss, to what the functions give, and no other."""
    pooled, embeddings, logits = random_outputs()
    default = losses_with()
    batch = LABELS, IS_INFRARED

    def retrieval(**options):
        return cross_modality_retrieval_loss(embeddings, *batch, backend="builtin", **options).item()

    exact_triplet = weighted_regularization_triplet(pooled, LABELS, exact=True).item()
    expected = {
        ("weight_id", 0.25): {"loss_id": 0.25 * default["loss_id"]},
        ("weight_cmr", 3.0): {"loss_cmr": 3 * default["loss_cmr"]},
        ("label_smoothing", 0.1): {"loss_id": functional.cross_entropy(logits, LABELS, label_smoothing=0.1).item()},
        ("cmr_strength", 0.1): {"loss_cmr": retrieval(strength=0.1)},
        ("cmr_direction", "visible_to_infrared"): {"loss_cmr": retrieval(direction="visible_to_infrared")},
        ("cmr_direction", "infrared_to_visible"): {"loss_cmr": retrieval(direction="infrared_to_visible")},
        ("loss_triplet", "batch_hard"): {"loss_triplet": batch_hard_triplet(pooled, LABELS).item()},
        ("loss_triplet", "weighted"): {"loss_triplet": weighted_regularization_triplet(pooled, LABELS).item()},
        ("loss_triplet", "weighted_exact"): {"loss_triplet": exact_triplet},
        ("loss_triplet", "hetero_center"): {"loss_triplet": hetero_center(pooled, *batch, margin=0.3).item()},
        ("loss_triplet", "hetero_center_triplet"): {"loss_triplet": hetero_center_triplet(pooled, *batch).item()},
    }
    for (key, value), changed in expected.items():
        assert losses_with(**{key: value}) == pytest.approx(default | changed), key
    triplet = losses_with(loss_triplet="batch_hard", margin=2.0, weight_triplet=0.5)["loss_triplet"]
    assert triplet == pytest.approx(0.5 * batch_hard_triplet(pooled, LABELS, margin=2.0).item())
    both = (retrieval(direction="visible_to_infrared") + retrieval(direction="infrared_to_visible")) / 2
    assert both == pytest.approx(default["loss_cmr"])


def test_unknown_directions_are_refused():
    with pytest.raises(ValueError, match="unknown direction 'up'; choose from both"):
        cross_modality_retrieval_loss(torch.rand(2, 3), torch.zeros(2), torch.zeros(2), direction="up")
