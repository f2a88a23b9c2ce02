"""The report: its numbers against scoring and loops, its page as text, its pictures, and wrong arguments."""

import io
import json
import re
import shutil
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from configs import get_config
from data.datasets import DATASETS, LLCM, SYSU
from data.datasets.base import ReIDDataset
from models import MCJA
from utils.features import Features
from utils.protocols import Search, mser_distances, plain_distances, score
from utils.rank_lists import Shown
from utils.results import means, trials
from utils.run.cli import run_program
from utils.run.errors import UserError

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("sklearn")

from tools.report import __main__ as report  # noqa: E402
from tools.report import attention, contents, figures, ranking  # noqa: E402
from tools.report.output import thumbnail  # noqa: E402
from tools.report.run import extract, open_run  # noqa: E402

CPU = torch.device("cpu")


def make_run(folder: Path, dataset: ReIDDataset, **variants: str) -> Path:
    """Make the folder of a run that only tested: no model, and random features that are alike within an identity."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    centres = random.standard_normal((600, 8), dtype=np.float32)[dataset.identities]
    vectors = centres + random.standard_normal((len(dataset), 8), dtype=np.float32)
    features = Features(dataset.paths, dataset.identities, dataset.cameras, {"original": vectors})
    features.save(folder / "features.npz")
    name = next(name for name, kind in DATASETS.items() if isinstance(dataset, kind))
    keys = {"dataset": name, "prefix": "run", "data_root": str(dataset.root), **variants}
    (folder / "config.yml").write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))
    results = score(features, dataset.chosen_protocol(features, dataset.root, variants))
    content = {"results": means(results), "trials": trials(results)}
    (folder / "results.json").write_text(
        json.dumps({**content, "last": content, "seed": 5, "versions": {"torch": "2"}})
    )
    return folder


@pytest.fixture(scope="session")
def sysu_run(sysu_root, tmp_path_factory) -> Path:
    """A run on the synthetic SYSU-MM01 with a hostile name."""
    return make_run(tmp_path_factory.mktemp("runs") / "<img src=x onerror=alert(1)>", SYSU(sysu_root, "test"))


@pytest.fixture(scope="session")
def page(sysu_run, whole_run, tmp_path_factory) -> Path:
    """A page about two runs."""
    out = tmp_path_factory.mktemp("report") / "report.html"
    assert report.main([str(whole_run), str(sysu_run), "--out", str(out), "--gpu", "cpu"]) == 0
    return out


@pytest.fixture(scope="session")
def rankings(sysu_case):
    """Rankings of the golden features, plain and with MSER."""
    features, (search,), mser = sysu_case
    search = search.only(["all/1-shot"])
    distances = plain_distances(features, search, CPU), mser_distances(features, search, mser, CPU)
    return [ranking.rank(features, search, "all/1-shot", each, CPU) for each in distances]


def test_rankings_have_the_scores_of_testing(sysu_case, rankings):
    features, protocol, mser = sysu_case
    results = score(features, [protocol[0].only(["all/1-shot"])], mser=mser)
    for name, ranked in zip(("all/1-shot", "all/1-shot/mser"), rankings, strict=True):
        assert 100 * ranked.cmc[0] == pytest.approx(results[name].mean.rank1, abs=1e-9)
        assert 100 * ranked.cmc[19] == pytest.approx(results[name].mean.rank20, abs=1e-9)
        first = 100 * ranked.precision[ranked.first > 0].mean()
        assert first == pytest.approx(results[name].trials[0].mAP, abs=1e-9)


def test_the_first_result_is_right_exactly_if_the_rank_is_1(sysu_case, rankings):
    features = sysu_case[0]
    for ranked in rankings:
        for query in np.flatnonzero(ranked.first > 0)[:40].tolist():
            identity = features.identities[ranked.search.query[query]]
            assert (features.identities[ranked.results(query)[0]] == identity) == (ranked.first[query] == 1)


def test_groups_of_queries_average_to_the_whole(sysu_case, rankings):
    """Each trial of the golden galleries has the same queries with a match, so weighted means are exact."""
    features, (search,), _ = sysu_case
    whole = score(features, [search.only(["all/1-shot"])])["all/1-shot"].mean
    for groups in (ranking.by_camera(features, rankings[0]), ranking.by_identity(features, rankings[0])):
        queries = [group.queries for group in groups]
        assert np.average([group.rank1 for group in groups], weights=queries) == pytest.approx(whole.rank1)
        assert np.average([group.mAP for group in groups], weights=queries) == pytest.approx(whole.mAP)


def hand_made(vectors, identities, cameras) -> tuple[Features, Search]:
    """A search of infrared (camera 3) in visible images."""
    cameras = np.array(cameras)
    paths = np.array([f"{number}.png" for number in range(len(cameras))])
    features = Features(paths, np.array(identities), cameras, {"original": np.array(vectors, dtype=np.float32)})
    query, pool = np.flatnonzero(cameras == 3), np.flatnonzero(cameras != 3)
    galleries = {"all": (np.arange(len(pool)),)}
    return features, Search(query, pool, cameras[query], cameras[pool], galleries, neighbours="queries")


def test_mended_and_broken_queries():
    """Of three queries, other distances mend the first and break the second."""
    features, search = hand_made(np.eye(6), [1, 2, 3, 1, 2, 3], [3, 3, 3, 1, 1, 1])
    before = torch.tensor([[2.0, 1, 3], [2, 1, 3], [3, 2, 1]])
    after = torch.tensor([[1.0, 2, 3], [1, 2, 3], [3, 2, 1]])
    rankings = [
        ranking.rank(features, search, "all", plain_distances(features, search, CPU)._replace(to_gallery=distance), CPU)
        for distance in (lambda columns: before[:, columns], lambda columns: after[:, columns])
    ]
    found = {kind.title: kind.queries for kind in ranking.examples(features, *rankings)}
    assert found["Mended by MSER"] == [0]
    assert found["Broken by MSER"] == [1]
    assert found["Worst queries"][0] == 0
    (group,) = [group for group in ranking.by_identity(features, rankings[0]) if group.name == 1]
    assert (group.rank1, group.mAP, group.confused) == (0, 50, "2 (1×)")


def test_histograms_equal_a_loop():
    random = np.random.default_rng(0)
    features, _ = hand_made(random.standard_normal((14, 3)), [1, 2] * 7, [3] * 6 + [1] * 8)
    infrared = features.cameras == 3
    locations = np.where(infrared, 3, 1)
    locations[:2] = 2  # infrared – infrared: pairs of the locations 2 and 3
    found = {histogram.name: histogram for histogram in ranking.histograms(features, infrared, locations)}
    rows = features.normalised(["original"], np.arange(14))[0].double().numpy()
    for name, a, b in [("infrared – visible", True, False), ("infrared – infrared", True, True)]:
        pairs = [
            (1 - rows[i] @ rows[j], features.identities[i] == features.identities[j])
            for i in np.flatnonzero(infrared == a) for j in np.flatnonzero(infrared == b)
            if locations[i] != locations[j]
        ]  # fmt: skip
        for same, shares in ((True, found[name].matching), (False, found[name].others)):
            distances = [distance for distance, matches in pairs if matches == same]
            assert found[name].pairs[0 if same else 1] == len(distances)
            expected = np.histogram(distances, found[name].edges)[0] / len(distances)
            np.testing.assert_allclose(shares, expected, atol=1e-12)
    assert 0 <= found["infrared – visible"].overlap <= 1
    assert found["visible – visible"].same_location  # all are from one location, so all pairs count
    assert sum(found["visible – visible"].pairs) == 8 * 7
    assert not found["infrared – infrared"].same_location


def test_centres():
    """The two modalities of each identity are 60 degrees apart, the two identities are orthogonal."""
    half = np.sqrt(3) / 2
    vectors = [[1, 0, 0, 0], [0.5, half, 0, 0], [0, 0, 1, 0], [0, 0, 0.5, half]]
    features, _ = hand_made(vectors, [1, 1, 2, 2], [3, 1, 3, 1])
    found = ranking.centres(features, features.cameras == 3)
    assert found.modalities == pytest.approx(0.5)
    assert found.identities == pytest.approx(1)


def test_maps_of_the_network():
    torch.manual_seed(0)
    model = MCJA(3, backbone="resnet10").eval()
    images, infrared = torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8), torch.tensor([True, False])
    maps = attention.adapter_maps(model, images, infrared)
    assert {name: tuple(values.shape) for name, values in maps.items()} == {
        "MDA_2": (2, 2, 8, 4),
        "MDA_3": (2, 2, 4, 2),
    }
    for values in maps.values():  # uniform attention is 1
        torch.testing.assert_close(values.mean(dim=(2, 3)), torch.ones(2, 2))
    match = attention.match_maps(model, images, infrared)
    assert match.shape == (2, 2, 1)
    assert match.isfinite().all()
    assert attention.adapter_maps(MCJA(3, backbone="resnet10", mda_layers=(0, 0, 0, 0)).eval(), images, infrared) == {}


def test_match_maps_show_where_the_product_of_embeddings_comes_from():
    """With average pooling and no bias, the product is a sum over places, and the map is its positive part."""
    torch.manual_seed(0)
    model = MCJA(3, backbone="resnet10", pooling="avg", mda_layers=(0, 0, 0, 0)).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    kept = []
    model.get_submodule("backbone.layer4").register_forward_hook(lambda _, __, output: kept.append(output.detach()))
    found = attention.match_maps(model, images, torch.tensor([True, False]))
    means = kept[0].mean(dim=(2, 3))
    places = torch.einsum("bchw,bc->bhw", kept[0], means.flip(0)).relu()
    torch.testing.assert_close(found, places / places.amax(dim=(1, 2), keepdim=True), rtol=1e-3, atol=1e-4)


# what people with protanopia, deuteranopia and tritanopia see (Machado et al. 2009, severity 1), of linear RGB
BLINDNESS = [
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
]


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear RGB (D65)."""
    xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]] @ rgb / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("matrix", [np.eye(3), *BLINDNESS], ids=["none", "protanopia", "deuteranopia", "tritanopia"])
