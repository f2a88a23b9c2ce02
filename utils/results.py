"""Results per setting: means over trials, tables and files."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np

PACKAGES = ("torch", "torchvision", "pytorch-ignite", "torchsort", "numpy", "scipy", "pillow")


class TrialScore(NamedTuple):
    """Figures of one trial, in percent."""

    rank1: float
    rank5: float
    rank10: float
    rank20: float
    mAP: float
    mINP: float


@dataclass(frozen=True)
class SettingResult:
    """The scores of a setting's trials."""

    trials: tuple[TrialScore, ...]

    @property
    def mean(self) -> TrialScore:
        return TrialScore(*np.mean(self.trials, axis=0).tolist())

    @property
    def std(self) -> TrialScore:
        """Population standard deviation over the trials."""
        return TrialScore(*np.std(self.trials, axis=0).tolist())

    def as_dict(self) -> dict[str, object]:
        """Means by name and, where there are several trials, their deviations and the figures of each."""
        result: dict[str, object] = self.mean._asdict()
        if len(self.trials) > 1:
            result["std"] = self.std._asdict()
            result["trials"] = [trial._asdict() for trial in self.trials]
        return result


Results = Mapping[str, SettingResult]


def markdown_table(results: Results) -> str:
    """A Markdown table in percent, one row per setting, with the deviation of rank-1 and mAP over the trials."""
    lines = [
        "| setting | rank-1 | rank-5 | rank-10 | rank-20 | mAP | mINP | trials |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, result in results.items():
        figures = [f"{value:.2f}" for value in result.mean]
        if len(result.trials) > 1:
            for column in (TrialScore._fields.index("rank1"), TrialScore._fields.index("mAP")):
                figures[column] += f" ± {result.std[column]:.2f}"
        lines.append(f"| {' | '.join([name, *figures, str(len(result.trials))])} |")
    return "\n".join(lines)


def as_json(results: Results) -> dict[str, object]:
    return {name: result.as_dict() for name, result in results.items()}


def write_text(path: Path, text: str) -> None:
    """Write beside, flush, rename: a reader never sees half of it."""
    beside = path.with_name(f".{path.name}.partial")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def versions() -> dict[str, str]:
    """Python, platform and the packages that decide a result."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str:
    """The commit of this checkout, with ``+changes`` where it has some; ``unknown`` outside of one."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
