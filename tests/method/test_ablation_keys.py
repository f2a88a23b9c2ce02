"""Each key of the ablations changes what it names. At its default nothing changes: the golden values hold.

Keys of the losses are tested in test_criterion.py.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from yacs.config import CfgNode

from configs.default import strategy_cfg
from data import build_augment
from data.augment import CUTMIX, NOTHING, AugmentParameters
from engine import build_schedule
from engine.evaluator import Evaluation
from engine.trainer import train
from models import build_model
from models.mda import MDA
from tests.helpers.training import make_schedule, make_training
from utils.protocols import score
from utils.rerank import MSER
from utils.results import TrialScore

SIZE = (96, 48)


def configured(**keys) -> CfgNode:
    cfg = strategy_cfg.clone()
    cfg.update({"backbone": "resnet18", "pretrained": "none", "num_id": 4, **keys})
    return cfg


# --- model ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [[0, 2, 3, 0], [0, 0, 0, 0], [1, 0, 1, 2], [9, 9, 9, 9]])
def test_mda_layers(layers):
    """Adapters follow the last blocks of each stage, in the names of the released state dict."""
    model = build_model(configured(mda_layers=layers))
    found = {name: len(getattr(model, f"MDA_{name}", ())) for name in (1, 2, 3, 4)}
    assert found == {stage: min(count, 2) for stage, count in enumerate(layers, start=1)}  # 2 blocks per stage
    order = []
    for name, module in model.named_modules():
        if isinstance(module, MDA) or name.startswith("backbone.layer") and name.count(".") == 2:
            module.register_forward_hook(lambda *_, name=name: order.append(name))
    model(torch.randn(2, 3, *SIZE))
    for stage, count in enumerate(layers, start=1):
        blocks = [f"backbone.layer{stage}.{i}" for i in range(2)]
        first = 2 - min(count, 2)
        expected = [
            name
            for i, block in enumerate(blocks)
            for name in ([block, f"MDA_{stage}.{i - first}"] if i >= first else [block])
        ]
        assert [name for name in order if f"layer{stage}." in name or f"MDA_{stage}." in name] == expected


def test_the_default_model_is_the_one_without_the_keys():
    torch.manual_seed(0)
    expected = build_model(configured())
    torch.manual_seed(0)
    found = build_model(configured(mda_layers=[0, 2, 3, 0], pooling="gem", gem_power=3.0))
    assert expected.state_dict().keys() == found.state_dict().keys()
    images = torch.randn(4, 3, *SIZE)
    assert torch.equal(expected(images), found(images))


@pytest.mark.parametrize(
    ("keys", "pool"),
    [
        ({}, lambda x: ((x**3).mean(dim=(2, 3)) + 1e-12) ** (1 / 3)),
        ({"gem_power": 1.0}, lambda x: x.mean(dim=(2, 3))),
        ({"gem_power": 5.0}, lambda x: ((x**5).mean(dim=(2, 3)) + 1e-12) ** (1 / 5)),
        ({"pooling": "avg", "gem_power": 5.0}, lambda x: x.mean(dim=(2, 3))),
    ],
)
def test_pooling(keys, pool):
    model = build_model(configured(**keys)).eval()
    maps = []
    model.backbone.layer4.register_forward_hook(lambda module, inputs, output: maps.append(output))
    with torch.no_grad():
        pooled, embeddings = model.embed(torch.randn(2, 3, *SIZE))
        torch.testing.assert_close(pooled, pool(maps[0]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(embeddings, model.bn_neck(pooled))


# --- augmentation ---------------------------------------------------------------------------------------------------


def drawn(count: int = 2000, **keys) -> AugmentParameters:
    return build_augment(configured(**keys), seed=0).draw(torch.zeros(count, dtype=torch.bool), SIZE)


def test_vimc_p():
    for p in (0.0, 0.5, 0.9, 1.0):
        assert (drawn(vimc_p=p).colour != NOTHING).float().mean().item() == pytest.approx(p, abs=0.04)
    other = drawn(vimc_p=0.9)
    for name, values in vars(drawn()).items():
        assert name == "colour" or torch.equal(values, getattr(other, name))  # nothing else changes


def test_hue_range():
    default, narrow = drawn().hue, drawn(hue_range=0.1).hue
    torch.testing.assert_close(narrow, default / 2)
    assert 0.19 < default.abs().max() <= 0.2
    assert not drawn(hue_range=0.0).hue.any()


def test_erase_p():
    for p in (0.0, 0.5, 0.8, 1.0):
        erased = drawn(erase_p=p).erase_box[:, 2] > 0
        assert erased.float().mean().item() == pytest.approx(p, abs=0.04)


def test_erase_area():
    boxes = drawn(erase_p=1.0, erase_area=[0.1, 0.12]).erase_box
    share = (boxes[:, 2] * boxes[:, 3]).double() / (SIZE[0] * SIZE[1])
    assert share[share > 0].min() > 0.07
    assert share.max() < 0.15


def test_cutmix_area():
    parameters = drawn(cutmix_area=[0.4, 0.5], cutmix_region="full")
    height, width = parameters.cutmix_box[:, 2:].unbind(dim=1)
    share = (height * width / (SIZE[0] * SIZE[1]))[height > 0]
    assert 0.38 < share.min() <= share.max() < 0.52
    default = drawn(cutmix_region="full")
    share = (default.cutmix_box[:, 2] * default.cutmix_box[:, 3]) / (SIZE[0] * SIZE[1])
    assert 0.3 < share.max() < 0.35
    assert torch.equal(parameters.erase_box, default.erase_box)
    assert (default.colour == CUTMIX).any()


# --- optimisation ---------------------------------------------------------------------------------------------------


class NoEvaluator:
    def select(self, model):
        raise AssertionError


def rates(epochs: int, **keys) -> list[float]:
    schedule = build_schedule(configured(lr=1.0, **keys), NoEvaluator())
    return [schedule.learning_rate(epoch) for epoch in range(1, epochs + 1)]


def test_lr_decay_and_warmup_epochs():
    assert rates(4, lr_step=[2]) == pytest.approx([1, 1, 0.1, 0.1])
    assert rates(4, lr_step=[2], lr_decay=0.5) == pytest.approx([1, 1, 0.5, 0.5])
    assert rates(6, lr_step=[4], warmup_epochs=4) == pytest.approx([0.25, 0.5, 0.75, 1, 0.1, 0.1])
    assert rates(3, lr_step=[1], warmup_epochs=2, lr_decay=0.1) == pytest.approx([0.5, 0.1, 0.1])


def test_the_schedule_of_agw():
    """Epochs from 0: e < 10: lr (e + 1) / 10; 10 to 19: lr; 20 to 49: 0.1 lr; from 50: 0.01 lr."""
    expected = [(e + 1) / 10 if e < 10 else 1 if e < 20 else 0.1 if e < 50 else 0.01 for e in range(81)]
    assert rates(81, warmup_epochs=10, lr_step=[20, 50]) == pytest.approx(expected)


# --- testing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("select_by", "best"), [("rank1", 2), ("mAP", 1), ("last", None)])
def test_select_by(select_by, best, tmp_path):
    scores = iter([(10, 30), (30, 20), (20, 25)])

    def evaluate(model):
        rank1, mAP = next(scores)
        return Evaluation(TrialScore(rank1, 0, 0, 0, mAP, 0))

    schedule = replace(make_schedule(num_epoch=3, evaluate=evaluate), select_by=select_by)
    assert build_schedule(configured(select_by=select_by), NoEvaluator()).select_by == select_by
    assert train(make_training(), schedule, tmp_path) == best
    assert (tmp_path / "best.pth").exists() == (best is not None)


@pytest.mark.parametrize("dataset", ["sysu", "regdb"])
def test_mser_spectra(dataset, request):
    """[original] is k-reciprocal re-ranking of the images themselves, as if each visible image had one spectrum."""
    features, (search,), mser = request.getfixturevalue(f"{dataset}_case")
    setting = "all/1-shot" if dataset == "sysu" else search.reverse
    protocol = [search.only([setting])]
    if dataset == "sysu":
        protocol = [replace(protocol[0], galleries={setting: protocol[0].galleries[setting][:1]})]

    def found(spectra: tuple[str, ...], features=features) -> tuple:
        return score(features, protocol, mser=MSER(mser.k1, mser.k2, mser.lam, spectra))[f"{setting}/mser"].mean

    alone = replace(features, spectra={"original": features.spectra["original"]})
    four_times = replace(features, spectra=dict.fromkeys(features.spectra, features.spectra["original"]))
    assert found(("original",)) == found(("original",), alone)
    assert found(("original",)) != found(mser.spectra)
    if dataset == "sysu":  # on RegDB, each copy of a gallery image takes a place among the neighbours
        np.testing.assert_allclose(found(("original",)), found(mser.spectra, four_times), atol=1e-6)
