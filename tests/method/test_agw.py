"""AGW: its blocks and the whole network against golden values, and each part alone."""

import json
import zlib
from math import prod

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from data.augment import normalise
from losses import Outputs
from losses.identity import IdentityLoss
from losses.triplet import weighted_regularization_triplet
from models import AGW, load_weights
from models.agw import modality_batch_norm
from models.non_local import NonLocal
from models.pooling import generalised_mean_pool
from tests.helpers.golden import GOLDEN

PUBLISHED = json.loads((GOLDEN / "agw_state_dict_keys.json").read_text())
COUNTS = json.loads((GOLDEN / "non_local.json").read_text())


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.as_tensor(arrays[key]) for key in arrays.files}


def golden_state(seed: int) -> dict[str, Tensor]:
    """The released state dict of the golden network; every value follows from the seed and the name.

    What is never used has its shapes only.
    """
    state = {name: torch.zeros(()).expand(shape) for name, shape in PUBLISHED["never_used"].items()}
    for name, shape in PUBLISHED["in_use"].items():
        n = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape)
        if name.endswith("num_batches_tracked"):
            values = np.zeros(shape, dtype=np.int64)
        elif name.endswith("running_var"):
            values = np.exp(0.1 * n)
        elif name.endswith("running_mean"):
            values = 0.1 * n
        elif len(shape) >= 2:
            values = n * (2 / prod(shape[1:])) ** 0.5 * (0.3 if name.startswith("NL_") else 1)
        elif name.endswith("bn3.weight"):
            values = 0.2 * (1 + 0.1 * n)
        elif name.endswith("weight"):
            values = 1 + 0.1 * n
        else:
            values = 0.1 * n
        values = torch.as_tensor(np.asarray(values))
        state[name] = values.float() if values.is_floating_point() else values
    return state


# --- non-local block -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "width"), [("seeded", 1), ("wide", 4)])
def test_golden_non_local_block(case, width):
    values = golden("non_local")
    block = NonLocal(8, width)
    names = block.state_dict().keys()
    block.load_state_dict({name: values[f"{case}/{name}"] for name in names})
    x = values["input"].requires_grad_()
    output = block.eval()(x)
    torch.testing.assert_close(output, values[f"{case}/output_eval"], rtol=1e-4, atol=1e-4)
    output.square().sum().backward()
    expected = values[f"{case}/grad_input_of_sum_of_squares"]
    torch.testing.assert_close(x.grad, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    for name, parameter in block.named_parameters():
        expected = values[f"{case}/grad/{name}"]
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    output = block.train()(x)
    torch.testing.assert_close(output, values[f"{case}/output_train"], rtol=1e-4, atol=1e-4)
    for name in ("W.1.running_mean", "W.1.running_var"):
        expected = values[f"{case}/after_one_train_step/{name}"]
        torch.testing.assert_close(block.state_dict()[name], expected, rtol=1e-4, atol=1e-5)


def test_a_fresh_block_is_the_identity():
    values = golden("non_local")
    block, x = NonLocal(8), values["input"]
    assert torch.equal(block(x), x)
    assert torch.equal(values["fresh/output_train"], x)


@pytest.mark.parametrize("channels", [8, 512, 1024])
def test_names_and_counts_of_a_block(channels):
    block = NonLocal(channels)
    key = "fresh_block_C8" if channels == 8 else f"block_C{channels}"
    assert {name: list(value.shape) for name, value in block.state_dict().items()} == COUNTS[key]
    if channels > 8:
        assert sum(p.numel() for p in block.parameters()) == COUNTS[f"{key}_parameters"]


def test_a_block_equals_the_attention_over_all_positions():
    """The definition, with the attention matrix."""
    torch.manual_seed(0)
    block, x = NonLocal(6, 3).eval(), torch.randn(2, 6, 5, 4)
    nn.init.normal_(block.W[1].weight)
    theta, phi, g = (layer(x).flatten(2) for layer in (block.theta, block.phi, block.g))
    attention = theta.transpose(1, 2) @ phi / 20  # (B, N, N)
    mixed = (attention @ g.transpose(1, 2)).transpose(1, 2).reshape(2, 3, 5, 4)
    torch.testing.assert_close(block(x), block.W(mixed) + x)


def test_a_block_does_not_overflow_in_half_precision():
    block = NonLocal(8).eval()
    nn.init.ones_(block.W[1].weight)
    with torch.autocast("cpu", torch.float16):
        assert block(1000 * torch.rand(2, 8, 24, 24)).isfinite().all()


def test_golden_pooling():
    values = golden("non_local")
    torch.testing.assert_close(generalised_mean_pool(values["gem/input"], 3), values["gem/output"], rtol=1e-4, atol=0)


# --- the network -----------------------------------------------------------------------------------------------------


def test_released_names_shapes_and_counts():
    model = AGW(395)
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == PUBLISHED["in_use"]
    assert sum(p.numel() for p in model.parameters()) == 24_359_311
    frozen = {name: p.numel() for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"bottleneck.bias": 2048}
    assert all(name.startswith(AGW.never_used) for name in PUBLISHED["never_used"])
    assert not any(name.startswith(AGW.never_used) for name in PUBLISHED["in_use"])


def test_the_baseline_has_no_non_local_block():
    model = AGW(395, non_local_channels=0, pooling="avg")
    counts = COUNTS["baseline_395_classes"]
    assert sum(p.numel() for p in model.parameters()) == counts["parameters_used"] == 24_330_624


def test_how_neck_and_classifier_start():
    torch.manual_seed(0)
    model = AGW(395)
    assert model.classifier.weight.std().item() == pytest.approx(0.001, rel=0.01)
    assert model.bottleneck.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert model.bottleneck.weight.mean().item() == pytest.approx(1, abs=0.001)
    assert not model.bottleneck.bias.any()
    visible, infrared = model.visible_module["visible"], model.thermal_module["thermal"]
    assert torch.equal(visible.conv1.weight, infrared.conv1.weight)
    assert visible.conv1.weight.data_ptr() != infrared.conv1.weight.data_ptr()


def test_shapes_of_the_feature_maps():
    model = AGW(5).eval()
    shapes = {}
    for stage in (1, 2, 3, 4):
        last = model.get_submodule(f"base_resnet.base.layer{stage}")[-1]
        last.register_forward_hook(lambda *a, stage=stage: shapes.__setitem__(f"stage{stage}", list(a[2].shape)))
    model.maxpool.register_forward_hook(lambda *a: shapes.__setitem__("stem", list(a[2].shape)))
    with torch.no_grad():
        model(torch.zeros(1, 3, 288, 144), torch.tensor([True]))
    assert shapes == COUNTS["shapes_288x144"]


def test_golden_network_through_a_released_checkpoint(tmp_path):
    values = golden("agw_model")
    model, state = AGW(int(values["num_classes"])), golden_state(int(values["seed"]))
    beside = {"cmc": np.array([0.4, 0.7]), "mAP": np.float64(0.4), "mINP": np.float32(0.3), "epoch": 42}
    torch.save({"net": state, **beside}, tmp_path / "released.t")
    report = load_weights(model, tmp_path / "released.t")
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())
    assert set(report.loaded) == PUBLISHED["in_use"].keys()
    assert set(report.never_used) == PUBLISHED["never_used"].keys()

    images, is_infrared = normalise(values["images"]).requires_grad_(), values["is_infrared"]

    def assert_near(found, name, tolerance=1e-3):
        expected = values[name]
        scale = expected.abs().max()
        torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=tolerance, check_dtype=False)

    def assert_embedded(expected_pooled, expected):
        with torch.no_grad():
            pooled, embeddings = model.eval().embed(images, is_infrared)
        if expected_pooled:
            assert_near(pooled, expected_pooled)
        assert_near(embeddings[:, : values[expected].shape[1]], expected)

    assert_embedded("eval_pooled", "eval_embeddings")
    model.train()
    pooled, embeddings = model.embed(images, is_infrared)
    outputs = Outputs(pooled, embeddings, model.classifier(embeddings))
    loss_id = IdentityLoss()(outputs, values["identities"], is_infrared)
    loss_triplet = weighted_regularization_triplet(pooled, values["identities"])
    (loss_id + loss_triplet).backward()
    assert_near(pooled[:, :512], "train_pooled")
    assert_near(embeddings[:, :512], "train_embeddings")
    assert_near(loss_id, "train_loss_id")
    assert_near(loss_triplet, "train_loss_triplet")
    norms = images.grad.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, values["train_image_grad_norms"], rtol=1e-2, atol=0, check_dtype=False)
    assert_embedded(None, "eval_embeddings_after")