def test_colours_are_told_apart_without_full_colour_vision(matrix):
    """Differences in L*a*b* below about 10 are hard to see between small marks."""
    values = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in figures.PALETTE])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = [lab(np.clip(np.array(matrix) @ colour, 0, 1)) for colour in linear]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 20


@pytest.mark.parametrize("ground", ["rgb(255, 255, 255)", "rgb(20, 23, 27)"], ids=["light", "dark"])
def test_colours_stand_out_from_both_grounds(ground):
    """WCAG: a contrast of at least 3 for parts of figures."""
    for colour in figures.PALETTE:
        rgb = f"rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})"
        assert contrast(rgb, ground) >= 3


def test_the_page_is_self_contained_and_shows_the_results(page, whole_run):
    text = page.read_text()
    assert page.stat().st_size < 10e6
    assert set(re.findall(r"https?://[^\"'\s)]+", text)) <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink",
    }  # fmt: skip
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    for values in json.loads((whole_run / "results.json").read_text())["results"].values():
        assert f"{values['rank1']:.2f}" in text
        assert f"{values['mAP']:.2f}" in text
    assert text.count("The model of this run is gone") == 1
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', text)) <= set(ids)
    images = re.findall(r"<img [^>]*>", text)
    assert images
    assert all(re.search(r'alt="[^"]+"', image) for image in images)


