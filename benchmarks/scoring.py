"""Time and memory of scoring: ``python -m benchmarks.scoring [--json FILE]``.

The whole SYSU-MM01 test (8 settings, 10 trials, 4 spectra) and both directions of RegDB at their published sizes on
made-up features of 2,048 dimensions; one trial against loops in NumPy; and the growth with the gallery's size.
"""

import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from benchmarks.loops import loop_metrics, loop_mser
from benchmarks.made_features import regdb, sysu
from benchmarks.timing import measure, write_report
from configs.default import dataset_cfg
from utils.cli import Parser, run_program
from utils.metrics import retrieval_metrics
from utils.protocols import regdb_search, score, sysu_search
from utils.rerank import MSER, QueryReranker, mser_distance

SPECTRA = ("original", "red", "green", "blue")
SIZES = (0.5, 1, 2, 4)  # of the gallery pool, times the published one
SETTING = "all/1-shot"


def published(dataset: str) -> MSER:
    cfg = dataset_cfg[dataset]
    return MSER(cfg.mser_k1, cfg.mser_k2, cfg.mser_lambda)


def whole_tests(repeats: int) -> list[dict[str, object]]:
    rows = []
    for scatter, kind in ((1.0, "clustered"), (2.0, "overlapping"), (4.5, "nearly random")):
        features, permutations = sysu(scatter=scatter)
        search = sysu_search(features, permutations)
        timing = measure(lambda f=features, s=search: score(f, s, mser=published("sysu")), repeats=repeats, warmup=1)
        rank1 = score(features, search.only([SETTING]))[SETTING].mean.rank1
        rows.append({
            "what": f"SYSU-MM01, all 8 settings and 10 trials, {kind} features (rank-1 {rank1:.0f} %)",
            "seconds": timing.median,
            "gigabytes": peak_memory(lambda f=features, s=search: score(f, s, mser=published("sysu"))),
        })  # fmt: skip
    features = regdb()
    search = regdb_search(features)
    timing = measure(lambda: score(features, search, mser=published("regdb")), repeats=repeats, warmup=1)
    peak = peak_memory(lambda: score(features, search, mser=published("regdb")))
    return [*rows, {"what": "RegDB, both directions", "seconds": timing.median, "gigabytes": peak}]


def peak_memory(work: Callable[[], object]) -> float:
    """What ``work`` allocates at most at a time, in GB: without the features that were there before."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1] / 2**30
    tracemalloc.stop()
    return peak


def against_loops() -> list[dict[str, object]]:
    """One single-shot trial, ours and as loops; the loops once, because they take long."""
    features, permutations = sysu()
    search = sysu_search(features, permutations)
    gallery = search.pool[search.galleries[SETTING][0]]
    query = features.normalised(SPECTRA[:1], search.query)
    spectra = features.normalised(SPECTRA, gallery)
    labels = (features.identities[search.query], search.query_places)
    labels += (features.identities[gallery], search.pool_places[search.galleries[SETTING][0]])
    mser = published("sysu")

    fast = measure(lambda: mser_distance(query, spectra, **mser._asdict(), neighbours="queries"), repeats=3, warmup=1)
    start = time.perf_counter()
    expected = loop_mser(query[0], spectra, *mser)
    loop = time.perf_counter() - start
    found = mser_distance(query, spectra, **mser._asdict(), neighbours="queries")
    rows = [
        row("MSER, one single-shot trial", fast.median, loop)
        | {"largest difference": float(abs(found - expected).max())}
    ]

    fast = measure(lambda: retrieval_metrics(found, *labels), repeats=5, warmup=1)
    start = time.perf_counter()
    loop_metrics(found, *labels)
    return [*rows, row("metrics, one single-shot trial", fast.median, time.perf_counter() - start)]


def row(what: str, seconds: float, yardstick: float) -> dict[str, object]:
    return {"what": what, "seconds": seconds, "loops": yardstick, "ratio": yardstick / seconds}


def growth() -> list[dict[str, object]]:
    """The whole pool as one gallery, at several sizes: time, and memory beyond the features."""
    rows = []
    for size in SIZES:
        features, permutations = sysu(scale=size, dimensions=256)
        search = sysu_search(features, permutations)
        query = features.normalised(SPECTRA[:1], search.query)
        pool = features.normalised(SPECTRA, search.pool)
        timing = measure(lambda q=query, p=pool: QueryReranker(q, p, published("sysu")).distance(), repeats=1, warmup=1)
        peak = peak_memory(lambda q=query, p=pool: QueryReranker(q, p, published("sysu")).distance())
        images = len(search.pool)
        rows.append({
            "what": f"gallery of {images} images", "seconds": timing.median, "gigabytes": peak,
            "microseconds per query and image": timing.median / len(search.query) / images * 1e6,
        })  # fmt: skip
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m benchmarks.scoring", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where the report is written to")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args(argv)
    write_report(arguments.json, "scoring", [*whole_tests(arguments.repeats), *against_loops(), *growth()])
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
