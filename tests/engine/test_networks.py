"""What works with every network: the interface, extraction, caches, training, continuation, compiling, precision."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from configs import get_config
from configs.checks import CHOICES
from data.augment import normalise
from data.datasets import RegDB
from data.datasets.images import ImageFiles, read_image
from data.folder import looks_infrared
from engine import OPTIMIZERS, build_optimizer
from engine.evaluator import Evaluator
from engine.extract import Extractor
from engine.precision import TorchPrecision
from engine.state import newest_state
from main import main
from models import MODELS, Network, build_model, load_weights
from models.loading import same_state
from tests.helpers.runs import METHODS, SETTINGS, SMALL, arguments, results, run, stopped_run
from tests.helpers.training import rows
from tools import export
from tools.report import attention
from tools.score import main as score_main
from utils.features import SPECTRA
from utils.rerank import MSER
from utils.run.errors import UserError

CPU, SIZE = torch.device("cpu"), (64, 32)


def configured(name: str, tmp_path: Path, **changes: str):
    """The configuration of a small network of five identities."""
    (tmp_path / "x.yml").write_text("dataset: regdb\nnum_id: 5\n")
    return get_config(tmp_path / "x.yml", [word for pair in (SMALL | METHODS[name] | changes).items() for word in pair])


@pytest.fixture(params=MODELS)
def name(request) -> str:
    return request.param


@pytest.fixture
def model(name, tmp_path) -> Network:
    torch.manual_seed(0)
    return build_model(configured(name, tmp_path))


def a_batch(count: int = 6) -> tuple[Tensor, Tensor]:
    """Normalised images in a random mix of modalities."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, *SIZE, generator=generator), torch.arange(count) % 3 == 0


def test_every_network_has_a_small_method():
    assert METHODS.keys() == MODELS.keys()


def test_the_interface(model):
    images, is_infrared = a_batch()
    pooled, embeddings = model.embed(images, is_infrared)
    assert pooled.shape == embeddings.shape == (6, model.embedding_size)
    assert model.classifier(embeddings).shape == (6, 5)
    model.eval()
    with torch.no_grad():
        pooled, embeddings = model.embed(images, is_infrared)
        assert torch.equal(model(images, is_infrared), embeddings)
        torch.testing.assert_close(model.neck(pooled), embeddings)
    sizes = []
    model.last_stage.register_forward_hook(lambda *arguments: sizes.append(arguments[2].shape[1]))
    model(images, is_infrared)
    assert sizes == [model.embedding_size]


def test_its_own_state_dict_is_read_again(model, name, tmp_path):
    torch.save(model.state_dict(), tmp_path / "own.pth")
    report = load_weights(build_model(configured(name, tmp_path)), tmp_path / "own.pth")
    assert (report.missing, report.unexpected, report.mismatched, report.never_used) == ((), (), (), ())


def test_extraction_gives_each_image_its_modality(model, regdb_root):
    dataset = RegDB(regdb_root, "test")
    source = ImageFiles(dataset, SIZE, resize="lanczos")
    evaluator = Evaluator(dataset, Extractor(dataset, source, CPU, batch_size=7, num_workers=0), mser=MSER(5, 3, 0.3))
    with torch.no_grad():
        images, is_infrared = normalise(source.take(range(len(dataset)))), torch.from_numpy(dataset.infrared)
        for _ in range(3):
            model(images[::3], is_infrared[::3])  # running statistics
        expected = model.eval()(images, is_infrared)
    found, features = evaluator.test(model)
    np.testing.assert_allclose(features.spectra["original"], expected, rtol=1e-4, atol=1e-4)
    assert features.spectra.keys() == set(SPECTRA)
    assert found.keys() == {f"{setting}{end}" for setting in SETTINGS["regdb"] for end in ("", "/mser")}


@pytest.mark.faults  # slow
def test_a_step_is_one_graph_for_every_mix_of_modalities(model):
    torch._dynamo.reset()
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    images, is_infrared = a_batch()
    compiled = torch.compile(model.embed, fullgraph=True, dynamic=False, backend=count)
    for mix in (is_infrared, ~is_infrared, torch.ones(6, dtype=torch.bool)):
        compiled(images, mix)[1].sum().backward()
    assert len(graphs) == 1


