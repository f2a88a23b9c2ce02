"""Time and memory of scoring: ``python -m benchmarks.scoring [--gpu 0] [--json FILE]``.

The whole SYSU-MM01 test (8 settings, 10 trials, 4 spectra) and both directions of RegDB at their published sizes on
made-up features of 2,048 dimensions; one trial against loops in NumPy; and the growth with the gallery's size.
"""

import sys
import time

import numpy as np
import torch
from torch import Tensor

from benchmarks.loops import loop_metrics, loop_mser
from benchmarks.made_features import regdb, sysu
from benchmarks.timing import at_least_one, json_file, measure, peak_memory, prepare, write_report
from data.datasets import DATASETS
from engine.device import describe_device
from utils.features import SPECTRA, Features
from utils.metrics import retrieval_metrics
from utils.protocols import Search, regdb_search, score, sysu_search
from utils.rerank import MSER, QueryReranker, mser_distance
from utils.results import Results
from utils.run.cli import Parser, run_program

SIZES = (0.5, 1, 2, 4)  # of the gallery pool, times the published one
SETTING = "all/1-shot"


def published(dataset: str) -> MSER:
    defaults = DATASETS[dataset].defaults
    return MSER(defaults["mser_k1"], defaults["mser_k2"], defaults["mser_lambda"])


def whole_tests(device: torch.device, repeats: int) -> list[dict[str, object]]:
    rows = []
    for scatter, kind in ((1.0, "clustered"), (2.0, "overlapping"), (4.5, "nearly random")):
        features, permutations = sysu(scatter=scatter)
        search = sysu_search(features, permutations)
        rank1 = score(features, search.only([SETTING]))[SETTING].mean.rank1
        what = f"SYSU-MM01, all 8 settings and 10 trials, {kind} features (rank-1 {rank1:.0f} %)"
        rows.append(whole_test(what, features, search, published("sysu"), device, repeats))
    features = regdb()
    what = "RegDB, both directions"
    return [*rows, whole_test(what, features, regdb_search(features), published("regdb"), device, repeats)]


def whole_test(
    what: str, features: Features, search: Search, mser: MSER, device: torch.device, repeats: int
) -> dict[str, object]:
    def work() -> Results:
        return score(features, search, mser=mser, device=device)

    timing = measure(work, repeats=repeats, warmup=1)
    found = {"what": what, "seconds": timing.median, "gigabytes": peak_memory(work, device)}
    if device.type == "cuda":
        found["points from the CPU's"] = farthest(work(), score(features, search, mser=mser))
    return found


def farthest(found: Results, expected: Results) -> float:
    """Largest difference of any figure of any trial, in points."""
    return max(float(np.abs(np.subtract(found[name].trials, expected[name].trials)).max()) for name in expected)


def against_loops(device: torch.device) -> list[dict[str, object]]:
    """One single-shot trial, ours and as loops; the loops once, because they take long."""
    features, permutations = sysu()
    search = sysu_search(features, permutations)
    columns = search.galleries[SETTING][0]
    gallery = search.pool[columns]
    query = features.normalised(SPECTRA[:1], search.query, device)
    spectra = features.normalised(SPECTRA, gallery, device)
    labels = (features.identities[search.query], search.query_places)
    labels += (features.identities[gallery], search.pool_places[columns])
    mser = published("sysu")

    fast = measure(lambda: mser_distance(query, spectra, **mser._asdict(), neighbours="queries"), repeats=3, warmup=1)
    arrays = query[0].cpu().numpy(), spectra.cpu().numpy()
    start = time.perf_counter()
    expected = loop_mser(*arrays, *mser)
    loop = time.perf_counter() - start
    distance = mser_distance(query, spectra, **mser._asdict(), neighbours="queries")
    found = distance.cpu().numpy()
    rows = [
        row("MSER, one single-shot trial", fast.median, loop)
        | {"largest difference": float(abs(found - expected).max())}
    ]

    fast = measure(lambda: retrieval_metrics(distance, *labels), repeats=5, warmup=1)
    start = time.perf_counter()
    loop_metrics(found, *labels)
    return [*rows, row("metrics, one single-shot trial", fast.median, time.perf_counter() - start)]


def row(what: str, seconds: float, yardstick: float) -> dict[str, object]:
    return {"what": what, "seconds": seconds, "loops": yardstick, "ratio": yardstick / seconds}


def growth(device: torch.device) -> list[dict[str, object]]:
    """The whole pool as one gallery, at several sizes: time, and memory beyond the features."""
    rows = []
    for size in SIZES:
        features, permutations = sysu(scale=size, dimensions=256)
        search = sysu_search(features, permutations)
        query = features.normalised(SPECTRA[:1], search.query, device)
        pool = features.normalised(SPECTRA, search.pool, device)

        def work(query=query, pool=pool) -> Tensor:
            return QueryReranker(query, pool, published("sysu")).distance()

        timing, peak = measure(work, repeats=1, warmup=1), peak_memory(work, device)
        images = len(search.pool)
        rows.append({
            "what": f"gallery of {images} images", "seconds": timing.median, "gigabytes": peak,
            "microseconds per query and image": timing.median / len(search.query) / images * 1e6,
        })  # fmt: skip
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m benchmarks.scoring", description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", default="auto")
    parser.add_argument("--json", type=json_file, help="where the report is written to")
    parser.add_argument("--repeats", type=at_least_one, default=3)
    arguments = parser.parse_args(argv)
    device = prepare(arguments.gpu, seed=0)
    rows = [*whole_tests(device, arguments.repeats), *against_loops(device), *growth(device)]
    write_report(arguments.json, "scoring", rows, device=describe_device(device))
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