@pytest.mark.faults  # slow
@pytest.mark.parametrize("runs", [1, 2])
def test_figures_as_files(runs, sysu_run, whole_run, tmp_path, capsys):
    folder, out = tmp_path / "figures", tmp_path / "report.html"
    words = [str(run) for run in (sysu_run, whole_run)[:runs]]
    assert report.main([*words, "--out", str(out), "--figures", str(folder), "--gpu", "cpu"]) == 0
    assert f"{folder}: figures as PNG and PDF\n" in capsys.readouterr().out
    names = {path.stem for path in folder.glob("*.pdf")}
    assert names == {path.stem for path in folder.glob("*.png")}
    of_run = {"tsne", "by_identity", "by_query_camera", "distances_infrared_visible", "rank_lists_worst_queries"}
    if runs == 1:
        assert {"cmc_all_1-shot", "cmc_indoor_10-shot", *of_run} <= names
    else:
        shared = {
            "cmc_all_1-shot",
            "cmc_visible_to_infrared",
            "curve_test",
            "curve_loss_id",
            "curve_loss_cmr",
            "curve_lr",
        }
        assert shared | {f"run1_{name}" for name in of_run} <= names
        directions = ("infrared_to_visible", "visible_to_infrared")
        assert {
            f"run2_{name}_{figure}" for name in directions for figure in ("by_identity", "looks_worst_query")
        } <= names
    for name, width in (
        ("cmc_all_1-shot", figures.COLUMN),
        ("run1_" * (runs == 2) + "rank_lists_best_queries", figures.PAGE),
    ):
        with Image.open(folder / f"{name}.png") as image:
            assert image.width == pytest.approx(width * 300, abs=2)  # of a column or a page, at 300 dots per inch
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent", "--out", "page.html"], "absent: no such run folder"),
        ([".", "--out", "page.html"], ".: holds no results.json; it is not a run folder, or the run is not complete"),
        ([".", "--out", "absent/page.html"], "--out: there is no folder absent"),
        ([".", "--out", "page.pdf"], "--out: page.pdf should end in .html"),
        ([".", "--out", "."], "--out: . is a folder"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_program(lambda: report.main(words)) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not list(tmp_path.iterdir())


def test_a_moved_data_set_is_named(sysu_run, sysu_root, tmp_path, capsys):
    """The lists are there, the images are not."""
    (tmp_path / "exp").symlink_to(sysu_root / "exp")
    words = [str(sysu_run), "--out", str(tmp_path / "page.html"), "--data-root", str(tmp_path), "--gpu", "cpu"]
    assert run_program(lambda: report.main(words)) == 2
    assert re.fullmatch(
        r"error: .*\.jpg: no such image; if the data set has moved, give --data-root\n",
        capsys.readouterr().err,
    )


@pytest.mark.parametrize(
    "show", [thumbnail, lambda path: figures.rank_lists("a", "a", [("plain", [Shown(path)])]).draw()]
)
@pytest.mark.parametrize(
    ("image", "kind", "message"),
    [
        (Image.new("RGB", (8, 16)), "EPS", "it is none of JPEG"),  # decoded by Ghostscript
        (Image.new("1", (6000, 6000)), "PNG", "more than the limit"),
    ],
    ids=["postscript", "huge"],
)
def test_images_that_a_data_set_refuses_are_not_shown(show, image, kind, message, tmp_path):
    image.save(tmp_path / "a.jpg", kind)
    with pytest.raises(UserError, match=message):
        show(tmp_path / "a.jpg")


def test_features_are_extracted_without_filling_a_cache(whole_run, tmp_path):
    run = open_run(whole_run, "run", None, CPU)
    cfg = get_config(whole_run / "config.yml", ["cache", "disk", "output_dir", str(tmp_path)])
    features = extract(cfg, run.model, CPU)
    for name, values in run.features.spectra.items():
        np.testing.assert_array_equal(features.spectra[name], values)
    assert not list(tmp_path.iterdir())


def changed(run: Path, folder: Path, **files: str) -> Path:
    """A copy of a run with other contents of some files."""
    copy = Path(shutil.copytree(run, folder / "run"))
    for name, content in files.items():
        (copy / name.replace("_", ".")).write_text(content)
    return copy


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"results_json": "[]"}, "results.json: not the results of a run"),
        ({"results_json": '{"results": {}}'}, "results.json: not the results of a run"),
        ({"metrics_csv": "epoch,lr\n1,fast\n"}, "metrics.csv: not the metrics of a run"),
    ],
)
def test_damaged_files_are_named(files, message, sysu_run, tmp_path, capsys):
    folder = changed(sysu_run, tmp_path, **files)
    assert run_program(lambda: report.main([str(folder), "--out", str(tmp_path / "p.html"), "--gpu", "cpu"])) == 2
    assert message in capsys.readouterr().err


