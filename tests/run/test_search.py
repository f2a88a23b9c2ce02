"""Search: rank lists, the index of a folder, approximate indices, and the local page, also with hostile input."""

import asyncio
import importlib.util
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data.folder
from configs import get_config
from data.augment import normalise
from data.datasets.images import read_image
from models import build_model

pytest.importorskip("faiss")
pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient  # noqa: E402
from starlette.exceptions import HTTPException  # noqa: E402

from benchmarks import search as benchmark  # noqa: E402
from tools.search import __main__ as program  # noqa: E402
from tools.search import index, nearest, page, searcher  # noqa: E402
from tools.search.embedding import Embedder  # noqa: E402
from utils.rerank import mser_distance  # noqa: E402
from utils.run.cli import run_program  # noqa: E402
from utils.run.errors import UnreadableImage, UserError  # noqa: E402

CONFIG = """dataset: sysu
backbone: resnet10
pretrained: none
image_size: (64, 32)
num_workers: 0
mser_k1: 5
mser_k2: 3
mser_lambda: 0.3
"""


def save_checkpoint(folder: Path, seed: int) -> Path:
    """A network with random weights, and its configuration."""
    folder.mkdir()
    (folder / "config.yml").write_text(CONFIG)
    torch.manual_seed(seed)
    torch.save(build_model(get_config(folder / "config.yml")).state_dict(), folder / "best.pth")
    return folder / "best.pth"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("search") / "run", 0)


def fill(folder: Path, root: Path) -> Path:
    """Twelve visible and six infrared images."""
    for camera, images in (("cam1", 12), ("cam3", 6)):
        for path in sorted((root / camera).glob("*/*.jpg"))[:images]:
            target = folder / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return folder


@pytest.fixture
def gallery(sysu_root, tmp_path) -> Path:
    return fill(tmp_path / "gallery", sysu_root)


@pytest.fixture
def query(sysu_root) -> Path:
    """An infrared image that is not in the gallery."""
    return sorted((sysu_root / "cam6").glob("*/*.jpg"))[0]


def start(checkpoint: Path, gallery: Path) -> list[str]:
    """The start of a command line; the index is kept beside the gallery."""
    cache = gallery.with_name("cache")
    return ["--checkpoint", str(checkpoint), "--gallery", str(gallery), "--cache", str(cache), "--gpu", "cpu"]


@pytest.fixture
def words(checkpoint, gallery) -> list[str]:
    return start(checkpoint, gallery)


@pytest.fixture
def embedded(monkeypatch) -> list[list[str]]:
    """The paths of the images of each call of an ``Embedder``."""
    calls = []
    call = Embedder.__call__

    def record(self, images, *rest):
        calls.append(images.paths.tolist())
        return call(self, images, *rest)

    monkeypatch.setattr(Embedder, "__call__", record)
    return calls


def search(words: list[str], *more: object) -> list[dict]:
    """Run the program, and return the queries of its JSON file."""
    out = Path(words[words.index("--cache") + 1]).with_name("out.json")
    assert program.main([*words, "--json", str(out), *map(str, more)]) == 0
    return json.loads(out.read_text())["queries"]


