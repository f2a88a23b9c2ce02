"""Tables of a sweep: Markdown, CSV, JSON and LaTeX.

``table.csv`` has one line per run and setting; the other tables follow from it. A value is the mean over the runs of a
row: its seeds and, on RegDB, its trials. The standard deviation is that of a sample (divided by n - 1). Differences are
those to the first row, run by run with the same seed and trial, with a 95 % interval (Student's t distribution).
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from tools.sweep.plan import Job, Sweep
from utils.results import TrialScore
from utils.run.errors import UserError
from utils.run.files import write_json, write_text

METRICS = TrialScore._fields
SHOWN = {"rank1": "rank-1", "mAP": "mAP", "mINP": "mINP"}
CSV_FIELDS = ("row", "seed", "trial", "setting", *METRICS)
CONFIDENCE = 0.95


class Record(NamedTuple):
    """The results of one run in one setting."""

    row: str
    seed: int
    trial: int | None
    setting: str
    score: TrialScore


class Difference(NamedTuple):
    """Mean of the paired differences to the first row, and its 95 % interval; NaN limits for a single pair."""

    mean: float
    low: float
    high: float
    pairs: int


def collect(jobs: Iterable[Job]) -> list[Record]:
    """The results of all complete runs: those of the best model, in percent."""
    records = []
    for job in jobs:
        content = job.results()
        for setting, values in (content or {"results": {}})["results"].items():
            score = TrialScore(*(values[metric] for metric in METRICS))
            records.append(Record(job.row, job.seed, job.trial, setting, score))
    return records


def read_csv(path: Path) -> list[Record]:
    """The records of a ``table.csv``."""
    try:
        with path.open(newline="") as file:
            return [
                Record(
                    line["row"],
                    int(line["seed"]),
                    int(line["trial"]) if line["trial"] else None,
                    line["setting"],
                    TrialScore(*(float(line[metric]) for metric in METRICS)),
                )
                for line in csv.DictReader(file)
            ]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{path}: not a table.csv of a sweep") from None


def write_tables(sweep: Sweep, records: Sequence[Record], folder: Path) -> str:
    """Write ``table.{md,csv,json,tex}`` and return the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    table = Table(sweep, records)
    text = table.markdown()
    write_text(folder / "table.md", text)
    write_text(folder / "table.csv", csv_text(records))
    write_json(folder / "table.json", table.json())
    write_text(folder / "table.tex", table.latex())
    return text