def test_features_of_another_model_are_refused(sysu_run, tmp_path, capsys):
    folder = changed(sysu_run, tmp_path)
    features = Features.load(folder / "features.npz")
    features.spectra["original"][:] = np.random.default_rng(1).standard_normal(features.spectra["original"].shape)
    features.save(folder / "features.npz")
    assert run_program(lambda: report.main([str(folder), "--out", str(tmp_path / "p.html"), "--gpu", "cpu"])) == 2
    assert "were files exchanged?" in capsys.readouterr().err


def test_an_unknown_query_is_refused(sysu_run, tmp_path, capsys):
    words = [str(sysu_run), "--out", str(tmp_path / "p.html"), "--gpu", "cpu", "--query", "cam9/0001/0001.jpg"]
    assert run_program(lambda: report.main(words)) == 2
    assert "--query: cam9/0001/0001.jpg is not a query of" in capsys.readouterr().err


def test_a_query_can_be_chosen(sysu_run, tmp_path):
    """A query whose rank list is not among the examples."""
    run, out = open_run(sysu_run, "run", None, CPU), tmp_path / "p.html"
    plain = contents.rank_run(run, CPU)["all/1-shot"]["plain"]
    shown = {query for kind in ranking.examples(run.features, plain, None) for query in kind.queries}
    query = next(query for query in np.flatnonzero(plain.first > 0).tolist() if query not in shown)
    path = run.features.paths[plain.search.query[query]]
    assert report.main([str(sysu_run), "--out", str(out), "--gpu", "cpu", "--query", path]) == 0
    text = out.read_text()
    assert f"Chosen queries: query {path}" in text
    assert text.count(f"query {path}") == 1


