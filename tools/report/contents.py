"""What the report shows, computed from the runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from configs.default import strategy_cfg
from data.datasets import DATASETS
from tools.report import figures
from tools.report.attention import AVERAGED, average_maps, shown_maps
from tools.report.output import Output, Picture, thumbnail
from tools.report.ranking import (
    LISTED,
    Centres,
    Examples,
    Group,
    Ranking,
    by_camera,
    by_identity,
    centres,
    embedding,
    examples,
    histograms,
    rank,
)
from tools.report.run import Run
from utils import rank_lists
from utils.protocols import mser_distances, plain_distances
from utils.results import TrialScore

WORST = 10  # identities in the table
LOOKED_AT = 2  # queries whose maps are shown: the best and the worst


class Row(NamedTuple):
    """A line of the results: metrics in percent."""

    run: str
    model: str  # best or last
    setting: str
    mean: TrialScore
    std: TrialScore  # population standard deviation over the trials
    trials: list[TrialScore]


class Cell(NamedTuple):
    """An image of a rank list."""

    image: str  # data URL
    caption: str
    correct: bool | None  # None for the query


class RankList(NamedTuple):
    """A query and its results, without and with MSER."""

    rankings: dict[str, list[Cell]]  # name of the ranking -> the query and its results
    note: str


class ExampleLists(NamedTuple):
    title: str
    meaning: str
    lists: list[RankList]


@dataclass(frozen=True)
class RunPart:
    """What the page shows of one run."""

    run: Run
    setting: str
    examples: list[ExampleLists]
    distances: list[Picture]
    tsne: Picture | None
    centres: Centres
    cameras: Picture
    identities: Picture
    worst: list[Group]
    looks: list[Picture]
    no_looks: str  # why there are none
    changed: list[tuple[str, object, object]]  # key, released value, value of the run


@dataclass(frozen=True)
class Report:
    runs: list[Run]
    rows: list[Row]
    curves: list[Picture]
    cmc: Picture
    parts: list[RunPart]


def report_of(runs: list[Run], device: torch.device, folder: Path | None) -> Report:
    """Everything on the page.

    Args:
        folder: for the figures as files; None for no files.

    Raises:
        UserError: an image of the test set cannot be read.
    """
    output = Output(folder)
    rankings = [rank_run(run, device) for run in runs]
    named = [
        (" ".join(filter(None, (run.name if len(runs) > 1 else "", name))), ranking)
        for run, of_run in zip(runs, rankings, strict=True)
        for name, ranking in of_run.items()
    ]
    return Report(
        runs=runs,
        rows=[row for run in runs for row in result_rows(run)],
        curves=[output.picture(drawing) for drawing in figures.curves(runs)],
        cmc=output.picture(figures.cmc_curves(named)),
        parts=[
            run_part(run, of_run, output, f"run{number}_" if len(runs) > 1 else "", device)
            for number, (run, of_run) in enumerate(zip(runs, rankings, strict=True), start=1)
        ],
    )


def rank_run(run: Run, device: torch.device) -> dict[str, Ranking]:
    """The rankings of the first setting: ``plain``, and ``MSER`` if the run used it."""
    search = run.protocol[0]
    setting = next(iter(search.galleries))
    search = search.only([setting])
    found = {"plain": plain_distances(run.features, search, device)}
    if run.mser:
        found["MSER"] = mser_distances(run.features, search, run.mser, device)
    return {name: rank(run.features, search, setting, distances, device) for name, distances in found.items()}


def result_rows(run: Run) -> Iterator[Row]:
    """The results of the best model, and of the last one if it differs."""
    models = {"best": run.results, "last": run.results.get("last", run.results)}
    if models["last"]["trials"] == run.results["trials"]:
        models = {"best": run.results} if run.epochs else {"tested": run.results}
    for model, content in models.items():
        for setting, trials in content["trials"].items():
            scores = [TrialScore(*(trial[name] for name in TrialScore._fields)) for trial in trials]
            mean, std = (TrialScore(*function(scores, axis=0).tolist()) for function in (np.mean, np.std))
            yield Row(run.name, model, setting, mean, std, scores)


def run_part(run: Run, rankings: dict[str, Ranking], output: Output, prefix: str, device: torch.device) -> RunPart:
    features, plain = run.features, rankings["plain"]
    infrared = np.isin(features.cameras, DATASETS[run.cfg.dataset].infrared_cameras)
    found = examples(features, plain, rankings.get("MSER"))
    points, distances = embedding(features, infrared), centres(features, infrared)
    identities = by_identity(features, plain)
    looks = list(look_at(run, plain, found, infrared, device)) if run.model else []
    return RunPart(
        run=run,
        setting=plain.setting,
        examples=[example_lists(run, rankings, kind, output, prefix) for kind in found],
        distances=[output.picture(figures.histogram(values), prefix) for values in histograms(features, infrared)],
        tsne=output.picture(figures.tsne(points, distances), prefix) if points else None,
        centres=distances,
        cameras=output.picture(figures.bars(by_camera(features, plain), "query camera"), prefix),
        identities=output.picture(figures.bars(identities, "identity"), prefix),
        worst=identities[:WORST],
        looks=[output.picture(drawing, prefix) for drawing in looks],
        no_looks="" if looks else "The model of this run is gone, so its maps cannot be drawn.",
        changed=changed_keys(run),
    )


def example_lists(run: Run, rankings: dict[str, Ranking], kind: Examples, output: Output, prefix: str) -> ExampleLists:
    """The rank lists of example queries, for the page and as files."""
    lists: list[RankList] = []
    rows: list[list[rank_lists.Shown]] = []
    for query in kind.queries:
        shown = {name: shown_results(run, ranking, query) for name, ranking in rankings.items()}
        rows += [[first._replace(caption=f"{first.caption}\n{name}"), *rest] for name, (first, *rest) in shown.items()]
        precision = ", ".join(f"{name} {100 * ranking.precision[query]:.1f} %" for name, ranking in rankings.items())
        lists.append(RankList({name: list(map(_cell, row)) for name, row in shown.items()}, f"AP: {precision}"))
    output.rank_lists(f"{prefix}rank_lists_{kind.title.lower().replace(' ', '_')}", rows)
    return ExampleLists(kind.title, kind.meaning, lists)


def shown_results(run: Run, ranking: Ranking, query: int) -> list[rank_lists.Shown]:
    position, results = int(ranking.search.query[query]), ranking.results(query)[:LISTED]
    return rank_lists.shown(run.features, run.root, position, results)


def _cell(shown: rank_lists.Shown) -> Cell:
    return Cell(thumbnail(shown.path), shown.caption, shown.correct)


def look_at(
    run: Run, plain: Ranking, found: Sequence[Examples], infrared: np.ndarray, device: torch.device
) -> Iterator[figures.Drawing]:
    """Average maps per modality, and the maps of the best and the worst query, each with its nearest match."""
    assert run.model is not None
    size, features = tuple(run.cfg.image_size), run.features
    random = np.random.default_rng(0)
    chosen = {
        name: [run.root / path for path in features.paths[random.permutation(np.flatnonzero(side))[:AVERAGED]]]
        for name, side in (("infrared", infrared), ("visible", ~infrared))
    }
    rows = average_maps(run.model, chosen, size, run.cfg.resize, device)
    if rows:
        yield figures.maps("attention_mean", "Attention of the adapters, mean over images", rows)
    for kind in (found[0], found[2]):
        query = kind.queries[0]
        position, results = int(plain.search.query[query]), plain.results(query)
        match = int(results[rank_lists.first_match(features, position, results)])
        pair = (position, match)
        rows = shown_maps(
            run.model,
            f"identity {features.identities[position]}",
            [run.root / features.paths[p] for p in pair],
            [bool(infrared[p]) for p in pair],
            size,
            run.cfg.resize,
            device,
        )
        what = kind.title.lower().removesuffix("queries") + "query"
        title = f"The {what} and its nearest match, rank {plain.first[query]}"
        yield figures.maps(f"looks_{what.replace(' ', '_')}", title, rows)


def changed_keys(run: Run) -> list[tuple[str, object, object]]:
    """The keys that change the method: those whose value differs from the released default for the data set."""
    released = {**strategy_cfg, **DATASETS[run.cfg.dataset].defaults}
    return [(key, released[key], value) for key, value in sorted(run.cfg.items()) if value != released[key]]
