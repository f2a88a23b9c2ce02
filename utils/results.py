"""Results per setting: mean and standard deviation over trials, and tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

RANKS = (1, 5, 10, 20)
COLUMNS = (*(f"rank-{rank}" for rank in RANKS), "mAP", "mINP")  # names of TrialScore's metrics in tables


class TrialScore(NamedTuple):
    """Metrics in percent: of one trial, or means over trials."""

    rank1: float
    rank5: float
    rank10: float
    rank20: float
    mAP: float
    mINP: float


@dataclass(frozen=True)
class SettingResult:
    """The metrics of a setting's trials."""

    trials: tuple[TrialScore, ...]

    @property
    def mean(self) -> TrialScore:
        return TrialScore(*np.mean(self.trials, axis=0).tolist())

    @property
    def std(self) -> TrialScore:
        """Population standard deviation over the trials."""
        return TrialScore(*np.std(self.trials, axis=0).tolist())


Results = Mapping[str, SettingResult]  # setting -> result, with settings such as "all/1-shot/mser"


def means(results: Results) -> dict[str, dict[str, float]]:
    """Setting -> metric -> mean over the trials, in percent."""
    return {name: result.mean._asdict() for name, result in results.items()}


def trials(results: Results) -> dict[str, list[dict[str, float]]]:
    """Setting -> metrics of each trial, in percent."""
    return {name: [trial._asdict() for trial in result.trials] for name, result in results.items()}


def markdown_table(results: Results) -> str:
    """A Markdown table in percent, one row per setting, with the standard deviation of rank-1 and mAP over trials."""
    lines = [
        f"| {' | '.join(['setting', *COLUMNS, 'trials'])} |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, result in results.items():
        values = [f"{value:.2f}" for value in result.mean]
        if len(result.trials) > 1:
            for column in (TrialScore._fields.index("rank1"), TrialScore._fields.index("mAP")):
                values[column] += f" ± {result.std[column]:.2f}"
        lines.append(f"| {' | '.join([name, *values, str(len(result.trials))])} |")
    return "\n".join(lines)


def plain_table(scores: Mapping[str, TrialScore]) -> str:
    """A table of aligned columns in percent, one row per name, for the log."""
    width = max(map(len, scores))
    lines = [" " * width + "".join(f"{column:>9}" for column in COLUMNS)]
    lines += [f"{name:<{width}}" + "".join(f"{value:9.2f}" for value in score) for name, score in scores.items()]
    return "\n".join(lines)
