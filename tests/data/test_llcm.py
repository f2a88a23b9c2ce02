"""LLCM: samples, labels, what is refused, and the protocol against outputs of the public code."""

import json

import numpy as np
import pytest

from data.datasets import LLCM
from tests.helpers.llcm import EXPECTED, PATHS, golden_features, make_tree
from tools.score import main as score_main
from utils.protocols import describe_queries, only, score

METRICS = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")


@pytest.fixture(scope="module", params=[True, False], ids=["folders", "lists"])
def golden(request, tmp_path_factory):
    """Root, features and protocol, with and without the folders ``test_vis`` and ``test_nir``."""
    root = make_tree(tmp_path_factory.mktemp("llcm") / "LLCM", folders=request.param)
    features = golden_features(folders=request.param)
    return root, features, LLCM.protocol(features, root)


def test_golden_galleries(golden):
    _, features, protocol = golden
    names = np.array([path.rsplit("/", 1)[-1] for path in features.paths])
    for search, side in zip(protocol, ("visible", "infrared"), strict=False):
        (trials,) = search.galleries.values()
        assert len(trials) == 10
        for trial, columns in zip(EXPECTED["trials"], trials, strict=True):
            expected = [path.rsplit("/", 1)[-1] for path in trial[f"{side}_gallery"]]
            assert names[search.pool[columns]].tolist() == expected


def test_golden_figures(golden):
    _, features, protocol = golden
    results = score(features, protocol)
    for name in ("infrared_to_visible", "visible_to_infrared", "visible_to_infrared_released"):
        assert len(results[name].trials) == 10
        for trial, expected in zip(results[name].trials, EXPECTED["trials"], strict=True):
            for metric in METRICS:
                assert getattr(trial, metric) == pytest.approx(expected["figures"][name][metric], abs=1e-3)
        for metric in METRICS:
            assert getattr(results[name].mean, metric) == pytest.approx(EXPECTED["mean_of_ten"][name][metric], abs=1e-3)
    for name, figures in EXPECTED["all_against_all_without_filter"].items():
        for metric in METRICS:
            assert getattr(results[f"{name}_all"].mean, metric) == pytest.approx(figures[metric], abs=1e-3)


def test_golden_order_of_the_queries(golden):
    _, features, protocol = golden
    ordered = features.paths[np.concatenate([protocol[1].query, protocol[0].query])]
    assert [p.rsplit("/", 1)[-1] for p in ordered] == [p.rsplit("/", 1)[-1] for p in PATHS]


def test_number_of_scored_queries(golden):
    _, features, protocol = golden
    counts = EXPECTED["counts"]
    lines = describe_queries(only(protocol, LLCM.selection), features.identities)
    assert lines == [
        f"infrared_to_visible: {counts['scored_infrared_queries']} of {counts['infrared']} queries are scored",
        f"visible_to_infrared: {counts['scored_visible_queries']} of {counts['visible']} queries are scored",
    ]


def test_scoring_program(golden, tmp_path, capsys):
    root, features, _ = golden
    features.save(tmp_path / "f.npz")
    words = [str(tmp_path / "f.npz"), "--dataset", "llcm", "--data-root", str(root), "--no-mser", "--gpu", "cpu"]
    for more, settings in {
        (): LLCM.selection,
        ("--llcm-visible-search", "released"): (*LLCM.selection, "visible_to_infrared_released"),
        ("--llcm-gallery", "all"): (*LLCM.selection, "infrared_to_visible_all", "visible_to_infrared_all"),
    }.items():
        assert score_main([*words, "--json", str(tmp_path / "out.json"), *more]) == 0
        found = json.loads((tmp_path / "out.json").read_text())
        assert tuple(found) == settings
        for name in LLCM.selection:
            assert found[name] == pytest.approx(EXPECTED["mean_of_ten"][name], abs=1e-3)
    assert "infrared_to_visible: 246 of 289 queries are scored" in capsys.readouterr().out
