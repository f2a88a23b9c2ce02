import json
import math
import zlib

import numpy as np
import pytest
import torch

from losses import Outputs
from models import MCJA, load_weights
from models.mda import MDA
from models.pooling import generalised_mean_pool
from models.resnet import BACKBONES, build_resnet
from tests.helpers.golden import GOLDEN, golden_cases
from tests.helpers.losses import mcja_criterion
from utils.run.errors import UserError

PUBLISHED = json.loads((GOLDEN / "state_dict_keys.json").read_text())


def golden_state(model: torch.nn.Module, head: bool = False) -> dict[str, torch.Tensor]:
    """The golden model's weights, computed from each released name; with the unused ImageNet ``head`` if asked for."""
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if head:
        shapes |= {"backbone.fc.weight": (1000, 2048), "backbone.fc.bias": (1000,)}
    state = {}
    for name, shape in shapes.items():
        n = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        if name.endswith("num_batches_tracked"):
            values = np.zeros(shape, dtype=np.int64)
        elif name.endswith("running_var"):
            values = np.exp(0.1 * n)
        elif len(shape) >= 2:
            values = n * math.sqrt(2 / math.prod(shape[1:]))
        elif name.endswith("weight"):
            values = 1 + 0.1 * n
        else:
            values = 0.1 * n
        state[name] = torch.as_tensor(np.asarray(values))
        if state[name].is_floating_point():
            state[name] = state[name].float()
    return state


@pytest.mark.parametrize("case", golden_cases("mda"), ids=lambda case: f"m{case['modes']}")
def test_golden_mda(case):
    state = {key.removeprefix("state."): torch.as_tensor(value) for key, value in case.items() if "state." in key}
    adapter = MDA(state["ca_bn.weight"].numel(), int(case["modes"]))
    adapter.load_state_dict(state)
    x = torch.tensor(case["x"])
    with torch.no_grad():
        np.testing.assert_allclose(adapter.eval()(x), case["eval"], atol=1e-4)
        np.testing.assert_allclose(adapter.train()(x), case["train"], atol=1e-4)


def test_adapter_starts_as_the_identity():
    x = torch.randn(2, 8, 5, 3)
    torch.testing.assert_close(MDA(8, 3)(x), x)


@pytest.mark.parametrize(("dataset", "classes", "mda_m"), [("sysu", 395, 2), ("regdb", 206, 12)])
def test_released_names_shapes_and_counts(dataset, classes, mda_m):
    model = MCJA(classes, mda_m=mda_m)
    own = {name: list(value.shape) for name, value in model.state_dict().items()}
    released = {name: shape for name, shape in PUBLISHED[dataset].items() if not name.startswith("backbone.fc.")}
    assert own == released
    head = 2048 * 1000 + 1000
    assert sum(p.numel() for p in model.parameters()) + head == PUBLISHED[f"{dataset}_parameters"]
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["bn_neck.bias"]


def test_golden_model_through_a_released_checkpoint(tmp_path):
    with np.load(GOLDEN / "model.npz") as arrays:
        golden = {name: torch.as_tensor(arrays[name]) for name in arrays.files}
    model = MCJA(int(golden["num_classes"]), mda_m=int(golden["mda_m"]))
    torch.save(golden_state(model, head=True), tmp_path / "released.pth")
    report = load_weights(model, tmp_path / "released.pth")
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())

    with torch.no_grad():
        embeddings = model.eval()(golden["x"])
    # the golden values themselves differ from float64 by 3e-4 of the largest
    scale = golden["eval_embeddings"].abs().max()
    torch.testing.assert_close(embeddings / scale, golden["eval_embeddings"] / scale, rtol=0, atol=1e-3)

    model.train()
    pooled, embeddings = model.embed(golden["x"])
    is_infrared = torch.isin(golden["cameras"], torch.tensor([3, 6]))
    outputs = Outputs(pooled, embeddings, model.classifier(embeddings))
    losses = mcja_criterion()(outputs, golden["identities"], is_infrared)
    sum(losses.values()).backward()
    found = {
        "train_loss": sum(losses.values()),
        "train_loss_id": losses["loss_id"],
        "train_loss_cmr": losses["loss_cmr"],
        "grad_norm_conv1": model.backbone.conv1.weight.grad.norm(),
        "grad_norm_classifier": model.classifier.weight.grad.norm(),
    }
    for name, value in found.items():
        torch.testing.assert_close(
            value, golden[name], rtol=1e-3, atol=0, msg=lambda text, name=name: f"{name}: {text}"
        )
    expected = golden["bn_neck_running_mean_after"]
    torch.testing.assert_close(model.bn_neck.running_mean, expected, rtol=1e-3, atol=1e-4)


