"""Tables of a sweep: Markdown, CSV, JSON and LaTeX.

``table.csv`` has the values of each run and setting, from which ``--csv`` makes the other tables again. These show the
mean over the runs of a row (its seeds and, on RegDB, its trials) with the standard deviation of a sample (divided by
n - 1), and the paired differences to the first row with a 95 % interval (Student's t distribution). Pairs are the
seeds, after a mean over the trials of each; with a single seed they are the trials.
"""

import csv
import io
import math
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from tools.sweep.plan import Job, Sweep
from utils.results import TrialScore
from utils.run.errors import UserError, shown
from utils.run.files import write_json, write_text

METRICS = TrialScore._fields
SHOWN = {"rank1": "rank-1", "mAP": "mAP", "mINP": "mINP"}
COMPARED = ("rank1", "mAP")  # with the first row
CSV_FIELDS = ("row", "seed", "trial", "setting", *METRICS)
CONFIDENCE = 0.95

LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{c: f"${c}$" for c in "<>|"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "−": "$-$", "–": "--", "—": "---", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "→": r"$\rightarrow$",
    "≤": r"$\leq$", "≥": r"$\geq$", "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "λ": r"$\lambda$",
}  # fmt: skip


class Record(NamedTuple):
    """The results of one run in one setting."""

    row: str
    seed: int
    trial: int | None
    setting: str
    score: TrialScore


class Difference(NamedTuple):
    """Mean of the paired differences to the first row, and its 95 % interval; None for a single pair."""

    mean: float
    low: float | None
    high: float | None
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


def read_csv(path: Path, sweep: Sweep) -> list[Record]:
    """The records of a ``table.csv``.

    Raises:
        UserError: it is none, or has a row, seed or trial that the sweep lacks.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            records = [_record(line) for line in csv.DictReader(file)]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (KeyError, ValueError, TypeError, csv.Error):
        raise UserError(f"{path}: not a table.csv of a sweep") from None
    known: dict[str, Collection] = {"row": sweep.rows, "seed": sweep.seeds, "trial": sweep.trials}
    for record in records:
        for name, values in known.items():
            if (value := getattr(record, name)) not in values:
                raise UserError(f"{path}: {name} {shown(value)} is not in {sweep.path}")
    if len({record[:4] for record in records}) < len(records):
        raise UserError(f"{path}: a run has two lines of the same setting")
    return records


def _record(line: dict[str, str]) -> Record:
    score = TrialScore(*(float(line[metric]) for metric in METRICS))
    if not all(map(math.isfinite, score)):
        raise ValueError("not a number")
    trial = int(line["trial"]) if line["trial"] else None
    return Record(line["row"], int(line["seed"]), trial, line["setting"], score)


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
        """To the first row; None if no run has a counterpart there, or the row is the first one."""
        own, first = self.values(row, setting, metric), self.values(self.first, setting, metric)
        if row == self.first:
            return None
        pairs: dict[object, list[float]] = {}
        for seed, trial in own:
            if (seed, trial) in first:
                pair = seed if len(self.sweep.seeds) > 1 else trial
                pairs.setdefault(pair, []).append(own[seed, trial] - first[seed, trial])
        return paired_difference([float(np.mean(values)) for values in pairs.values()])

    def markdown(self) -> str:
        parts = []
        for setting in self.settings:
            heads = [*SHOWN.values(), *(f"{SHOWN[metric]} − first row" for metric in COMPARED)]
            lines = [f"| {setting} | runs | {' | '.join(heads)} |", f"| --- | ---: |{' ---: |' * len(heads)}"]
            for row in self.sweep.rows:
                cells = [_spread(self.values(row, setting, metric).values()) for metric in SHOWN]
                cells += [_difference_text(self.difference(row, setting, metric)) for metric in COMPARED]
                name = row.replace("|", "\\|")
                lines.append(f"| {name} | {self._count(row)} | {' | '.join(cells)} |")
            parts.append("\n".join(lines))
        return "\n\n".join([*parts, self._conditions()]) + "\n"

    def latex(self) -> str:
        """One tabular per setting, for ``\\usepackage{booktabs}``: rank-1 of each row, then mAP."""
        parts = [
            "% needs \\usepackage{booktabs}",
            *map(self._tabular, self.settings),
            f"{{\\small {_escape(self._conditions())}\\par}}",
        ]
        return "\n\n".join(parts) + "\n"

    def _tabular(self, setting: str) -> str:
        # a row name breaks into lines, so that the table fits a column of 345 pt, that of the class article
        lines = [
            "{\\small", "\\noindent\\begin{tabular}{@{}p{0.34\\textwidth}rrr@{}}", "\\toprule",
            f"{_escape(setting)} & runs & mean & difference to the first row \\\\",
        ]  # fmt: skip
        for metric in COMPARED:
            lines += ["\\midrule", f"\\emph{{{SHOWN[metric]}}} \\\\"]
            for row in self.sweep.rows:
                cells = [
                    self._count(row),
                    _spread(self.values(row, setting, metric).values()),
                    _difference_text(self.difference(row, setting, metric)),
                ]
                # the braces protect a name that begins with [ or *, which \\ would take as its argument
                cells = [_escape(cell.replace("-", "−")) for cell in cells]
                lines.append(f"{{}}\\raggedright {_escape(row)} & {' & '.join(cells)} \\\\")
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\par}"])

    def json(self) -> dict:
        return {
            "base": str(self.sweep.base),
            "seeds": self.sweep.seeds,
            "trials": [trial for trial in self.sweep.trials if trial],
            "overrides": self.sweep.overrides,
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

    def _conditions(self) -> str:
        """What the values are, and which runs they are from."""
        trials = [trial for trial in self.sweep.trials if trial]
        runs = f"seeds {_listed(self.sweep.seeds)}" + (f"; trials {_listed(trials)}" if trials else "")
        pairs = "seed" if len(self.sweep.seeds) > 1 or not trials else "trial"
        return (
            f"In percent; mean ± standard deviation of a sample over the runs of a row. Differences: paired by {pairs},"
            f" with 95 % interval. Base configuration: {self.sweep.base}; {runs}."
        )

    def _count(self, row: str) -> str:
        found = self.runs(row)
        return str(found) if found == self.planned else f"{found} of {self.planned}"


def paired_difference(differences: Sequence[float]) -> Difference | None:
    """Mean and 95 % interval (Student's t) of paired differences; None if there is none."""
    count = len(differences)
    if not count:
        return None
    mean = float(np.mean(differences))
    if count == 1:
        return Difference(mean, None, None, 1)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * np.std(differences, ddof=1) / np.sqrt(count))
    return Difference(mean, mean - half, mean + half, count)


def _statistics(values: dict[tuple, float]) -> dict[str, object]:
    found = list(values.values())
    return {"mean": float(np.mean(found)), "std": _deviation(found), "values": found}


def _deviation(values: Sequence[float]) -> float | None:
    """Standard deviation of a sample; None for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _spread(values: Iterable[float]) -> str:
    found = list(values)
    if not found:
        return "–"
    deviation = _deviation(found)
    return f"{np.mean(found):.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")


def _difference_text(found: Difference | None) -> str:
    if found is None:
        return ""
    interval = "" if found.low is None else f" [{found.low:+.2f}, {found.high:+.2f}]"
    return f"{found.mean:+.2f}{interval}"


def _listed(numbers: Sequence[int | None]) -> str:
    return ", ".join(map(str, numbers))


def _escape(text: str) -> str:
    """``text`` for LaTeX; other characters that are not ASCII may need XeLaTeX."""
    return "".join(LATEX.get(c, c) for c in text)
