"""What the report shows, computed from the runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from configs.continuing import MAY_CHANGE
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
from utils.features import Features
from utils.protocols import mser_distances, plain_distances
from utils.results import SettingResult, TrialScore
from utils.run.errors import UserError

WORST = 10  # identities in the table
NOT_METHOD = (*MAY_CHANGE, "output_dir", "prefix")  # keys that cannot change results


class Row(NamedTuple):
    """A line of the results: metrics in percent."""

    run: str
    model: str  # best, last, best and last, or tested
    setting: str
    mean: TrialScore
    std: TrialScore  # population standard deviation over the trials
    trials: tuple[TrialScore, ...]


class Cell(NamedTuple):
    """An image of a rank list."""

    image: str  # data URL
    caption: str
    correct: bool | None  # None for the query


class RankList(NamedTuple):
    """A query and its results, without and with MSER."""

    rankings: dict[str, list[Cell]]  # name of the ranking -> the query and its results
    title: str
    note: str


class ExampleLists(NamedTuple):
    title: str
    meaning: str
    lists: list[RankList]


@dataclass(frozen=True)
class SettingPart:
    """What the page shows of one setting of a run."""

    name: str
    examples: list[ExampleLists]
    cameras: Picture
    identities: Picture
    worst: list[Group]
    looks: list[Picture]


@dataclass(frozen=True)
class RunPart:
    """What the page shows of one run."""

    run: Run
    settings: list[SettingPart]
    distances: list[Picture]
    tsne: Picture | None
    centres: Centres
    attention: Picture | None
    changed: list[tuple[str, object, object]]  # key, released value, value of the run


@dataclass(frozen=True)
class Report:
    runs: list[Run]
    rows: list[Row]
    different: list[tuple[str, list[object]]]  # keys that differ between the runs: key, value of each run
    curves: list[Picture]
    cmc: list[Picture]
    parts: list[RunPart]


def report_of(runs: list[Run], device: torch.device, folder: Path | None, queries: Sequence[str] = ()) -> Report:
    """Everything on the page.

    Args:
        folder: for the figures as files; None for no files.
        queries: paths of query images to show in any case, as in the features.

    Raises:
        UserError: an image of the test set cannot be read, a query is unknown, or a run's features do not give its
            results.
    """
    output = Output(folder)
    rankings = [rank_run(run, device) for run in runs]
    several = len(runs) > 1
    rows = [row for run in runs for row in result_rows(run)]
    order = list(dict.fromkeys(row.setting for row in rows))
    parts: list[RunPart] = []
    for number, (run, of_run) in enumerate(zip(runs, rankings, strict=True), start=1):
        parts.append(run_part(run, of_run, output, f"run{number}_" if several else "", device, queries))
    return Report(
        runs=runs,
        rows=sorted(rows, key=lambda row: order.index(row.setting)),
        different=different_keys(runs),
        curves=[output.picture(drawing) for drawing in figures.curves(runs)],
        cmc=[output.picture(drawing) for drawing in cmc_curves(runs, rankings)],
        parts=parts,
    )


def cmc_curves(runs: Sequence[Run], rankings: Sequence[dict[str, dict[str, Ranking]]]) -> Iterator[figures.Drawing]:
    """One figure per setting, with the curves of all runs that have it."""
    names = [run.name if len(runs) > 1 else "" for run in runs]
    for setting in dict.fromkeys(setting for of_run in rankings for setting in of_run):
        of_setting = [
            (name, of_run[setting]) for name, of_run in zip(names, rankings, strict=True) if setting in of_run
        ]
        yield figures.cmc_curves(setting, of_setting)


def rank_run(run: Run, device: torch.device) -> dict[str, dict[str, Ranking]]:
    """The rankings of each setting: ``plain``, and ``MSER`` if the run used it.

    A setting that several searches have gets the trials of all of them, as in scoring.
    """
    found: dict[str, dict[str, Ranking]] = {}
    for search in run.protocol:
        kinds = {"plain": plain_distances(run.features, search, device)}
        if run.mser:
            kinds["MSER"] = mser_distances(run.features, search, run.mser, device)
        for setting in search.settings:
            of_setting = found.setdefault(setting, {})
            for name, kind in kinds.items():
                ranking = rank(run.features, search, setting, kind, device)
                of_setting[name] = of_setting[name].joined(ranking) if name in of_setting else ranking
    for setting, rankings in found.items():
        plain = rankings["plain"]
        precision = [np.nanmean(average) for average in plain.precisions]
        run.require_results(setting, 100 * float(plain.cmc[0]), 100 * float(np.mean(precision)))
    return found


def result_rows(run: Run) -> Iterator[Row]:
    """The results of the best and of the last model, or of a single one if they do not differ."""
    models = {"best": run.results, "last": run.results["last"]}
    if models["last"]["trials"] == run.results["trials"]:
        models = {"best and last" if run.epochs else "tested": run.results}
    for model, content in models.items():
        for setting, trials in content["trials"].items():
            result = SettingResult(tuple(TrialScore(**trial) for trial in trials))
            yield Row(run.name, model, setting, result.mean, result.std, result.trials)


def run_part(
    run: Run,
    rankings: dict[str, dict[str, Ranking]],
    output: Output,
    prefix: str,
    device: torch.device,
    queries: Sequence[str],
) -> RunPart:
    features, dataset = run.features, DATASETS[run.cfg.dataset]
    infrared = np.isin(features.cameras, dataset.infrared_cameras)
    locations = dataset.locations_of(features.cameras)
    points, distances = embedding(features, infrared), centres(features, infrared)
    settings = {setting: rankings[setting] for setting in dataset.selection}
    require_queries(run, settings, queries)
    attention = mean_attention(run, infrared, device) if run.model else None
    return RunPart(
        run=run,
        settings=[
            setting_part(
                run, of_setting, output, prefix + (f"{setting}_" if len(settings) > 1 else ""), device, queries
            )
            for setting, of_setting in settings.items()
        ],
        distances=[
            output.picture(figures.histogram(values), prefix) for values in histograms(features, infrared, locations)
        ],
        tsne=output.picture(figures.tsne(points, distances), prefix) if points else None,
        centres=distances,
        attention=output.picture(attention, prefix) if attention else None,
        changed=changed_keys(run),
    )


def setting_part(
    run: Run,
    rankings: dict[str, Ranking],
    output: Output,
    prefix: str,
    device: torch.device,
    queries: Sequence[str],
) -> SettingPart:
    """What the page shows of one setting, from its rankings by name."""
    features, plain = run.features, rankings["plain"]
    found = [*chosen_queries(features, plain, queries), *examples(features, plain, rankings.get("MSER"))]
    identities = by_identity(features, plain)
    looks = list(look_at(run, plain, found, device)) if run.model else []
    return SettingPart(
        name=plain.setting,
        examples=[example_lists(run, rankings, kind, output, prefix) for kind in found],
        cameras=output.picture(figures.bars(by_camera(features, plain), "query camera"), prefix),
        identities=output.picture(figures.bars(identities, "identity"), prefix),
        worst=identities[:WORST],
        looks=[output.picture(drawing, prefix) for drawing in looks],
    )


def require_queries(run: Run, settings: dict[str, dict[str, Ranking]], queries: Sequence[str]) -> None:
    """Raise ``UserError`` for a path that is not a query with a match in any of the settings."""
    known = {
        path
        for rankings in settings.values()
        for path in run.features.paths[rankings["plain"].search.query[rankings["plain"].first > 0]].tolist()
    }
    for path in queries:
        if path not in known:
            raise UserError(f"--query: {path} is not a query of {run.folder} that has a match, such as {min(known)}")


def chosen_queries(features: Features, plain: Ranking, queries: Sequence[str]) -> list[Examples]:
    """The queries with these paths, as examples."""
    paths = features.paths[plain.search.query].tolist()
    rows = [paths.index(path) for path in queries if path in paths and plain.first[paths.index(path)] > 0]
    return [Examples("Chosen queries", "given with --query", rows)] if rows else []


def example_lists(run: Run, rankings: dict[str, Ranking], kind: Examples, output: Output, prefix: str) -> ExampleLists:
    """The rank lists of example queries, for the page and as files."""
    lists: list[RankList] = []
    rows: list[tuple[str, list[rank_lists.Shown]]] = []
    for query in kind.queries:
        shown = {name: shown_results(run, ranking, query) for name, ranking in rankings.items()}
        rows += shown.items()
        notes = [describe_query(run, name, ranking, query) for name, ranking in rankings.items()]
        title = f"query {run.features.paths[next(iter(rankings.values())).search.query[query]]}"
        lists.append(RankList({name: list(map(_cell, row)) for name, row in shown.items()}, title, "; ".join(notes)))
    output.write(figures.rank_lists(f"rank_lists_{kind.title.lower().replace(' ', '_')}", kind.title, rows), prefix)
    return ExampleLists(kind.title, kind.meaning, lists)


def describe_query(run: Run, name: str, ranking: Ranking, query: int) -> str:
    """For example: plain: AP 60.7 %, first match at 2 of 120."""
    position, results = int(ranking.search.query[query]), ranking.results(query)
    place = rank_lists.first_match(run.features, position, results) + 1
    return f"{name}: AP {100 * ranking.precision[query]:.1f} %, first match at {place} of {len(results)}"


def shown_results(run: Run, ranking: Ranking, query: int) -> list[rank_lists.Shown]:
    position, results = int(ranking.search.query[query]), ranking.results(query)[:LISTED]
    return rank_lists.row_of(run.features, run.root, position, results)


def _cell(shown: rank_lists.Shown) -> Cell:
    return Cell(thumbnail(shown.path), shown.caption, shown.correct)


def mean_attention(run: Run, infrared: np.ndarray, device: torch.device) -> figures.Drawing | None:
    """Mean maps of the adapters over test images of each modality; None without adapters."""
    assert run.model is not None
    random, paths = np.random.default_rng(0), run.features.paths
    chosen = {
        name: [run.root / path for path in paths[random.permutation(np.flatnonzero(side))[:AVERAGED]]]
        for name, side in (("infrared", infrared), ("visible", ~infrared))
    }
    rows = average_maps(run.model, chosen, tuple(run.cfg.image_size), run.cfg.resize, device)
    return figures.maps("attention_mean", "Attention of the adapters, mean over test images", rows) if rows else None


def look_at(run: Run, plain: Ranking, found: Sequence[Examples], device: torch.device) -> Iterator[figures.Drawing]:
    """The maps of the chosen, the best and the worst queries: query, nearest match, and what was ranked before it."""
    assert run.model is not None
    features, cameras = run.features, DATASETS[run.cfg.dataset].infrared_cameras
    looked_at = [("chosen", query) for kind in found if kind.title == "Chosen queries" for query in kind.queries] + [
        (kind.title.split()[0].lower(), kind.queries[0]) for kind in found if kind.title.startswith(("Best", "Worst"))
    ]
    for number, (what, query) in enumerate(looked_at):
        position, results = int(plain.search.query[query]), plain.results(query)
        place = rank_lists.first_match(features, position, results)
        shown = {"query": position, f"nearest match\nranked {place + 1}": int(results[place])}
        if place:
            shown["wrong\nranked 1"] = int(results[0])
        rows = shown_maps(
            run.model,
            {f"{title}\n{rank_lists.caption(features, p)}": run.root / features.paths[p] for title, p in shown.items()},
            [bool(np.isin(features.cameras[p], cameras)) for p in shown.values()],
            tuple(run.cfg.image_size),
            run.cfg.resize,
            device,
        )
        name = f"looks_{what}_query" + (f"_{number + 1}" if what == "chosen" else "")
        yield figures.maps(name, f"The {what} query", rows)


def changed_keys(run: Run) -> list[tuple[str, object, object]]:
    """The keys that may change results and differ from the released defaults for the data set."""
    released = {**strategy_cfg, **DATASETS[run.cfg.dataset].defaults}
    return [
        (key, released[key], value)
        for key, value in sorted(run.cfg.items())
        if value != released[key] and key not in NOT_METHOD
    ]


def different_keys(runs: Sequence[Run]) -> list[tuple[str, list[object]]]:
    """The keys that may change results and differ between the runs, and the seed."""
    values = {"seed": [run.results.get("seed") for run in runs]}
    values |= {key: [run.cfg[key] for run in runs] for key in sorted(runs[0].cfg) if key not in NOT_METHOD}
    return [(key, of_runs) for key, of_runs in values.items() if any(value != of_runs[0] for value in of_runs)]