def test_keys_that_may_change_results_are_shown(sysu_run):
    """Two tests of different checkpoints, with different numbers of loader processes."""
    runs = [
        SimpleNamespace(
            cfg=get_config(sysu_run / "config.yml", ["test_only", "true", "resume", name, "num_workers", workers]),
            results={"seed": 5},
        )
        for name, workers in (("a.pth", "1"), ("b.pth", "2"))
    ]
    assert contents.different_keys(runs) == [("resume", ["a.pth", "b.pth"])]
    assert contents.changed_keys(runs[0]) == [("resume", "", "a.pth"), ("test_only", False, True)]


def test_a_model_that_is_both_the_best_and_the_last(whole_run):
    run = SimpleNamespace(name="run", results=json.loads((whole_run / "results.json").read_text()), epochs=[{}])
    run.results["last"] = run.results
    rows = list(contents.result_rows(run))
    assert {row.model for row in rows} == {"best and last"}
    for row in rows:
        assert row.mean._asdict() == run.results["results"][row.setting]
        assert row.std.mAP == pytest.approx(np.std([trial.mAP for trial in row.trials]))
    run.epochs = []
    assert {row.model for row in contents.result_rows(run)} == {"tested"}


@pytest.mark.parametrize(
    ("datasets", "title"),
    [
        (["sysu", "sysu"], "rank-1 and mAP of all/1-shot over epochs"),
        (["regdb", "llcm"], "rank-1 and mAP of mean of infrared_to_visible and visible_to_infrared over epochs"),
        (["sysu", "regdb"], "rank-1 and mAP over epochs"),
    ],
)
def test_the_title_of_a_curve_is_right_for_all_of_its_runs(datasets, title):
    runs = [
        SimpleNamespace(name=name, cfg=SimpleNamespace(dataset=name), epochs=[{"epoch": 1, "rank1": 1.0, "mAP": 1.0}])
        for name in datasets
    ]
    assert [drawing.title for drawing in figures.curves(runs)] == [title]


def test_names_of_runs_are_no_formulas():
    """Ten runs with odd names get ten different lines in the legend."""
    cmc = np.linspace(0.1, 1, 20)
    names = ["_base", "$a_{b$", *(f"run {number}" for number in range(8))]
    rankings = [(name, {"plain": SimpleNamespace(cmc=cmc), "MSER": SimpleNamespace(cmc=cmc)}) for name in names]
    drawing = figures.cmc_curves("all/1-shot", rankings)
    with matplotlib.rc_context(figures.style("black", "grey")):
        figure = drawing.draw()
        figure.savefig(io.BytesIO(), format="png")
    (legend,) = figure.legends
    assert [text.get_text().strip() for text in legend.get_texts()] == [
        f"{name} {kind}" for name in names for kind in ("plain", "MSER")
    ]
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 20