def test_mixed_precision_is_near_float32(model):
    images, is_infrared = a_batch()
    with torch.no_grad():
        expected = model.eval()(images, is_infrared)
        with TorchPrecision(CPU, torch.bfloat16).autocast():
            found = model(images, is_infrared).float()
    assert ((found - expected).norm(dim=1) / expected.norm(dim=1)).max() < 0.05


@pytest.mark.faults  # slow
def test_an_exported_network_takes_the_modality_if_it_needs_it(tmp_path):
    """MCJA's export is tested in test_export.py."""
    deployed = export.Deployed(build_model(configured("agw", tmp_path)).eval()).eval()
    assert deployed.inputs == ["images", "is_infrared"]
    program = export.trace(deployed, SIZE)
    _, run_exported = export.to_pt2(program, "{}", deployed.inputs)
    assert export.largest_difference(deployed, run_exported, SIZE) < 1e-4


def test_maps_of_the_report(model):
    images, is_infrared = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8), torch.tensor([True, False])
    maps = attention.match_maps(model.eval(), images, is_infrared)
    assert maps.shape[0] == 2
    assert maps.isfinite().all()
    attention.adapter_maps(model, images, is_infrared)


# --- optimiser -------------------------------------------------------------------------------------------------------


def test_optimisers_that_can_be_chosen():
    assert OPTIMIZERS.keys() == set(CHOICES["optimizer"])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_only_neck_and_classifier_learn_at_the_full_rate(model, name, optimizer, factor, tmp_path):
    cfg = configured(name, tmp_path, optimizer=optimizer, backbone_lr_factor=str(factor), wd="0.25")
    built = build_optimizer(cfg, model)
    factors = {p: group.get("lr_factor", 1) for group in built.param_groups for p in group["params"]}
    assert factors.keys() == set(model.parameters())
    head = [*model.neck.parameters(), *model.classifier.parameters()]
    assert all(factors[parameter] == 1 for parameter in head)
    assert all(factors[p] == factor for p in model.parameters() if p not in set(head))
    assert all(group["weight_decay"] == 0.25 for group in built.param_groups)
    if optimizer == "sgd":
        assert all(group["momentum"] == 0.9 and group["nesterov"] for group in built.param_groups)


def test_sgd_is_that_of_torch(model, name, tmp_path):
    """Bit for bit, from the first step on, although its momentum starts with zeros."""
    cfg = configured(name, tmp_path, optimizer="sgd", backbone_lr_factor="1.0")
    other = copy.deepcopy(model)
    options = {"lr": cfg.lr, "weight_decay": cfg.wd, "momentum": 0.9, "nesterov": True, "fused": True}
    optimizers = build_optimizer(cfg, model), torch.optim.SGD(other.parameters(), **options)
    for _ in range(2):
        for network, optimizer in zip((model, other), optimizers, strict=True):
            optimizer.zero_grad()
            network.embed(*a_batch())[1].square().sum().backward()
            optimizer.step()
    assert same_state(model.state_dict(), other.state_dict())


def test_the_momentum_of_a_skipped_step_is_zero(model, name, tmp_path):
    """Loss scaling begins with a scale at which the first gradients may overflow."""
    optimizer = build_optimizer(configured(name, tmp_path, optimizer="sgd"), model)
    before = copy.deepcopy(model.state_dict())
    precision = TorchPrecision(CPU, torch.float16)
    precision.step((model.classifier.weight * torch.inf).sum(), optimizer)
    assert same_state(model.state_dict(), before)
    assert not any(values["momentum_buffer"].any() for values in optimizer.state.values())


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def agw_run(regdb_root, tmp_path_factory) -> Path:
    """The folder of a run of AGW that was never stopped."""
    folder = tmp_path_factory.mktemp("agw")
    return run(folder, *arguments(folder, "regdb", regdb_root, **METHODS["agw"], save_features="true"))