def refused(capsys, words: list[str]) -> str:
    assert run_program(lambda: program.main(words)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def cosine_similarities(checkpoint: Path, query: Path, gallery: Path) -> dict[str, float]:
    """Path -> score, one image at a time."""
    cfg = get_config(checkpoint.with_name("config.yml"))
    model = build_model(cfg).eval()
    model.load_state_dict(torch.load(checkpoint, weights_only=True))

    def embed(path: Path) -> torch.Tensor:
        with torch.inference_mode():
            (features,) = model(normalise(torch.from_numpy(read_image(path, cfg.image_size))[None]))
        return features / features.norm()

    return {str(path): float(embed(path) @ embed(query)) for path in gallery.rglob("*.jpg")}


# --- rank lists -------------------------------------------------------------------------------------------------------


def test_the_gallery_is_ranked_by_cosine_similarity(words, checkpoint, gallery, query, capsys):
    (found,) = search(words, "--query", query, "--results", 100)
    assert found["query"] == str(query)
    assert [result["rank"] for result in found["results"]] == list(range(1, 19))
    expected = cosine_similarities(checkpoint, query, gallery)
    assert {result["path"]: result["score"] for result in found["results"]} == pytest.approx(expected, abs=1e-5)
    scores = [result["score"] for result in found["results"]]
    assert scores == sorted(scores, reverse=True)
    printed = capsys.readouterr().out
    assert f"{query} (infrared, guessed from its colours)" in printed
    assert "6 infrared and 12 visible images" in printed
    assert f"   1  {scores[0]:6.3f}  {found['results'][0]['path']}" in printed


def test_several_queries(words, gallery, query):
    own = sorted(gallery.rglob("*.jpg"))[3]
    found = search(words, "--query", query, own, "--results", 4)
    assert [entry["query"] for entry in found] == [str(query), str(own)]
    assert [len(entry["results"]) for entry in found] == [4, 4]
    assert found[1]["results"][0]["path"] == str(own)
    assert found[1]["results"][0]["score"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("modality", ["infrared", "visible"])
def test_the_modality_of_queries_can_be_given(modality, words, query, capsys):
    search(words, "--query", query, f"--{modality}")
    assert f"{query} ({modality})" in capsys.readouterr().out


def test_the_picture_shows_query_and_results(words, query, tmp_path):
    out = tmp_path / "out.png"
    assert program.main([*words, "--query", str(query), str(query), "--results", "3", "--out", str(out)]) == 0
    with Image.open(out) as picture, Image.open(query) as shown:
        assert picture.size == (4 * 80 + 24, 2 * 158)
        cell = np.asarray(picture.crop((8, 8, 72, 136)))
        assert (cell == np.asarray(shown.convert("RGB").resize((64, 128)))).all()


@pytest.mark.parametrize("camera", ["cam6", "cam2"])
@pytest.mark.parametrize("first", [1000, 7])
def test_mser_reranks_the_first_images(camera, first, words, checkpoint, gallery, sysu_root, monkeypatch, capsys):
    """With an infrared query the gallery has four spectra, with a visible one the query."""
    monkeypatch.setattr(searcher, "RERANKED", first)
    query = sorted((sysu_root / camera).glob("*/*.jpg"))[0]
    (plain,) = search(words, "--query", query, "--results", 100)
    (found,) = search(words, "--query", query, "--results", 100, "--mser")
    assert found["results"][first:] == plain["results"][first:]
    scores = {result["path"]: pytest.approx(result["score"], abs=1e-6) for result in plain["results"]}
    assert {result["path"]: result["score"] for result in found["results"]} == scores

    embed = Embedder(checkpoint, None, torch.device("cpu"))
    paths = [result["path"] for result in plain["results"][:first]]
    sides = []
    for names in ([str(query)], paths):
        infrared = np.array([data.folder.looks_infrared(Path(name)) for name in names])
        images = data.folder.FolderImages(Path(), names, infrared)
        sides.append(embed(images, ("original", "red", "green", "blue")))
    spectra = [np.stack(list(side.values())) for side in sides]
    one = 0 if camera == "cam6" else 1
    spectra[one] = spectra[one][:1]
    distance = mser_distance(*spectra, k1=5, k2=3, lam=0.3, neighbours="all")[0]
    expected = [paths[position] for position in np.argsort(distance, kind="stable")]
    assert [result["path"] for result in found["results"][:first]] == expected


# --- the index of a folder --------------------------------------------------------------------------------------------


def test_only_what_has_changed_is_embedded_again(words, gallery, query, embedded, tmp_path):
    first = search(words, "--query", query, "--results", 100)
    assert [len(paths) for paths in embedded] == [18, 1]  # the gallery and the query
    embedded.clear()
    assert search(words, "--query", query, "--results", 100) == first
    assert embedded == [[str(query)]]

    paths = sorted(path.relative_to(gallery).as_posix() for path in gallery.rglob("*.jpg"))
    shutil.copy(query, gallery / paths[0])  # other content
    os.utime(gallery / paths[1], ns=(0, 0))
    (gallery / paths[2]).unlink()
    (gallery / "new.jpg").write_bytes(query.read_bytes())
    embedded.clear()
    (found,) = search(words, "--query", query, "--results", 100)
    assert [sorted(paths_) for paths_ in embedded] == [[paths[0], paths[1], "new.jpg"], [str(query)]]
    assert {result["path"] for result in found["results"][:2]} == {str(gallery / paths[0]), str(gallery / "new.jpg")}
    words[words.index("--cache") + 1] = str(tmp_path / "fresh")
    (fresh,) = search(words, "--query", query, "--results", 100)
    assert [result["path"] for result in fresh["results"]] == [result["path"] for result in found["results"]]


def test_an_image_with_the_old_size_and_time_is_embedded_again(words, gallery, query, embedded):
    """Copying and unpacking restore the time of modification."""
    path, other = sorted(gallery.rglob("*.jpg"))[:2]
    content = other.read_bytes()
    path.write_bytes(content + bytes(max(0, path.stat().st_size - len(content))))
    before = path.stat()
    search(words, "--query", query)
    path.write_bytes(content + bytes(before.st_size - len(content)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    embedded.clear()
    search(words, "--query", query)
    assert embedded[0] == [path.relative_to(gallery).as_posix()]


def test_another_checkpoint_has_an_index_of_its_own(words, query, embedded, tmp_path):
    first = search(words, "--query", query)
    words[1] = str(save_checkpoint(tmp_path / "other", 1))
    assert search(words, "--query", query) != first
    (tmp_path / "other" / "config.yml").write_text(CONFIG.replace("(64, 32)", "(64, 48)"))
    search(words, "--query", query)
    assert [len(paths) for paths in embedded] == [18, 1] * 3
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_keys_without_effect_keep_the_index(words, checkpoint, query, embedded, tmp_path):
    search(words, "--query", query)
    (tmp_path / "elsewhere.yml").write_text(CONFIG + "data_root: elsewhere\ntest_batch_size: 4\n")
    search(words, "--query", query, "--cfg", tmp_path / "elsewhere.yml")
    assert [len(paths) for paths in embedded] == [18, 1, 1]


def test_a_damaged_index_is_made_again(words, query, embedded, tmp_path, capsys):
    first = search(words, "--query", query)
    (file,) = (tmp_path / "cache").rglob("*.npz")
    file.write_bytes(file.read_bytes()[:500])
    assert search(words, "--query", query) == first
    assert f"{file}: damaged" in capsys.readouterr().out
    assert [len(paths) for paths in embedded] == [18, 1] * 2


def test_a_stopped_program_keeps_what_it_has_saved(words, gallery, query, embedded, monkeypatch):
    monkeypatch.setattr(index, "CHUNK", 5)
    monkeypatch.setattr(index, "SAVE_SECONDS", -1)
    embed_files, calls = index.embed_files, []

    def stop_at_the_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return embed_files(*arguments)

    monkeypatch.setattr(index, "embed_files", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        search(words, "--query", query)
    embedded.clear()
    search(words, "--query", query)
    assert [len(paths) for paths in embedded] == [5, 3, 1]


def test_unreadable_images_are_named_left_out_and_tried_again(words, gallery, query, monkeypatch, capsys):
    (gallery / "text.jpg").write_text("no image")
    (gallery / "half.jpg").write_bytes(query.read_bytes()[:300])
    (gallery / "folder.png").mkdir()
    os.mkfifo(gallery / "pipe.png")  # reading it would wait for ever
    (gallery / "link.jpg").symlink_to(gallery / "absent.jpg")
    names = ["text.jpg", "half.jpg", "folder.png", "pipe.png", "link.jpg"]
    tried, looks_infrared = [], data.folder.looks_infrared

    def look(path: Path) -> bool:
        tried.append(path.name)
        return looks_infrared(path)

    monkeypatch.setattr(data.folder, "looks_infrared", look)
    for _ in range(2):
        (found,) = search(words, "--query", query, "--results", 100)
        assert len(found["results"]) == 18
        warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
        assert sorted(warnings, key=lambda line: names.index(Path(line.split(": ")[1]).name)) == [
            f"warning: {gallery / 'text.jpg'}: cannot be decoded as an image"
            " (it is none of JPEG, PNG, BMP, GIF, WEBP); left out",
            next(line for line in warnings if "half.jpg: cannot be decoded as an image" in line),
            *(f"warning: {gallery / name}: not a file; left out" for name in names[2:]),
        ]
    assert len(tried) == 18 + 2 + 2
    shutil.copy(query, gallery / "text.jpg")
    assert search(words, "--query", query)[0]["results"][0]["path"] == str(gallery / "text.jpg")
    (gallery / "half.jpg").unlink()
    capsys.readouterr()
    search(words, "--query", query)
    assert "half.jpg" not in capsys.readouterr().out


def test_an_error_that_passes_leaves_no_trace(words, query, monkeypatch):
    """Such as too many open files: the intact images are back the next time."""
    looks_infrared = data.folder.looks_infrared

    def fail(path: Path) -> bool:
        raise UnreadableImage(f"{path}: cannot be decoded as an image (Too many open files)")

    monkeypatch.setattr(data.folder, "looks_infrared", fail)
    with pytest.raises(UserError, match="can be read"):
        search(words, "--query", query)
    monkeypatch.setattr(data.folder, "looks_infrared", looks_infrared)
    assert len(search(words, "--query", query, "--results", 100)[0]["results"]) == 18


def test_an_image_that_vanishes_meanwhile_is_left_out(words, gallery, query, monkeypatch):
    modalities, removed = index.modalities, []

    def remove_one(paths, **options):
        looks = modalities(paths, **options)
        if not removed:
            paths[0].unlink()
            removed.append(paths[0])
        return looks

    monkeypatch.setattr(index, "modalities", remove_one)
    assert len(search(words, "--query", query, "--results", 100)[0]["results"]) == 17
    assert removed


def test_mser_and_plain_search_keep_an_index_each(words, query, embedded):
    for more in ((), ("--mser",)):
        search(words, "--query", query, *more)
    embedded.clear()
    for more in ((), ("--mser",)):
        search(words, "--query", query, *more)
    assert {len(paths) for paths in embedded} == {1}  # the queries


# --- hostile input on the command line --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text.jpg", "text.jpg: cannot be decoded as an image (it is none of JPEG, PNG, BMP, GIF, WEBP)"),
        ("absent.jpg", "absent.jpg: no such image"),
        ("folder", "folder: a query should be an image file"),
        ("pipe", "pipe: a query should be an image file"),
    ],
)
def test_a_query_that_is_no_image(name, message, words, tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert refused(capsys, [*words, "--query", str(tmp_path / name)]) == f"error: {tmp_path}/{message}\n"


def test_galleries_without_an_image(words, query, tmp_path, capsys):
    folder = tmp_path / "other"
    words[3] = str(folder)
    assert f"{folder}: no such folder" in refused(capsys, [*words, "--query", str(query)])
    folder.mkdir()
    assert f"{folder}: no image in it" in refused(capsys, [*words, "--query", str(query)])
    (folder / "text.png").write_text("no image")
    assert f"{folder}: none of its 1 images can be read" in refused(capsys, [*words, "--query", str(query)])


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a\nrank 1\x1b[31m.jpg", r"a\nrank 1\x1b[31m.jpg"), (os.fsdecode(b"latin-\xe4.jpg"), r"latin-\udce4.jpg")],
)
def test_names_that_cannot_be_printed_are_escaped(name, shown, words, gallery, query, capsys):
    shutil.copy(query, gallery / name)
    assert search(words, "--query", query)[0]["results"][0]["path"] == str(gallery / name)
    printed = capsys.readouterr().out
    assert f"/{shown}\n" in printed
    assert name not in printed


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "one of the arguments --query --serve is required (see --help)"),
        (["--query", "a.jpg", "--results", "0"], "--results: 0 should be at least 1"),
        (["--query", "a.jpg", "--json", "absent/a.json"], "--json: there is no folder absent"),
        (["--query", "a.jpg", "--out", "a.txt"], "--out: a.txt should end in .jpg or .png"),
        (["--serve", "--port", "65536"], "--port: 65536 should be between 0 and 65535"),
        (["--serve", "--out", "a.jpg"], "--out: is for --query, not for --serve"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(more, message, words, capsys):
    assert refused(capsys, [*words, *more]) == f"error: {message}\n"


@pytest.mark.parametrize(("module", "package"), [(nearest, "faiss"), (page, "fastapi"), (page, "uvicorn")])
def test_a_missing_package_is_named(module, package, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    spec = importlib.util.spec_from_file_location("again", module.__file__)
    with pytest.raises(SystemExit) as stop:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        f"error: {package} is not installed; run: pip install -r requirements-tools.txt\n"
    )


# --- approximate indices ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clustered() -> np.ndarray:
    """2,000 normalised embeddings around 100 centres."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((100, 32)).repeat(20, axis=0) + 0.3 * rng.standard_normal((2000, 32))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("kind", nearest.KINDS)
def test_every_kind_finds_nearly_all_of_the_nearest(kind, clustered):
    queries = clustered[::100]
    expected = queries @ clustered.T
    found = nearest.search(clustered, queries, 10, nearest.build(kind, clustered))
    hits = 0
    for similarity, (scores, positions) in zip(expected, found, strict=True):
        assert scores == pytest.approx(similarity[positions], abs=1e-6)  # exact, although the index holds float16
        assert (np.diff(scores) <= 0).all()
        hits += len(set(positions) & set(np.argsort(-similarity)[:10]))
    assert hits >= (200 if kind == "exact" else 190)


@pytest.mark.parametrize("kind", nearest.KINDS)
def test_more_results_than_images(kind, clustered):
    few = clustered[:3]
    ((scores, positions),) = nearest.search(few, few[:1], 10, nearest.build(kind, few))
    assert sorted(positions.tolist()) == [0, 1, 2]
    assert len(scores) == 3


def test_the_size_chooses_the_kind():
    assert [nearest.kind_for(images) for images in (1, 199_999, 200_000, 5_000_000)] == ["exact", "exact", "ivf", "ivf"]


def test_exact_search_takes_the_lock_once(words, query, monkeypatch):
    """For the update of the index. It writes nothing else, so it need not wait for another process."""
    monkeypatch.delattr(program, "locked")
    assert search(words, "--query", query, "--index", "exact")


def test_an_approximate_index_is_kept_until_the_images_change(words, gallery, query, tmp_path, capsys, monkeypatch):
    first = search(words, "--query", query, "--index", "hnsw")
    (file,) = (tmp_path / "cache").rglob("*.faiss")
    with monkeypatch.context() as patch:
        patch.delattr(nearest, "build")
        assert search(words, "--query", query, "--index", "hnsw") == first
    file.write_bytes(b"damaged")
    assert search(words, "--query", query, "--index", "hnsw") == first
    assert f"{file}: damaged" in capsys.readouterr().out
    shutil.copy(query, gallery / "new.jpg")
    (found,) = search(words, "--query", query, "--index", "hnsw")
    assert found["results"][0]["path"] == str(gallery / "new.jpg")
    (new,) = (tmp_path / "cache").rglob("*.faiss")
    assert new != file


@pytest.mark.faults  # slow
def test_a_report_of_the_benchmark(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "RENDERED", 5)
    monkeypatch.setattr(benchmark, "CENTRES", 100)
    sizes = ["--images", "200", "--embeddings", "2000", "--queries", "20", "--repeats", "1", "--dimensions", "16"]
    assert benchmark.main([*sizes, "--json", str(tmp_path / "search.json")]) == 0
    rows = json.loads((tmp_path / "search.json").read_text())["rows"]
    methods = ["embed", "open, nothing has changed", "update, 2 have changed", "exact", "exact", "ivf", "hnsw"]
    assert [row["method"] for row in rows] == methods
    recalls = [row["recall@10"] for row in rows[4:]]
    assert recalls[0] == 1
    assert min(recalls) > 0.5


# --- the page ---------------------------------------------------------------------------------------------------------


def open_searcher(words: list[str]) -> searcher.Searcher:
    return program.open_searcher(program.parse_arguments([*words, "--serve"]))


def browser(opened: searcher.Searcher) -> TestClient:
    app = page.make_app(opened, infrared=None, results=5)
    return TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def served(checkpoint, sysu_root, tmp_path_factory) -> searcher.Searcher:
    """A gallery that no test changes; beside its folder lies secret.jpg."""
    gallery = fill(tmp_path_factory.mktemp("served") / "gallery", sysu_root)
    shutil.copy(sorted(gallery.rglob("*.jpg"))[0], gallery.with_name("secret.jpg"))
    return open_searcher(start(checkpoint, gallery))


@pytest.fixture
def client(served, tmp_path, monkeypatch) -> TestClient:
    """A browser; uploads are kept in tmp_path/uploads while they are searched."""
    (tmp_path / "uploads").mkdir()
    monkeypatch.setattr(page.tempfile, "tempdir", str(tmp_path / "uploads"))
    return browser(served)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def test_the_page_ranks_as_the_command_line_does(client, checkpoint, served, query):
    (expected,) = search(start(checkpoint, served.gallery), "--query", query, "--results", 5)
    answer = client.post("/search", content=query.read_bytes()).json()
    assert (answer["infrared"], answer["guessed"]) == (True, True)
    found = [
        {"rank": r["rank"], "path": str(served.gallery / r["path"]), "score": r["score"]} for r in answer["results"]
    ]
    assert found == expected["results"]
    image = client.get(answer["results"][0]["image"])
    assert image.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(image.content)) as shown:
        assert (shown.size, shown.format) == ((128, 256), "JPEG")
    answer = client.post("/search?modality=visible", content=query.read_bytes()).json()
    assert (answer["infrared"], answer["guessed"]) == (False, False)


def test_the_page_loads_nothing_from_elsewhere(client):
    for path in page.FILES:
        answer = client.get(path)
        assert answer.status_code == 200
        assert not re.search(r"""["'(=]\s*(https?:)?//""", answer.text)
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "innerHTML" not in answer.text  # paths are text, never markup
    assert client.get("/gallery").json()["images"] == 18
    for path in ("/docs", "/redoc", "/openapi.json"):  # they would load scripts from elsewhere
        assert client.get(path).status_code == 404


def test_a_modality_is_checked_from_the_start(client):
    """A search may start before the page knows which modality the program proposes."""
    assert re.findall(r'name="modality" value="(\w+)" checked', client.get("/").text) == ["guess"]


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 400, "no image was sent"),
        (b"no image", 400, "cannot be decoded as an image (it is none of JPEG, PNG, BMP, GIF, WEBP)"),
        (b"\xff\xd8\xff\xe0" + bytes(100), 400, "cannot be decoded as an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 400, "cannot be decoded as an image"),
        (bytes(page.MAX_BYTES + 1), 413, "the image has more than 10 MB"),
    ],
)
def test_uploads_that_are_refused(content, status, message, client, tmp_path):
    answer = client.post("/search", content=content)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert answer.text.startswith(message)
    assert str(tmp_path) not in answer.text
    assert not list((tmp_path / "uploads").iterdir())


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_upload_with_too_many_pixels(client, tmp_path):
    """A few kilobytes that would fill 400 MB."""
    content = encoded(Image.new("1", (12_000, 12_000)))
    assert len(content) < 100_000
    answer = client.post("/search", content=content)
    assert answer.status_code == 400
    assert "12000 x 12000 pixels, more than the limit" in answer.text


def test_an_upload_is_removed_after_the_search(client, query, tmp_path):
    assert client.post("/search", content=query.read_bytes()).status_code == 200
    assert not list((tmp_path / "uploads").iterdir())


def test_reading_stops_at_the_limit():
    taken = []

    async def endless():
        while True:
            taken.append(2**20)
            yield bytes(2**20)

    with pytest.raises(HTTPException):
        asyncio.run(page.read_bounded(endless()))
    assert sum(taken) == page.MAX_BYTES + 2**20


@pytest.mark.parametrize(
    "path",
    [
        "/images/18", "/images/-1", "/images/1e3", "/images/0x1", f"/images/{10**30}", "/images/", "/images/cam1/a.jpg",
        "/images/../secret.jpg", "/images/..%2fsecret.jpg", "/images/%2e%2e/secret.jpg", "/..%2f..%2fsecret.jpg",
        "/secret.jpg", "/page.py", "//etc/passwd", "/%2fetc%2fpasswd", "/images/%00", "/images/0/../../page.py",
    ],
)  # fmt: skip
def test_path_tricks(path, client):
    answer = client.get(path)
    assert answer.status_code in (400, 404)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("route", [*page.FILES, "/gallery", "/images/0"])
def test_parameters_do_not_choose_files(route, client):
    plain = client.get(route).content
    assert client.get(route, params={"path": "/etc/passwd", "name": "/etc/passwd", "file": "x"}).content == plain


def test_links_out_of_the_gallery_are_not_served(words, gallery, query):
    """They can be found, but their images stay where they are."""
    shutil.copy(query, gallery.with_name("secret.jpg"))
    (gallery / "link.jpg").symlink_to(gallery.with_name("secret.jpg"))
    (gallery / "inside.jpg").symlink_to(sorted(gallery.rglob("*.jpg"))[0])
    opened = open_searcher(words)
    client = browser(opened)
    positions = {path: position for position, path in enumerate(opened.images.paths.tolist())}
    answer = client.get(f"/images/{positions['link.jpg']}")
    assert (answer.status_code, answer.text) == (403, "the image is not inside the gallery's folder")
    assert client.get(f"/images/{positions['inside.jpg']}").status_code == 200


def test_files_that_change_while_the_page_is_open(words, gallery):
    opened = open_searcher(words)
    client = browser(opened)
    first, second, third = (gallery / path for path in opened.images.paths[:3])
    first.unlink()
    first.symlink_to("/etc/passwd")
    second.write_text("<script>alert(1)</script>")
    third.unlink()
    os.mkfifo(third)
    assert [client.get(f"/images/{position}").status_code for position in range(3)] == [403, 404, 404]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "192.168.0.1", ""])
def test_other_host_names_are_refused(host, client):
    """The name of another page may be pointed to this computer."""
    answer = client.get("/gallery", headers={"host": host})
    assert (answer.status_code, answer.text) == (400, "Invalid host header")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "https://127.0.0.1:8000"])
def test_requests_from_other_pages_are_refused(origin, client, query):
    answer = client.post("/search", content=query.read_bytes(), headers={"origin": origin})
    assert (answer.status_code, answer.text) == (403, "only the page itself may search")
    own = client.post("/search", content=query.read_bytes(), headers={"origin": "http://127.0.0.1:8000"})
    assert own.status_code == 200
    assert "access-control-allow-origin" not in own.headers


def test_the_server_listens_on_this_computer_only():
    with page.listen(0) as listening:
        host, port = listening.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(UserError, match=f"--port: {port} cannot be used"):
            page.listen(port)
