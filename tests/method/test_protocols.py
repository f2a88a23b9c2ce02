import json
import random

import numpy as np
import pytest

from data.datasets import SYSU, RegDB
from data.datasets.permutations import read_permutations
from tests.helpers.golden import GOLDEN
from tests.helpers.runs import SETTINGS
from tools.score import main as score_main
from utils.features import SPECTRA, Features
from utils.protocols import score
from utils.rerank import MSER
from utils.results import SettingResult, TrialScore, markdown_table
from utils.run.cli import run_program
from utils.run.errors import UserError


def subset(features: Features, keep: np.ndarray) -> Features:
    spectra = {name: values[keep] for name, values in features.spectra.items()}
    return Features(features.paths[keep], features.identities[keep], features.cameras[keep], spectra)


def test_sysu_galleries_as_drawn_by_agw(golden_root):
    """The loop of the released code, with the global generator."""
    features = Features.load(GOLDEN / "sysu_features.npz")
    (search,) = SYSU.chosen_protocol(features, golden_root, {"sysu_gallery": "python"})
    for mode, cameras in (("all", [1, 2, 4, 5]), ("indoor", [1, 2])):
        found = search.galleries[f"{mode}/1-shot/python"]
        assert len(found) == 10
        for trial, columns in enumerate(found):
            random.seed(trial)
            expected = []
            for identity in sorted(set(features.identities.tolist())):
                for camera in cameras:
                    names = sorted(features.paths[(features.identities == identity) & (features.cameras == camera)])
                    if names:
                        expected.append(random.choice(names))
            assert features.paths[search.pool[columns]].tolist() == expected
    (plain,) = SYSU.chosen_protocol(features, golden_root, {})
    assert list(plain.galleries) == list(SETTINGS["sysu"])


@pytest.mark.parametrize("dataset", ["sysu", "regdb"])
def test_golden_results_through_the_program(dataset, golden_root, tmp_path, capsys):
    out = tmp_path / "out.json"
    features = str(GOLDEN / f"{dataset}_features.npz")
    words = ["--dataset", dataset, "--data-root", str(golden_root), "--json", str(out), "--gpu", "cpu"]
    assert score_main([features, *words]) == 0
    found = json.loads(out.read_text())
    expected = json.loads((GOLDEN / f"{dataset}_expected.json").read_text())
    assert found.keys() == {name for name in expected if not name.endswith("_float32")}
    for name, metrics in expected.items():
        # without the suffix, MSER's metrics are those of the released half precision
        tolerance = 0.3 if name.endswith("/mser") else 1e-3
        own = found[name.removesuffix("_float32")]
        assert own.keys() == metrics.keys()
        for metric, value in metrics.items():
            assert own[metric] == pytest.approx(value, abs=tolerance), (name, metric)
    assert f"| {next(iter(expected))} |" in capsys.readouterr().out


def test_galleries_follow_the_permutations(golden_root):
    features = Features.load(GOLDEN / "sysu_features.npz")
    permutations = read_permutations(golden_root / "exp/rand_perm_cam.mat", SYSU.cameras_of())
    (search,) = SYSU.chosen_protocol(features, golden_root, {})
    assert list(search.galleries) == ["all/1-shot", "all/10-shot", "indoor/1-shot", "indoor/10-shot"]
    assert set(features.cameras[search.query].tolist()) == {3, 6}
    # cameras 2 and 3 share a location
    np.testing.assert_array_equal(search.query_locations, np.where(features.cameras[search.query] == 3, 2, 6))
    np.testing.assert_array_equal(search.pool_locations, features.cameras[search.pool])
    identities = set(features.identities.tolist())
    for name, cameras, shots in (("all/1-shot", (1, 2, 4, 5), 1), ("indoor/10-shot", (1, 2), 10)):
        for trial, columns in enumerate(search.galleries[name]):
            expected = sorted(
                f"cam{camera}/{identity:04d}/{instance:04d}.jpg"
                for (camera, identity), instances in permutations.items()
                if camera in cameras and identity in identities
                for instance in instances[trial, :shots].tolist()
            )
            assert sorted(features.paths[search.pool[columns]].tolist()) == expected


def test_settings_do_not_depend_on_each_other(golden_root):
    features = Features.load(GOLDEN / "sysu_features.npz")
    (search,) = SYSU.protocol(features, golden_root)
    together = score(features, [search])
    for name in reversed(list(search.galleries)):
        assert score(features, [search.only([name])]) == {name: together[name]}


def test_regdb_is_all_against_all(golden_root):
    features = Features.load(GOLDEN / "regdb_features.npz")
    (search,) = RegDB.protocol(features, golden_root)
    assert set(features.cameras[search.query].tolist()) == {3}
    assert set(features.cameras[search.pool].tolist()) == {2}
    assert len(search.query) + len(search.pool) == len(features.paths)
    ((columns,),) = search.galleries.values()
    assert columns.tolist() == list(range(len(search.pool)))
    assert list(score(features, [search.only(["visible_to_infrared"])])) == ["visible_to_infrared"]


def test_order_of_the_features_does_not_matter(golden_root):
    features = Features.load(GOLDEN / "sysu_features.npz")
    shuffled = subset(features, np.random.default_rng(0).permutation(len(features.paths)))
    name = "all/1-shot"
    protocols = [[search.only([name]) for search in SYSU.protocol(f, golden_root)] for f in (features, shuffled)]
    first, second = (score(f, protocol)[name] for f, protocol in zip((features, shuffled), protocols, strict=True))
    np.testing.assert_allclose(first.trials, second.trials, atol=1e-9)