def test_a_stopped_run_of_agw_goes_on_to_the_same_results(agw_run, regdb_root, tmp_path, monkeypatch):
    folder = stopped_run(tmp_path, regdb_root, monkeypatch, 6, **METHODS["agw"], save_features="true")
    groups = newest_state(folder)[0]["optimizer"]["param_groups"]
    assert [group.get("lr_factor", 1) for group in groups] == [1, 0.1]
    assert main(["--continue", str(folder), "--gpu", "cpu", "cache", "device"]) == 0
    assert results(folder) == results(agw_run)
    for file in ("best.pth", "last.pth"):
        ours, theirs = (torch.load(f / file, weights_only=True) for f in (folder, agw_run))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_released_checkpoint_of_agw_is_tested(agw_run, regdb_root, tmp_path):
    expected = json.loads((agw_run / "results.json").read_text())["results"]
    assert {f"{setting}/mser" for setting in SETTINGS["regdb"]} < expected.keys()
    copies = {"thermal_module.thermal.layer4.0.conv1.weight": torch.zeros(1)}
    released = {"net": torch.load(agw_run / "best.pth", weights_only=True) | copies, "mAP": np.float64(0.5)}
    torch.save(released, tmp_path / "agw.t")
    words = ["--cfg", str(agw_run / "config.yml"), "--gpu", "cpu", "output_dir", str(tmp_path / "runs")]
    folder = run(tmp_path, *words, "test_only", "true", "resume", str(tmp_path / "agw.t"))
    assert json.loads((folder / "results.json").read_text())["results"] == expected
    assert "1 never used (thermal_module.thermal.layer4" in (folder / "log.txt").read_text()


def test_saved_features_of_agw_are_scored(agw_run, regdb_root, tmp_path):
    words = [str(agw_run / "features.npz"), "--dataset", "regdb", "--data-root", str(regdb_root), "--gpu", "cpu"]
    assert score_main([*words, "--k1", "5", "--k2", "3", "--json", str(tmp_path / "scored.json")]) == 0
    scored = json.loads((tmp_path / "scored.json").read_text())
    for setting, metrics in json.loads((agw_run / "results.json").read_text())["results"].items():
        assert scored[setting] == pytest.approx(metrics, abs=1e-6)


@pytest.mark.faults  # slow
def test_a_folder_is_searched_with_agw(agw_run, regdb_root, tmp_path):
    pytest.importorskip("faiss")
    from tools.search.__main__ import main as search_main

    gallery, query = regdb_root / "Visible", next((regdb_root / "Thermal").glob("*/*.bmp"))
    words = ["--checkpoint", agw_run / "best.pth", "--gallery", gallery, "--query", query, "--infrared", "--gpu", "cpu"]
    words += ["--cache", tmp_path / "cache", "--json", tmp_path / "out.json"]
    assert search_main(list(map(str, words))) == 0
    (found,) = json.loads((tmp_path / "out.json").read_text())["queries"]
    assert len(found["results"]) == 10
    model = build_model(get_config(agw_run / "config.yml")).eval()
    load_weights(model, agw_run / "best.pth")
    paths = [query, gallery / found["results"][0]["path"]]
    images = torch.stack([torch.from_numpy(read_image(path, SIZE, "lanczos")) for path in paths])
    with torch.no_grad():
        one, other = model(normalise(images), torch.tensor([True, looks_infrared(paths[1])]))
    assert found["results"][0]["score"] == pytest.approx(torch.cosine_similarity(one, other, dim=0).item(), abs=1e-4)


def test_a_dry_run_of_agw(regdb_root, tmp_path, capsys):
    words = arguments(tmp_path, "regdb", regdb_root, **METHODS["agw"])
    assert main([*words, "--dry-run"]) == 0
    model = build_model(get_config(tmp_path / "regdb.yml", words[words.index("--seed") + 2 :]))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert f" {parameters:,} parameters\n" in capsys.readouterr().out


def test_a_checkpoint_of_another_network_is_refused(agw_run, regdb_root, tmp_path):
    words = arguments(tmp_path, "regdb", regdb_root, resume=str(agw_run / "best.pth"), test_only="true")
    with pytest.raises(UserError, match=r"best.pth: .*(unknown to this model|no name in it belongs)"):
        main(words)


@pytest.mark.faults
def test_every_network_trains_compiled(name, regdb_root, tmp_path):
    """The compiled step gives the losses of the step as it is; a small learning rate keeps rounding small."""
    torch._dynamo.reset()
    found = []
    for compiled in ("false", "true"):
        keys = METHODS[name] | {"compile": compiled, "soft_rank": "builtin", "lr": "0.0001", "num_epoch": "1"}
        (row,) = rows(run(tmp_path, *arguments(tmp_path, "regdb", regdb_root, **keys, mser="false")))
        found.append({key: float(value) for key, value in row.items() if key.startswith("loss") and value})
    assert found[0] == pytest.approx(found[1], rel=1e-3)
    assert len(found[0]) == 2
