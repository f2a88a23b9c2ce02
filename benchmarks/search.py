"""Speed, memory and recall of search: ``python -m benchmarks.search [--json FILE]``, on the CPU.

Two parts. A folder of images: embedding it, updating its index, and searching it by brute force. Synthetic embeddings:
approximate indices and their recall@10, the share of the ten nearest images by exact search that they find. The
embeddings are scattered around identities, and their variance falls with the dimension, about as those of the network
of ``make demo``: its test images have half as much variance within identities as between them.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timing import at_least_one, json_file, measure, peak_memory, prepare, write_report
from configs import get_config
from models import build_model
from tools.search import nearest
from tools.search.embedding import Embedder
from tools.search.index import FolderIndex, index_file, open_index
from tools.synthetic import make_synthetic
from utils.run.cli import Parser, run_program
from utils.run.extras import optional_packages

with optional_packages():
    import faiss

CONFIG = "dataset: sysu\nbackbone: resnet10\npretrained: none\nimage_size: (96, 48)\nnum_workers: 2\n"
RENDERED = 50  # identities that are rendered; the folder holds copies of their images
CENTRES = 20_000  # synthetic identities
CAMERAS = 6
SCATTER = 0.6  # standard deviation within identities, relative to that between them
TOP = 10  # of recall@10
ALONE, TOGETHER = 20, 100  # queries that are searched one by one, and at once
CPU = torch.device("cpu")


def fill_folder(folder: Path, images: int, seed: int) -> Path:
    """A gallery of ``images`` copies of rendered images."""
    make_synthetic("sysu", folder / "rendered", identities=RENDERED, images_per_camera=4, size=(128, 64), seed=seed)
    rendered = sorted((folder / "rendered").glob("cam*/*/*.jpg"))
    gallery = folder / "gallery"
    gallery.mkdir()
    for number in range(images):
        shutil.copyfile(rendered[number % len(rendered)], gallery / f"{number:07d}.jpg")
    return gallery


def build_network(folder: Path) -> Embedder:
    """A small network with random weights; time and memory do not depend on the weights."""
    (folder / "config.yml").write_text(CONFIG)
    torch.save(build_model(get_config(folder / "config.yml")).state_dict(), folder / "best.pth")
    return Embedder(folder / "best.pth", None, CPU)


def timed(work: Callable[[], FolderIndex]) -> tuple[FolderIndex, float]:
    """The result of ``work`` without its messages, and its seconds."""
    start = time.perf_counter()
    with redirect_stdout(sys.stderr):
        result = work()
    return result, time.perf_counter() - start


def measure_folder(images: int, repeats: int, seed: int) -> Iterator[dict[str, object]]:
    """Embed a folder, update its index, search it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gallery, embed, cache = fill_folder(folder, images, seed), build_network(folder), folder / "cache"

        def update() -> FolderIndex:
            return open_index(gallery, embed, cache, ["original"])

        case = f"folder of {images:,} images"
        index, seconds = timed(update)
        size = index_file(cache, ("original",)).stat().st_size / 2**30
        yield {"case": case, "method": "embed", "seconds": seconds, "images/s": images / seconds, "file, GiB": size}
        yield {"case": case, "method": "open, nothing has changed", "seconds": timed(update)[1]}
        changed = [path for path in gallery.iterdir() if path.stem.endswith("00")]
        for path in changed:
            path.touch()
        yield {"case": case, "method": f"update, {len(changed):,} have changed", "seconds": timed(update)[1]}
        embeddings = index.images.spectra["original"]
        yield {"case": case, "method": "exact", **query_times(embeddings, embeddings[:TOGETHER], None, repeats)}