def test_what_cannot_be_scored_is_said(golden_root):
    features = Features.load(GOLDEN / "sysu_features.npz")
    with pytest.raises(UserError, match="no query"):
        SYSU.protocol(subset(features, ~np.isin(features.cameras, (3, 6))), golden_root)
    keep = np.ones(len(features.paths), dtype=bool)
    keep[np.flatnonzero(features.cameras == 1)[0]] = False
    with pytest.raises(UserError, match="lists instance .*, of which there is no image"):
        SYSU.protocol(subset(features, keep), golden_root)
    plain = Features(features.paths, features.identities, features.cameras, {"original": features.spectra["original"]})
    with pytest.raises(UserError, match="red, green, blue are missing"):
        score(plain, SYSU.protocol(plain, golden_root), mser=MSER(20, 6, 0.3))
    regdb = Features.load(GOLDEN / "regdb_features.npz")
    with pytest.raises(UserError, match="there is no thermal image"):
        RegDB.protocol(subset(regdb, regdb.cameras == 2), golden_root)


def test_features_that_are_not_finite_are_refused(golden_root):
    features = Features.load(GOLDEN / "sysu_features.npz")
    spectra = {name: values.copy() for name, values in features.spectra.items()}
    spectra["original"][7, 3] = np.nan
    broken = Features(features.paths, features.identities, features.cameras, spectra)
    with pytest.raises(UserError, match=f"{features.paths[7]}: its features .original. are not finite.*set fp16 false"):
        score(broken, SYSU.protocol(broken, golden_root))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--k2", "0"], "--k2: 0 should be at least 1"),
        (["--lambda", "nan"], "--lambda: nan should be between 0 and 1"),
        (["--json", "absent/out.json"], "--json: there is no folder absent"),
        (["--dataset", "sysu"], "rand_perm_cam.mat"),
    ],
)
def test_arguments_that_cannot_be(words, message, capsys, tmp_path):
    line = [str(GOLDEN / "regdb_features.npz"), "--dataset", "regdb", "--data-root", str(tmp_path), *words]
    assert run_program(lambda: score_main(line)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_features_of_another_data_set_are_refused(capsys):
    assert run_program(lambda: score_main([str(GOLDEN / "sysu_features.npz"), "--dataset", "regdb"])) == 2
    assert "RegDB has cameras (2, 3), not 1" in capsys.readouterr().err


def test_features_come_back_as_saved(tmp_path):
    random = np.random.default_rng(0)
    features = Features(
        np.array(["cam1/0001/0001.jpg", "cam3/0001/0001.jpg"]),
        np.array([1, 1]),
        np.array([1, 3]),
        {name: random.random((2, 4), dtype=np.float32) for name in SPECTRA},
    )
    features.save(tmp_path / "f.npz")
    again = Features.load(tmp_path / "f.npz")
    np.testing.assert_array_equal(again.paths, features.paths)
    for name in SPECTRA:
        np.testing.assert_array_equal(again.spectra[name], features.spectra[name])
    np.testing.assert_allclose(
        np.linalg.norm(again.normalised(["red"], np.arange(len(again.paths))), axis=2), 1, rtol=1e-6
    )


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04", "pickled", "short"])
def test_files_that_are_no_features(tmp_path, content, capsys):
    path = tmp_path / "f.npz"
    if content == "pickled":
        np.savez(path, paths=np.array([{}], dtype=object), identities=[1], cameras=[1], original=[[1.0]])
    elif content == "short":
        np.savez(path, paths=["a", "b"], identities=[1], cameras=[1], original=[[1.0]])
    elif content is not None:
        path.write_bytes(content)
    assert run_program(lambda: score_main([str(path), "--dataset", "regdb"])) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}")
    assert error.count("\n") == 1


def test_table_and_means():
    trials = (TrialScore(50, 60, 70, 80, 40, 30), TrialScore(60, 70, 80, 90, 44, 32))
    result = SettingResult(trials)
    assert result.mean == TrialScore(55, 65, 75, 85, 42, 31)
    assert result.std.rank1 == 5
    assert "| x | 55.00 ± 5.00 | 65.00 | 75.00 | 85.00 | 42.00 ± 2.00 | 31.00 | 2 |" in markdown_table({"x": result})


@pytest.mark.parametrize("kind", ["f2", "f8", ">f4", "i4", "u2", "longdouble"])
def test_every_kind_of_feature_is_normalised(kind):
    values = np.random.default_rng(0).integers(0, 9, (4, 8)).astype(kind)
    arrays = (np.array(list("abcd")), np.arange(4), np.arange(4))
    features = Features(*arrays, {"original": values})
    features.require_finite(["original"])
    expected = values.astype("f8") / np.linalg.norm(values.astype("f8"), axis=1, keepdims=True)
    np.testing.assert_allclose(features.normalised(["original"], np.arange(4))[0], expected, rtol=1e-5)


SCALES = [(1, "f4"), (1e15, "f4"), (1e30, "f4"), (1e-30, "f4"), (1e150, "f8"), (1e-150, "f8"), (1e-3, "f2")]


@pytest.mark.parametrize(("scale", "kind"), SCALES)
def test_large_and_small_features_are_normalised_all_the_same(scale, kind):
    values = (np.random.default_rng(0).standard_normal((4, 8)) * scale).astype(kind)
    features = Features(np.array(list("abcd")), np.arange(4), np.arange(4), {"original": values})
    (normalised,) = features.normalised(["original"], np.arange(4))
    wide = values.astype("f8")
    expected = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    np.testing.assert_allclose(normalised, expected, rtol=1e-5, atol=1e-7)
