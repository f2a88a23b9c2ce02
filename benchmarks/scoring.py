"""Time and memory of scoring: ``python -m benchmarks.scoring [--gpu 0] [--json FILE]``.

On synthetic features: the whole SYSU-MM01 test (8 settings, 10 trials, 4 spectra) and both directions of RegDB at about
the published sizes, with 2,048 dimensions; one trial, with plain NumPy loops as the baseline; and time and memory for
several gallery sizes.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from benchmarks.loops import loop_metrics, loop_mser
from benchmarks.synthetic_features import regdb, sysu
from benchmarks.timing import at_least_one, json_file, measure, peak_memory, prepare, write_report
from data.datasets import DATASETS
from engine.device import describe_device
from utils.features import CPU, SPECTRA, Features
from utils.metrics import retrieval_metrics
from utils.protocols import Search, score
from utils.rerank import MSER, Reranker, mser_distance
from utils.results import Results
from utils.run.cli import Parser, run_program

SIZES = (0.5, 1, 2, 4)  # of the gallery pool, relative to the published size
SMALL_SIZES = (0.25, 0.5)
SETTING = "all/1-shot"
Row = dict[str, object]


def published(dataset: str) -> MSER:
    """The published hyper-parameters for a data set."""
    defaults = DATASETS[dataset].defaults
    return MSER(defaults["mser_k1"], defaults["mser_k2"], defaults["mser_lambda"])


def whole_tests(device: torch.device, repeats: int, *, trials: int, dimensions: int) -> Iterator[Row]:
    for scatter, kind in ((1.0, "clustered"), (2.0, "overlapping"), (4.5, "nearly random")):
        features, search = sysu(scatter=scatter, dimensions=dimensions)
        rank1 = score(features, [search.only([SETTING])])[SETTING].mean.rank1
        search = replace(search, galleries={name: drawn[:trials] for name, drawn in search.galleries.items()})
        case = f"SYSU-MM01, all 8 settings, trials: {trials}, {kind} features (rank-1 {rank1:.0f} %)"
        yield whole_test(case, features, search, published("sysu"), device, repeats)
    yield whole_test("RegDB, both directions", *regdb(dimensions=dimensions), published("regdb"), device, repeats)


def whole_test(case: str, features: Features, search: Search, mser: MSER, device: torch.device, repeats: int) -> Row:
    def work() -> Results:
        return score(features, [search], mser=mser, device=device)

    timing = measure(work, repeats=repeats, warmup=1)
    return {"case": case, "seconds": timing.median, "GiB": peak_memory(work, device)}


def compare_with_the_cpu(device: torch.device) -> Iterator[Row]:
    """Largest difference of a metric between a GPU and the CPU, in percentage points, over one trial per setting."""
    if device.type != "cuda":
        return
    features, search = sysu(dimensions=256)
    search = replace(search, galleries={name: drawn[:1] for name, drawn in search.galleries.items()})
    found, expected = (score(features, [search], mser=published("sysu"), device=one) for one in (device, CPU))
    difference = max(float(np.abs(np.subtract(found[name].trials, expected[name].trials)).max()) for name in expected)
    yield {"case": "SYSU-MM01, all 8 settings, trials: 1, 256 dimensions", "difference from the CPU": difference}


def compare_with_loops(device: torch.device) -> Iterator[Row]:
    """One single-shot trial, with plain loops as the baseline. The loops run once because they are slow."""
    features, search = sysu()
    columns = search.galleries[SETTING][0]
    gallery = search.pool[columns]
    query = features.normalised(SPECTRA[:1], search.query, device)
    spectra = features.normalised(SPECTRA, gallery, device)
    query_labels = features.identities[search.query], search.query_locations
    gallery_labels = features.identities[gallery], search.pool_locations[columns]
    mser = published("sysu")

    def rerank() -> Tensor:
        return mser_distance(query, spectra, k1=mser.k1, k2=mser.k2, lam=mser.lam, neighbours="queries")

    fast = measure(rerank, repeats=3, warmup=1)
    start = time.perf_counter()
    expected = loop_mser(query.cpu().numpy(), spectra.cpu().numpy(), *mser[:3], "queries")
    loops = row("MSER, one single-shot trial", fast.median, time.perf_counter() - start)
    distance = rerank()
    found = distance.cpu().numpy()
    yield {**loops, "largest difference": float(abs(found - expected).max())}

    fast = measure(lambda: retrieval_metrics(distance, *query_labels, *gallery_labels), repeats=5, warmup=1)
    start = time.perf_counter()
    loop_metrics(found, *query_labels, *gallery_labels)
    yield row("metrics, one single-shot trial", fast.median, time.perf_counter() - start)


def row(case: str, seconds: float, loops: float) -> Row:
    return {"case": case, "seconds": seconds, "loops, seconds": loops, "speed-up": loops / seconds}


def growth(device: torch.device, sizes: Sequence[float]) -> Iterator[Row]:
    """The whole gallery pool as one gallery, at several sizes: time, and memory in addition to the features."""
    for size in sizes:
        features, search = sysu(scale=size, dimensions=256)
        query = features.normalised(SPECTRA[:1], search.query, device)
        pool = features.normalised(SPECTRA, search.pool, device)

        def work(query=query, pool=pool) -> Tensor:
            return Reranker(query, pool, published("sysu"), neighbours="queries").distance()

        timing, peak = measure(work, repeats=1, warmup=1), peak_memory(work, device)
        images = len(search.pool)
        yield {
            "case": f"gallery of {images} images", "seconds": timing.median, "GiB": peak,
            "microseconds per query and image": timing.median / len(search.query) / images * 1e6,
        }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m benchmarks.scoring", description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", default="auto")
    parser.add_argument("--json", type=json_file, help="write the report to this file")
    parser.add_argument("--repeats", type=at_least_one, default=3)
    parser.add_argument("--small", action="store_true", help="one trial, 256 dimensions, smaller galleries")
    arguments = parser.parse_args(argv)
    device = prepare(arguments.gpu, seed=0)
    trials, dimensions, sizes = (1, 256, SMALL_SIZES) if arguments.small else (10, 2048, SIZES)
    rows = chain(
        whole_tests(device, arguments.repeats, trials=trials, dimensions=dimensions),
        growth(device, sizes),
        compare_with_loops(device),
        compare_with_the_cpu(device),
    )
    write_report(arguments.json, "scoring", rows, device=describe_device(device))
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