def csv_text(records: Sequence[Record]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    writer.writerows([one.row, one.seed, one.trial or "", one.setting, *one.score] for one in records)
    return text.getvalue()


class Table:
    """The records of a sweep, by row and setting."""

    def __init__(self, sweep: Sweep, records: Sequence[Record]):
        self.sweep, self.planned = sweep, len(sweep.seeds) * len(sweep.trials)
        self.settings = list(dict.fromkeys(record.setting for record in records))
        self.first = next(iter(sweep.rows))
        # row, setting -> (seed, trial) -> score
        self.scores: dict[tuple[str, str], dict[tuple, TrialScore]] = {}
        for one in records:
            self.scores.setdefault((one.row, one.setting), {})[one.seed, one.trial] = one.score

    def values(self, row: str, setting: str, metric: str) -> dict[tuple, float]:
        """(seed, trial) -> value in percent."""
        return {run: getattr(score, metric) for run, score in self.scores.get((row, setting), {}).items()}

    def runs(self, row: str) -> int:
        return max((len(self.scores.get((row, setting), {})) for setting in self.settings), default=0)

    def difference(self, row: str, setting: str, metric: str) -> Difference | None:
        """To the first row; None if no run has a counterpart there."""
        own, first = self.values(row, setting, metric), self.values(self.first, setting, metric)
        return paired_difference([own[run] - first[run] for run in own if run in first])

    def markdown(self) -> str:
        parts = []
        for setting in self.settings:
            heads = [*SHOWN.values(), *(f"{SHOWN[metric]} − first row" for metric in ("rank1", "mAP"))]
            lines = [f"| {setting} | runs | {' | '.join(heads)} |", f"| --- | ---: |{' ---: |' * len(heads)}"]
            for row in self.sweep.rows:
                cells = [_spread(self.values(row, setting, metric).values()) for metric in SHOWN]
                cells += [self._difference_cell(row, setting, metric) for metric in ("rank1", "mAP")]
                lines.append(f"| {row.replace('|', '/')} | {self._count(row)} | {' | '.join(cells)} |")
            parts.append("\n".join(lines))
        note = (
            "In percent; mean ± standard deviation over the runs of a row. Differences: between runs of the same seed"
            " and trial, with their 95 % interval."
        )
        return "\n\n".join([*parts, note]) + "\n"

    def latex(self) -> str:
        """Tables of rank-1 and mAP for ``\\usepackage{booktabs}``: one without re-ranking, one with it."""
        reranked = [setting for setting in self.settings if setting.endswith("/mser")]
        plain = [setting for setting in self.settings if setting not in reranked]
        return "\n".join(self._tabular(settings) for settings in (plain, reranked) if settings)

    def _tabular(self, settings: Sequence[str]) -> str:
        """Two columns per setting."""
        columns = " & ".join(f"\\multicolumn{{2}}{{c}}{{{_escape(setting)}}}" for setting in settings)
        heads = " & ".join("rank-1 & mAP" for _ in settings)
        rules = "".join(f"\\cmidrule(lr){{{2 * i + 2}-{2 * i + 3}}}" for i in range(len(settings)))
        lines = [
            f"\\begin{{tabular}}{{l{'rr' * len(settings)}}}", "\\toprule", f" & {columns} \\\\", rules,
            f"row & {heads} \\\\", "\\midrule",
        ]  # fmt: skip
        for row in self.sweep.rows:
            cells = [
                _spread(self.values(row, setting, metric).values()).replace("±", "$\\pm$")
                for setting in settings
                for metric in ("rank1", "mAP")
            ]
            missing = "" if self.runs(row) == self.planned else f" ({self._count(row)} runs)"
            lines.append(" & ".join([_escape(row + missing), *cells]) + " \\\\")
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])

    def json(self) -> dict:
        return {
            "rows": [
                {
                    "name": row,
                    "overrides": overrides,
                    "runs": self.runs(row),
                    "planned": self.planned,
                    "results": {
                        setting: {metric: _statistics(self.values(row, setting, metric)) for metric in METRICS}
                        for setting in self.settings
                        if self.values(row, setting, "rank1")
                    },
                    "difference": {
                        setting: {metric: found._asdict() for metric in METRICS
                                  if (found := self.difference(row, setting, metric))}
                        for setting in self.settings
                        if row != self.first
                    },
                }
                for row, overrides in self.sweep.rows.items()
            ]
        }  # fmt: skip

    def _count(self, row: str) -> str:
        found = self.runs(row)
        return str(found) if found == self.planned else f"{found} of {self.planned}"

    def _difference_cell(self, row: str, setting: str, metric: str) -> str:
        found = None if row == self.first else self.difference(row, setting, metric)
        if found is None:
            return ""
        interval = "" if found.pairs == 1 else f" [{found.low:+.2f}, {found.high:+.2f}]"
        return f"{found.mean:+.2f}{interval}"


def paired_difference(differences: Sequence[float]) -> Difference | None:
    """Mean and 95 % interval (Student's t) of paired differences; None if there is none."""
    count = len(differences)
    if not count:
        return None
    mean = float(np.mean(differences))
    if count == 1:
        return Difference(mean, float("nan"), float("nan"), 1)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * np.std(differences, ddof=1) / np.sqrt(count))
    return Difference(mean, mean - half, mean + half, count)


def _statistics(values: dict[tuple, float]) -> dict[str, object]:
    found = list(values.values())
    return {"mean": float(np.mean(found)), "std": _deviation(found), "values": found}


def _deviation(values: Sequence[float]) -> float:
    """Standard deviation of a sample; 0 for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _spread(values: Iterable[float]) -> str:
    found = list(values)
    if not found:
        return "–"
    return f"{np.mean(found):.2f}" + (f" ± {_deviation(found):.2f}" if len(found) > 1 else "")


def _escape(text: str) -> str:
    """``text`` for LaTeX."""
    replaced = {"\\": r"\textbackslash{}", "−": "$-$", "–": "--", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(replaced.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