def test_the_modality_of_the_images_is_needed():
    with pytest.raises(ValueError, match="give is_infrared"):
        AGW(3, backbone="resnet10")(torch.zeros(2, 3, 32, 32))


# --- stems -----------------------------------------------------------------------------------------------------------


def two_norms() -> tuple[nn.BatchNorm2d, nn.BatchNorm2d]:
    norms = nn.BatchNorm2d(5), nn.BatchNorm2d(5)
    for norm in norms:
        for values in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(values)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return norms


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("infrared", [[0, 1, 1, 0, 1], [0, 0, 0, 0], [1, 1], [1, 0]])
def test_each_norm_sees_its_own_modality(infrared, training):
    """As the modules themselves on the two parts of the batch: values, gradients, running statistics."""
    torch.manual_seed(0)
    norms, is_infrared = two_norms(), torch.tensor(infrared, dtype=torch.bool)
    references = two_norms()
    for norm, reference in zip(norms, references, strict=True):
        reference.load_state_dict(norm.state_dict())
        norm.train(training), reference.train(training)
    x = (3 * torch.randn(len(infrared), 5, 6, 4) + 100).requires_grad_()
    cotangent = torch.randn_like(x)

    expected = torch.empty_like(x)
    for reference, rows in zip(references, (~is_infrared, is_infrared), strict=True):
        if rows.any():
            expected[rows] = reference(x[rows])
    parameters = [p for norm in references for p in norm.parameters()]
    expected_gradients = torch.autograd.grad((expected * cotangent).sum(), [x, *parameters], allow_unused=True)

    found = modality_batch_norm(x, is_infrared, *norms)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    parameters = [p for norm in norms for p in norm.parameters()]
    gradients = torch.autograd.grad((found * cotangent).sum(), [x, *parameters])
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        wanted = torch.zeros_like(gradient) if wanted is None else wanted
        torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-3)
    for norm, reference in zip(norms, references, strict=True):
        for name, value in reference.state_dict().items():
            torch.testing.assert_close(norm.state_dict()[name], value, rtol=1e-4, atol=1e-4)


def test_modalities_may_stand_in_any_order_or_alone():
    torch.manual_seed(0)
    model = AGW(3, backbone="resnet10").eval()
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_(0, 0.1)
        images, is_infrared = torch.randn(5, 3, 64, 32), torch.tensor([1, 0, 0, 1, 0], dtype=torch.bool)
        together = model(images, is_infrared)
        for rows in (is_infrared, ~is_infrared, torch.tensor([4, 2, 3])):
            torch.testing.assert_close(model(images[rows], is_infrared[rows]), together[rows], rtol=1e-4, atol=1e-4)
        other = model(images, ~is_infrared)
    assert not functional.cosine_similarity(together, other).gt(0.9999).any()  # the stems differ