def synthetic_embeddings(images: int, queries: int, dimensions: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Normalised embeddings of a gallery (images, D) and of queries of the same identities (queries, D)."""
    rng = np.random.default_rng(seed)
    deviation = np.arange(1, dimensions + 1, dtype=np.float32) ** -0.5
    centres = rng.standard_normal((CENTRES, dimensions), dtype=np.float32)
    cameras = 0.7 * SCATTER * rng.standard_normal((CAMERAS, dimensions), dtype=np.float32)

    def views(count: int) -> np.ndarray:
        result = np.empty((count, dimensions), dtype=np.float32)
        for block in np.array_split(result, max(1, count // 50_000)):  # in blocks, to save memory
            block[:] = centres[rng.integers(CENTRES, size=len(block))] + cameras[rng.integers(CAMERAS, size=len(block))]
            block += SCATTER * rng.standard_normal(block.shape, dtype=np.float32)
            block *= deviation
            block /= np.linalg.norm(block, axis=1, keepdims=True)
        return result

    return views(images), views(queries)


def query_times(embeddings: np.ndarray, queries: np.ndarray, index: Any, repeats: int) -> dict[str, object]:
    """Milliseconds per query: one query after the other, and many at once."""

    def one_by_one() -> None:  # different queries, because a repeated one finds what it needs in the processor's cache
        for row in range(ALONE):
            nearest.search(embeddings, queries[row : row + 1], TOP, index)

    alone = measure(one_by_one, repeats=repeats).median / ALONE
    together = measure(lambda: nearest.search(embeddings, queries[:TOGETHER], TOP, index), repeats=repeats).median
    return {"ms/query": 1000 * alone, "ms/query, 100 at once": 1000 * together / len(queries[:TOGETHER])}


def build_index(kind: str, gallery: np.ndarray) -> tuple[Any, dict[str, object]]:
    """An index (None for exact search), and what building it took."""
    if kind == "exact":
        return None, {}
    built = []
    start = time.perf_counter()
    memory = peak_memory(lambda: built.append(nearest.build(kind, gallery)), CPU)
    seconds = time.perf_counter() - start
    size = faiss.serialize_index(built[0]).nbytes / 2**30
    return built[0], {"seconds": seconds, "file, GiB": size, "memory to build, GiB": memory}


def measure_methods(images: int, queries: int, dimensions: int, repeats: int, seed: int) -> Iterator[dict[str, object]]:
    """Exact search and each approximate index on the same synthetic embeddings."""
    gallery, wanted = synthetic_embeddings(images, queries, dimensions, seed)
    exact = [positions for _, positions in nearest.search(gallery, wanted, TOP)]
    for kind in nearest.KINDS:
        index, more = build_index(kind, gallery)
        found = [positions for _, positions in nearest.search(gallery, wanted, TOP, index)]
        hits = [len(set(a) & set(b)) for a, b in zip(exact, found, strict=True)]
        yield {
            "case": f"{images:,} embeddings",
            "method": kind,
            **more,
            **query_times(gallery, wanted, index, repeats),
            "recall@10": sum(hits) / (TOP * len(hits)),
        }


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m benchmarks.search", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=json_file, metavar="FILE", help="write a report to this file")
    parser.add_argument("--images", type=at_least_one, default=100_000, metavar="N", help="of the folder")
    parser.add_argument("--embeddings", type=at_least_one, default=1_000_000, metavar="N", help="synthetic ones")
    parser.add_argument("--dimensions", type=at_least_one, default=512, help="of synthetic embeddings (default 512)")
    parser.add_argument("--queries", type=at_least_one, default=1000, help="for the recall (default 1000)")
    parser.add_argument("--repeats", type=at_least_one, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    prepare("cpu", seed=arguments.seed)

    def rows() -> Iterator[dict[str, object]]:
        yield from measure_folder(arguments.images, arguments.repeats, arguments.seed)
        sizes = arguments.embeddings, arguments.queries, arguments.dimensions
        yield from measure_methods(*sizes, arguments.repeats, arguments.seed)

    sizes = {name: getattr(arguments, name) for name in ("images", "embeddings", "dimensions", "queries")}
    write_report(arguments.json, "search", rows(), seed=arguments.seed, centres=CENTRES, scatter=SCATTER, **sizes)
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
