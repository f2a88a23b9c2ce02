"""LLCM: samples, labels, what is refused, and the protocol against outputs of the public code."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.loops import loop_metrics, loop_mser
from data.datasets import LLCM
from tests.helpers.fuzzing import why
from tests.helpers.llcm import EXPECTED, PATHS, golden_features, make_tree
from tools.score import main as score_main
from utils.features import SPECTRA, Features
from utils.metrics import EXCLUDE
from utils.protocols import describe_queries, only, score
from utils.rank_lists import rank_lists
from utils.rerank import MSER

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


def test_golden_metrics(golden):
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


@pytest.mark.parametrize("exclude", EXCLUDE)
@pytest.mark.usefixtures("kernels")
def test_golden_metrics_of_both_exclusion_rules(exclude, golden):
    _, features, protocol = golden
    searches = [replace(search, exclude=exclude) for search in only(protocol, LLCM.selection)]
    expected = EXPECTED["mean_of_ten_by_exclusion_rule"][exclude]
    for name, result in score(features, searches).items():
        for metric in METRICS:
            assert getattr(result.mean, metric) == pytest.approx(expected[name][metric], abs=1e-3)


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


# --- samples and labels ---------------------------------------------------------------------------------------------


def index(root: Path, name: str) -> Path:
    return root / f"idx/{name}.txt"


@pytest.mark.parametrize("split", ["train", "test"])
def test_samples(split, llcm_root):
    dataset = LLCM(llcm_root, split)
    lines = [line for side in ("vis", "nir") for line in index(llcm_root, f"{split}_{side}").read_text().splitlines()]
    assert {Path(path).name for path in dataset.paths} == {Path(line.split()[0]).name for line in lines}
    for sample in dataset.samples:
        name = Path(sample.path).name
        assert (llcm_root / sample.path).is_file()
        assert sample.identity == int(name[:4])
        assert sample.camera == int(name[6:8]) + 9 * name.endswith("_nir.jpg")
    assert (dataset.infrared == (dataset.cameras > 9)).all()
    locations = LLCM.locations_of(dataset.cameras)
    np.testing.assert_array_equal(locations, np.where(dataset.infrared, dataset.cameras - 9, dataset.cameras))


def test_labels_are_ranks_whatever_the_labels_of_the_lists(llcm):
    before = LLCM(llcm, "train").samples
    for side in ("vis", "nir"):
        path = index(llcm, f"train_{side}")
        lines = [line.split() for line in path.read_text().splitlines()]
        path.write_text("".join(f"{path} {100 - int(label)}\n" for path, label in lines))
    assert LLCM(llcm, "train").samples == before
    ranks = {identity: rank for rank, identity in enumerate(sorted({sample.identity for sample in before}))}
    assert all(sample.label == ranks[sample.identity] for sample in before)


def test_cameras():
    assert LLCM.visible_cameras == tuple(range(1, 10))
    assert LLCM.infrared_cameras == (10, 11, 13, 14, 15, 16, 17, 18)


def test_test_images_from_the_lists_are_those_of_the_folders(llcm):
    by_folder = LLCM(llcm, "test")
    shutil.rmtree(llcm / "test_vis")
    shutil.rmtree(llcm / "test_nir")
    by_list = LLCM(llcm, "test")
    assert [Path(path).name for path in by_list.paths] == [Path(path).name for path in by_folder.paths]
    assert [s[1:] for s in by_list.samples] == [s[1:] for s in by_folder.samples]
    assert all(path.startswith(("vis/", "nir/")) for path in by_list.paths)
    assert by_list.notes == ()


def test_only_jpg_files_count(llcm):
    before = LLCM(llcm, "test")
    folder = (llcm / before.paths[0]).parent
    for name in ("Thumbs.db", "._copy.jpg", "notes.txt"):
        (folder / name).write_text("")
    after = LLCM(llcm, "test")
    assert after.samples == before.samples
    assert "test_vis: only .jpg files are counted, other files: 4, the first is test_vis/cam" in after.summary()


def test_a_test_folder_that_differs_from_its_list_is_noted(llcm):
    path = llcm / LLCM(llcm, "test").paths[0]
    path.unlink()
    path.symlink_to(llcm / "nowhere.jpg")
    summary = LLCM(llcm, "test").summary()
    assert "test_vis: lacks 1 images of idx/test_vis.txt, and holds 0 that are not in it" in summary
    assert "test_nir: lacks" not in summary


# --- what is refused ------------------------------------------------------------------------------------------------


def change(root: Path, name: str, old: str, new: str) -> None:
    path = index(root, name)
    path.write_text(path.read_text().replace(old, new, 1))


def first_line(root: Path, name: str) -> str:
    return index(root, name).read_text().splitlines()[0]


def without_test_ids(root: Path) -> None:
    index(root, "test_id").unlink()


def without_test_folder_and_list(root: Path) -> None:
    shutil.rmtree(root / "test_nir")
    index(root, "test_nir").unlink()


def with_an_empty_test_folder(root: Path) -> None:
    shutil.rmtree(root / "test_vis")
    (root / "test_vis").mkdir()


def with_an_unseen_identity(root: Path) -> None:
    path = index(root, "test_id")
    path.write_text(path.read_text().strip() + ",777\n")


def with_a_training_identity(root: Path) -> None:
    path = index(root, "test_id")
    path.write_text(path.read_text().strip() + f",{int(first_line(root, 'train_vis').split('/')[1])}\n")


def with_two_labels(root: Path) -> None:
    line = first_line(root, "train_nir")
    change(root, "train_nir", line, f"{line.split()[0]} 99")


def with_a_shared_label(root: Path) -> None:
    for name in ("train_vis", "train_nir"):
        path = index(root, name)
        path.write_text(path.read_text().replace(" 1\n", " 0\n"))


def without_an_image(root: Path) -> None:
    (root / first_line(root, "train_vis").split()[0]).unlink()


def with_a_line_twice(root: Path) -> None:
    line = first_line(root, "train_vis")
    change(root, "train_vis", line, f"{line}\n{line}")


def with_an_infrared_camera_3(root: Path) -> None:
    line = first_line(root, "train_nir")
    change(root, "train_nir", line, line.replace(line[12:16], "_c03"))


@pytest.mark.parametrize(
    ("damage", "split", "words"),
    [
        (without_test_ids, "test", "idx/test_id.txt: no such file; expected: the test identities in one line"),
        (without_test_folder_and_list, "test", "test_nir.txt to take its place; unpack LLCM again"),
        (with_an_empty_test_folder, "test", "test_vis: holds no .jpg of the identities of idx/test_id.txt"),
        (with_an_unseen_identity, "test", "test_id.txt: identity 777 is listed but has no image"),
        (with_a_training_identity, "train", "is listed for both training and testing"),
        (with_a_training_identity, "test", "is listed for both training and testing"),
        (with_two_labels, "train", "train_nir.txt: identity"),
        (with_a_shared_label, "train", "train_vis.txt: label 0 is given to the identities"),
        (without_an_image, "train", "train_vis.txt lists it"),
        (with_a_line_twice, "train", "is listed twice"),
        (with_an_infrared_camera_3, "train", "should hold _c and one of the cameras 1, 2, 4, 5, 6, 7, 8, 9"),
    ],
)  # fmt: skip
def test_what_is_refused(damage, split, words, llcm):
    if damage is with_a_training_identity and split == "test":
        line = first_line(llcm, "train_vis")
        target = llcm / "test_vis/cam1" / line.split("/")[1]
        target.mkdir()
        shutil.copy(llcm / line.split()[0], target)
    damage(llcm)
    message = why(LLCM, llcm, split)
    assert words in message
    assert str(llcm) in message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("vis/0001/0001_c01_s1_f1_vis.jpg", "expected 'relative/path label'"),
        ("vis/0001/0001_c01_s1_f1_vis.jpg x", "expected 'relative/path label'"),
        ("nir/0001/0001_c01_s1_f1_nir.jpg 0", "is not of the form vis/<identity>/<name>"),
        ("vis/one/0001_c01_s1_f1_vis.jpg 0", "is not of the form vis/<identity>/<name>"),
        ("vis/0001/image.jpg 0", "the file's name should hold _c and one of the cameras 1, 2, 3"),
        ("../vis/0001/image.jpg 0", "leads outside the data set"),
    ],
)
def test_lines_that_are_refused(line, words, llcm):
    index(llcm, "train_vis").write_text(line + "\n")
    assert words in why(LLCM, llcm, "train")


def test_the_folder_around_the_data_set_is_no_root(llcm, tmp_path):
    llcm.rename(tmp_path / "LLCM")
    for call in (lambda: LLCM(tmp_path, "test"), lambda: LLCM.protocol(golden_features(), tmp_path)):
        assert f"{tmp_path}: holds a further folder LLCM; set data_root to {tmp_path / 'LLCM'}" in why(call)
    assert "no such folder; LLCM has idx" in why(LLCM, tmp_path / "LLCM/vis", "test")


def test_features_of_other_images_are_refused(golden):
    root, features, _ = golden
    keep = np.arange(len(features.paths)) != 7
    lacking = Features(features.paths[keep], features.identities[keep], features.cameras[keep],
                       {"original": features.spectra["original"][keep]})  # fmt: skip
    message = why(LLCM.protocol, lacking, root)
    assert features.paths[7].rsplit("/", 1)[-1] in message
    assert "the given images lack it (1 are missing)" in message
    paths = features.paths.copy()
    identities = np.where(keep, features.identities, 999)
    foreign = Features(paths, identities, features.cameras, features.spectra)
    assert "the given images lack it" in why(LLCM.protocol, foreign, root)


# --- scoring --------------------------------------------------------------------------------------------------------


@pytest.mark.faults  # slow
def test_mser_equals_the_loops_in_both_directions(llcm_root):
    dataset, random = LLCM(llcm_root, "test"), np.random.default_rng(0)
    values = {name: random.standard_normal((len(dataset), 6)) + dataset.identities[:, None] % 3 for name in SPECTRA}
    for name in SPECTRA:
        values[name][dataset.infrared] = values["original"][dataset.infrared]
    features = Features(dataset.paths, dataset.identities, dataset.cameras, values)
    protocol = only(LLCM.protocol(features, llcm_root), LLCM.selection)
    results = score(features, protocol, mser=MSER(6, 3, 0.3))
    for search, name in zip(protocol, LLCM.selection, strict=True):
        for trial, columns in zip(results[f"{name}/mser"].trials, search.galleries[name], strict=True):
            gallery = search.pool[columns]
            sides = [
                features.normalised(["original"] if dataset.infrared[side].all() else SPECTRA, side).double().numpy()
                for side in (search.query, gallery)
            ]
            assert sorted(map(len, sides)) == [1, 4]
            distance = loop_mser(*sides, 6, 3, 0.3, "queries")
            labels = (search.query, search.query_locations), (gallery, search.pool_locations[columns])
            labels = [values for side, at in labels for values in (dataset.identities[side], at)]
            cmc, mAP, mINP = loop_metrics(distance, *labels, exclude="identity_and_camera")
            np.testing.assert_allclose([trial.rank1, trial.mAP, trial.mINP], [100 * x for x in (cmc[0], mAP, mINP)])


def test_rank_lists_leave_out_the_same_identity_and_camera(golden):
    _, features, protocol = golden
    locations, left_out = LLCM.locations_of(features.cameras), 0
    search = protocol[0]
    gallery = set(search.pool[search.galleries["infrared_to_visible"][0]].tolist())
    for query, ranked in rank_lists(features, search):
        away = np.array(sorted(gallery - set(ranked.tolist())), dtype=int)
        left_out += len(away)
        assert (features.identities[away] == features.identities[query]).all()
        assert (locations[away] == locations[query]).all()
    assert left_out > 0