def test_reversed_rankings_are_those_of_the_reverse_setting(regdb_case):
    features, (search,), mser = regdb_case
    results = score(features, [search], mser=mser)
    distances = {"": plain_distances(features, search, CPU), "/mser": mser_distances(features, search, mser, CPU)}
    for suffix, each in distances.items():
        ranked = ranking.rank(features, search, "visible_to_infrared", each, CPU)
        expected = results[f"visible_to_infrared{suffix}"].mean
        assert 100 * ranked.cmc[0] == pytest.approx(expected.rank1, abs=1e-9)
        assert 100 * np.nanmean(ranked.precision) == pytest.approx(expected.mAP, abs=1e-9)


def test_trials_with_queries_of_their_own_are_joined(llcm_root, tmp_path):
    """LLCM's released search has other queries in each trial. Its CMC is the mean over all of them, as in scoring."""
    folder = make_run(tmp_path / "run", LLCM(llcm_root, "test"), llcm_visible_search="released")
    run = open_run(folder, "run", None, CPU)
    ranked = contents.rank_run(run, CPU)["visible_to_infrared_released"]["plain"]
    expected = run.results["results"]["visible_to_infrared_released"]
    assert len(ranked.trials) == 10
    assert 100 * ranked.cmc[0] == pytest.approx(expected["rank1"], abs=1e-9)
    assert 100 * ranked.cmc[9] == pytest.approx(expected["rank10"], abs=1e-9)


def test_the_nearest_image_is_the_first_result(sysu_case, rankings):
    features = sysu_case[0]
    for ranked in rankings:
        first = [features.identities[ranked.results(query)[0]] for query in range(len(ranked.first))]
        np.testing.assert_array_equal(ranked.nearest[0], first)


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window, which notes what the page requests and complains about."""
    program, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not program or not driver:
        pytest.skip("needs chromium and chromedriver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as chromium:
        yield chromium


def show(browser, page: Path, *, width: int = 1400, theme: str = "light") -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())


def test_a_browser_shows_the_page_without_errors_and_without_a_network(browser, page):
    show(browser, page)
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert {url.split(":")[0] for url in requests} <= {"file", "data"}
    assert {url for url in requests if url.startswith("file:")} == {page.as_uri()}
    loaded = browser.execute_script(
        "return [...document.images].map(image => image.complete && image.naturalWidth > 0)"
    )
    assert len(loaded) > 100
    assert all(loaded)
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('.drawing svg')].map(svg => svg.getBoundingClientRect().height)"
    )
    assert len(sizes) > 20
    assert min(sizes) > 100


@pytest.mark.parametrize(("width", "theme"), [(1400, "light"), (1400, "dark"), (390, "light"), (390, "dark")])
def test_both_themes_and_widths(browser, page, width, theme):
    """The page is not wider than the screen; text stands out from the ground (WCAG: a contrast of at least 4.5)."""
    show(browser, page, width=width, theme=theme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    script = "const s = getComputedStyle(document.querySelector(arguments[0])); return [s.color, s.backgroundColor]"
    ink, ground = browser.execute_script(script, "body")
    soft, _ = browser.execute_script(script, "figcaption")
    assert (luminance(ground) > 0.5) == (theme == "light")
    for colour in (ink, soft):
        assert contrast(colour, ground) >= 4.5


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(r, g, b)``."""
    values = np.array([int(number) / 255 for number in re.findall(r"\d+", colour)[:3]])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_tables_sort(browser, page):
    """By rank-1, with the mouse and with the keyboard."""
    show(browser, page)
    names = [cell.text.strip(" ↕") for cell in browser.find_elements("css selector", "#results th[scope=col]")]
    column = names.index("rank-1")
    script = (
        "return [...document.querySelector('#results tbody').rows].map(row => +row.cells[arguments[0]].dataset.value)"
    )
    button = browser.find_elements("css selector", "#results thead button")[column]
    before = browser.execute_script(script, column)
    assert before not in (sorted(before), sorted(before, reverse=True))
    button.click()
    assert browser.execute_script(script, column) == sorted(before)
    button.send_keys("\n")
    assert browser.execute_script(script, column) == sorted(before, reverse=True)
    heading = browser.find_elements("css selector", "#results th[scope=col]")[column]
    assert heading.get_attribute("aria-sort") == "descending"
