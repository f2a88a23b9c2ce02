"""Rank lists: which images they show, and how correct and wrong results are framed."""

import re

import numpy as np
import pytest
from PIL import Image

from data.datasets import SYSU
from tools import rank_list
from utils import rank_lists
from utils.features import Features
from utils.protocols import Search
from utils.run.cli import run_program
from utils.run.errors import UserError

EDGE = rank_lists.MARGIN - 2  # the middle of the left frame of an image, from the corner of its cell


def make_features(identities, cameras, vectors) -> Features:
    paths = np.array([f"{number}.png" for number in range(len(identities))])
    return Features(paths, np.array(identities), np.array(cameras), {"original": np.array(vectors, dtype=np.float32)})


def cell_edge(picture: Image.Image, row: int, column: int) -> np.ndarray:
    """The left frame of a result, from top to bottom: (pixels, 3)."""
    x = (1 + column) * (rank_lists.WIDTH + 2 * rank_lists.MARGIN) + rank_lists.GAP + EDGE
    y = row * (rank_lists.HEIGHT + 2 * rank_lists.MARGIN + rank_lists.CAPTION) + rank_lists.MARGIN
    return np.asarray(picture)[y : y + rank_lists.HEIGHT, x].astype(int)


def test_images_from_the_own_location_are_left_out():
    """The nearest image is from the query's location; the others are ranked by similarity."""
    features = make_features([1, 1, 2, 1], [3, 2, 1, 4], [[1, 0], [1, 0], [1, 0.1], [1, 0.5]])
    search = Search(
        query=np.array([0]), pool=np.array([1, 2, 3]), query_locations=np.array([2]),
        pool_locations=np.array([2, 1, 4]), galleries={"all/1-shot": (np.array([2, 0, 1]),)}, neighbours="queries",
    )  # fmt: skip
    ((query, results),) = rank_lists.rank_lists(features, search)
    assert query == 0
    assert results.tolist() == [2, 3]


def test_queries_without_a_match_are_left_out():
    features = make_features([1, 2, 1, 3], [3, 3, 1, 1], np.eye(4))
    search = Search(
        query=np.array([0, 1]), pool=np.array([2, 3]), query_locations=np.array([2, 2]),
        pool_locations=np.array([1, 1]), galleries={"all/1-shot": (np.array([0, 1]),)}, neighbours="queries",
    )  # fmt: skip
    assert [query for query, _ in rank_lists.rank_lists(features, search)] == [0]


def test_frames_of_correct_and_wrong_results(tmp_path):
    features = make_features([1, 1, 2], [3, 1, 1], np.eye(3))
    for path in features.paths:
        Image.new("RGB", (20, 40)).save(tmp_path / path)
    picture = rank_lists.draw([rank_lists.row_of(features, tmp_path, 0, np.array([1, 2]))])
    assert (cell_edge(picture, 0, 0) == rank_lists.CORRECT).all()
    wrong = cell_edge(picture, 0, 1)
    orange, white = (wrong == rank_lists.WRONG).all(axis=1), (wrong == rank_lists.WHITE).all(axis=1)
    assert (orange | white).all()
    assert orange.sum() > white.sum() > 0
    assert (np.diff(white.astype(int)) == 1).sum() > 3  # several gaps


def test_a_missing_image_is_named(tmp_path):
    features = make_features([1, 1], [3, 1], np.eye(2))
    with pytest.raises(UserError, match=r"0\.png: no such image"):
        rank_lists.draw([rank_lists.row_of(features, tmp_path, 0, np.array([1]))])


@pytest.mark.parametrize(
    ("image", "kind", "message"),
    [
        (Image.new("RGB", (8, 16)), "EPS", "cannot be decoded as an image (it is none of JPEG"),  # by Ghostscript
        (Image.new("1", (6000, 6000)), "PNG", "has 6000 x 6000 pixels, more than the limit"),
    ],
    ids=["postscript", "huge"],
)
def test_images_that_a_data_set_refuses_are_not_drawn(image, kind, message, tmp_path):
    image.save(tmp_path / "a.jpg", kind)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'a.jpg'}: {message}")):
        rank_lists.draw([[rank_lists.Shown(tmp_path / "a.jpg")]])


@pytest.fixture
def run_folder(sysu_root, tmp_path):
    """A run folder on the synthetic SYSU-MM01, with random features and a data set that has moved."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yml").write_text(f"dataset: sysu\nprefix: run\ndata_root: {tmp_path / 'old'}\n")
    dataset = SYSU(sysu_root, "test")
    vectors = np.random.default_rng(0).standard_normal((len(dataset), 8), dtype=np.float32)
    Features(dataset.paths, dataset.identities, dataset.cameras, {"original": vectors}).save(folder / "features.npz")
    return folder


def test_the_program_draws_a_moved_data_set(run_folder, sysu_root, tmp_path, capsys):
    out = tmp_path / "out.png"
    words = [str(run_folder), "--out", str(out), "--data-root", str(sysu_root), "--queries", "2", "--results", "3"]
    assert rank_list.main(words) == 0
    assert ": 2 of " in capsys.readouterr().out
    with Image.open(out) as picture:
        for row in range(2):
            for column in range(3):
                colours = {tuple(colour) for colour in cell_edge(picture, row, column).tolist()}
                assert colours in ({rank_lists.CORRECT}, {rank_lists.WRONG, rank_lists.WHITE})


def test_a_picture_that_is_too_large_for_jpeg(tmp_path):
    picture = Image.new("RGB", (1, 65_501))
    with pytest.raises(UserError, match=r"a\.jpg: JPEG files have at most 65,500 pixels .* 65,501; write a \.png"):
        rank_list.save_picture(picture, tmp_path / "a.jpg")
    rank_list.save_picture(picture, tmp_path / "a.png")
    rank_list.save_picture(picture.crop((0, 0, 1, 65_500)), tmp_path / "b.jpg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.jpg"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--queries", "0"], "--queries: 0 should be at least 1"),
        (["--results", "-1"], "--results: -1 should be at least 1"),
        (["--out", "absent/out.png"], "--out: there is no folder absent"),
        (["--out", "out.txt"], "--out: out.txt should end in .jpg or .png"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(words, message, capsys):
    assert run_program(lambda: rank_list.main(["run", "--out", "out.png", *words])) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
