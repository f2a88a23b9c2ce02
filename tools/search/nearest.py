"""The nearest embeddings: exact search, or an approximate index of FAISS for large galleries.

============  =================================================================================
exact         compares each query with every image; below 200,000 images
ivf           k-means cells of the gallery, of which the nearest eighth is searched
hnsw          a graph of neighbours (hierarchical navigable small world), which is followed
============  =================================================================================

Approximate indices keep the embeddings in float16. They only find candidates: their scores are computed from the
float32 embeddings. docs/performance.md has times and recall.
"""

from pathlib import Path

import numpy as np

from utils.run.errors import reason
from utils.run.extras import optional_packages
from utils.run.files import write_atomically

with optional_packages():
    import faiss

KINDS = ("exact", "ivf", "hnsw")
EXACT_BELOW = 200_000  # images
VISITED = 1 / 8  # share of the cells that is searched
LINKS = 32  # of an image in the graph
BEAM = 256  # candidates that are kept while following the graph
POINTS_PER_CELL = 64  # sampled for k-means


def kind_for(images: int) -> str:
    """Which search a gallery of this size gets."""
    return "exact" if images < EXACT_BELOW else "ivf"


def build(kind: str, embeddings: np.ndarray) -> "faiss.Index | None":
    """An approximate index of normalised embeddings (N, D); None for exact search."""
    if kind == "exact":
        return None
    images, dimensions = embeddings.shape
    half = faiss.ScalarQuantizer.QT_fp16
    # squared distances of normalised embeddings rank as cosine similarities do
    if kind == "ivf":
        cells = max(1, min(int(4 * images**0.5), images // 39))  # k-means wants at least 39 points per cell
        index = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatL2(dimensions), dimensions, cells, half)
        index.cp.max_points_per_centroid = POINTS_PER_CELL
        index.nprobe = max(8, round(cells * VISITED))
    else:
        index = faiss.IndexHNSWSQ(dimensions, half, LINKS)
        index.hnsw.efSearch = BEAM
    index.train(embeddings)
    index.add(embeddings)
    return index


def search(
    embeddings: np.ndarray, queries: np.ndarray, count: int, index: "faiss.Index | None" = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The ``count`` nearest images of each query, nearest first.

    Args:
        embeddings: (N, D) float32, normalised; ``queries`` (Q, D) likewise.
        index: made by :func:`build` from the same embeddings; None searches exactly.

    Returns:
        Per query: cosine similarities and positions. An approximate index may find fewer than ``count``.
    """
    count = min(count, len(embeddings))
    if index is None:
        found = faiss.knn(queries, embeddings, count, metric=faiss.METRIC_INNER_PRODUCT)
        return list(zip(*found, strict=True))
    results = []
    for query, candidates in zip(queries, index.search(queries, count)[1], strict=True):
        candidates = candidates[candidates >= 0]  # -1 stands where too few images were found
        scores = embeddings[candidates] @ query
        order = np.argsort(-scores, kind="stable")
        results.append((scores[order], candidates[order]))
    return results


def open_nearest(kind: str, embeddings: np.ndarray, cache: Path, stamp: str) -> "faiss.Index":
    """An approximate index that is kept in the folder ``cache``.

    Args:
        kind: ivf or hnsw.
        stamp: of the embeddings; an index of others is built again.
    """
    path = cache / f"{kind}-{stamp}.faiss"
    if path.is_file():
        try:
            index = faiss.read_index(str(path))
            if (index.ntotal, index.d) == embeddings.shape:
                return index
        except RuntimeError as error:
            print(f"{path}: damaged ({reason(error)}); built again")
    print(f"building the {kind} index of {len(embeddings):,} images", flush=True)
    index = build(kind, embeddings)
    for outdated in cache.glob("*.faiss"):
        if stamp not in outdated.name:
            outdated.unlink(missing_ok=True)
    write_atomically(path, lambda file: faiss.write_index(index, faiss.PyCallbackIOWriter(file.write)))
    return index