def test_pooling():
    x = torch.rand(2, 3, 4, 5)
    expected = ((x**3).mean(dim=(2, 3)) + 1e-12) ** (1 / 3)
    torch.testing.assert_close(generalised_mean_pool(x), expected)
    assert generalised_mean_pool(x.half() * 100).dtype == torch.float32  # 100^3 would overflow in float16


@pytest.mark.parametrize("power", [1, 2.5, 3])
def test_pooling_of_activations_after_relu_is_not_changed_by_the_clamp(power):
    x = torch.randn(2, 3, 4, 5)
    pooled, gradients = [], []
    for pool in (generalised_mean_pool, lambda x, p: (x.flatten(2).pow(p).mean(dim=2) + 1e-12).pow(1 / p)):
        maps = x.clone().requires_grad_()
        pooled.append(pool(maps.relu(), power))
        pooled[-1].square().sum().backward()
        gradients.append(maps.grad)
    assert torch.equal(*pooled)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("power", [2.5, 3.0])
def test_an_adapter_after_the_last_block_trains(power):
    """Its output may be negative."""
    torch.manual_seed(0)
    model = MCJA(4, backbone="resnet10", mda_layers=[0, 0, 0, 1], gem_power=power)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    lowest = []
    model.MDA_4[0].register_forward_hook(lambda *arguments: lowest.append(arguments[2].min().item()))
    images, labels = torch.randn(8, 3, 64, 32), torch.arange(8) // 2
    for _ in range(6):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model.classifier(model(images)), labels)
        assert loss.isfinite()
        loss.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        optimizer.step()
    assert min(lowest) < 0


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("drop_last_stride", [False, True])
def test_every_backbone_trains(backbone, drop_last_stride):
    model = MCJA(5, backbone=backbone, drop_last_stride=drop_last_stride)
    features = []
    model.backbone.layer4.register_forward_hook(lambda *arguments: features.append(arguments[2]))
    embeddings = model(torch.randn(2, 3, 64, 32))
    assert embeddings.shape == (2, model.embedding_size)
    assert features[0].shape[-2:] == ((4, 2) if drop_last_stride else (2, 1))
    model.classifier(embeddings).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_last_stride_changes_no_weight():
    with_stride, without = build_resnet("resnet50"), build_resnet("resnet50", drop_last_stride=True)
    without.load_state_dict(with_stride.state_dict())
    assert [n for n, m in without.named_modules() if getattr(m, "stride", None) == (2, 2) and "layer4" in n] == []


def test_pretrained_from_a_file(tmp_path):
    backbone = build_resnet("resnet18")
    torch.save({**backbone.state_dict(), "fc.weight": torch.zeros(1000, 512)}, tmp_path / "backbone.pth")
    model = MCJA(5, backbone="resnet18", pretrained=str(tmp_path / "backbone.pth"))
    torch.testing.assert_close(model.backbone.conv1.weight, backbone.conv1.weight)
    with pytest.raises(UserError, match="does not hold the weights of this backbone"):
        MCJA(5, backbone="resnet10", pretrained=str(tmp_path / "backbone.pth"))


def test_imagenet_weights_that_cannot_be_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*arguments, **options):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(UserError, match="resnet50-0676ba61.pth.*or set `pretrained`"):
        build_resnet("resnet50", pretrained="imagenet")
    cached = tmp_path / "hub" / "checkpoints" / "resnet50-0676ba61.pth"
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_bytes(b"PK\x03\x04 a part")
    with pytest.raises(UserError, match="resnet50-0676ba61.pth: not a readable checkpoint .*; copy it again"):
        build_resnet("resnet50", pretrained="imagenet")
    with pytest.raises(UserError, match="no ImageNet weights of resnet10"):
        build_resnet("resnet10", pretrained="imagenet")


def test_imagenet_weights_in_the_cache_are_not_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *_, **__: pytest.fail("downloaded"))
    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    there = build_resnet("resnet18")
    torch.save({**there.state_dict(), "fc.weight": torch.zeros(1000, 512)}, cached)
    found = build_resnet("resnet18", pretrained="imagenet")
    torch.testing.assert_close(found.conv1.weight, there.conv1.weight)


def test_unexpected_names_are_shown_on_one_line(tmp_path):
    torch.save({**build_resnet("resnet10").state_dict(), "a\n\x1b[31mb": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="does not hold the weights") as error:
        build_resnet("resnet10", pretrained=str(tmp_path / "x.pth"))
    assert str(error.value).isprintable()
