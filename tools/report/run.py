"""Open the folder of a complete run."""

import csv
import json
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from yacs.config import CfgNode

from configs import get_config
from data import build_dataset, variants_of
from data.datasets import DATASETS
from data.datasets.images import ImageFiles
from engine import build_extractor, build_mser
from engine.checkpoints import BEST, LAST
from engine.report import METRICS_FILE
from models import Network
from tools.checkpoint import open_checkpoint
from utils.features import Features
from utils.protocols import Search
from utils.rerank import MSER
from utils.results import TrialScore
from utils.run.errors import UserError, reason
from utils.run.folder import CONFIG, RESULTS

FEATURES = "features.npz"
NAME = re.compile(r"(?P<prefix>.*)_Time-(?P<time>[\d-]+_[\d-]+)(_(?P<desc>.*))?")  # of a run folder
TOLERANCE = 1.0  # points; the precision of another device may move a result by some tenths


@dataclass(frozen=True)
class Run:
    """A complete run: what its folder holds, its best model, and the features of its test set."""

    name: str  # shown on the page
    folder: Path
    cfg: CfgNode
    results: dict  # content of results.json
    epochs: list[dict[str, float]]  # rows of metrics.csv; empty if the run only tested
    model: Network | None  # None if its checkpoint is gone and the features are saved
    features: Features
    protocol: tuple[Search, ...]

    @property
    def root(self) -> Path:
        """The folder of the data set."""
        return Path(self.cfg.data_root)

    def require_results(self, setting: str, rank1: float, mAP: float) -> None:
        """Raise ``UserError`` if these metrics, in percent, are not those of ``results.json``."""
        expected = self.results["results"].get(setting, {"rank1": rank1, "mAP": mAP})
        if abs(expected["rank1"] - rank1) > TOLERANCE or abs(expected["mAP"] - mAP) > TOLERANCE:
            raise UserError(
                f"{self.folder}: its {'features' if (self.folder / FEATURES).is_file() else 'model'} and images give a"
                f" rank-1 of {rank1:.2f} in {setting}, but its results say {expected['rank1']:.2f}; were files"
                " exchanged?"
            )

    @property
    def mser(self) -> MSER | None:
        """MSER as configured; None if the run did not use it, or its features lack a spectrum."""
        cfg = self.cfg
        if not cfg.mser or not set(cfg.mser_spectra) <= self.features.spectra.keys():
            return None
        return build_mser(cfg)


def open_runs(folders: Sequence[Path], data_root: Path | None, device: torch.device) -> list[Run]:
    """The runs in their order, with names that tell them apart.

    Raises:
        UserError: a folder is not that of a complete run, or its model or data set is missing.
    """
    parts = [NAME.fullmatch(folder.resolve().name) for folder in folders]
    short = [
        found["desc"] or found["prefix"] if found else folder.resolve().name
        for found, folder in zip(parts, folders, strict=True)
    ]
    timed = [f"{name} {found['time']}" if found else name for found, name in zip(parts, short, strict=True)]
    names = next((names for names in (short, timed) if len(set(names)) == len(names)), list(map(str, folders)))
    return [open_run(folder, name, data_root, device) for folder, name in zip(folders, names, strict=True)]


def open_run(folder: Path, name: str, data_root: Path | None, device: torch.device) -> Run:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder")
    results = _read_results(folder)
    cfg = get_config(folder / CONFIG, ["data_root", str(data_root)] if data_root else [])
    checkpoint = next((path for path in _checkpoints(folder, cfg) if path.is_file()), None)
    saved = folder / FEATURES
    if not checkpoint and not saved.is_file():
        raise UserError(f"{folder}: holds neither a model ({BEST}) nor {FEATURES}")
    model = open_checkpoint(checkpoint, folder / CONFIG, device)[1] if checkpoint else None
    features = Features.load(saved) if saved.is_file() or model is None else extract(cfg, model, device)
    if not Path(cfg.data_root).is_dir():
        raise UserError(f"{cfg.data_root}: no such folder; if the data set has moved, give --data-root")
    protocol = DATASETS[cfg.dataset].chosen_protocol(features, Path(cfg.data_root), variants_of(cfg))
    return Run(name, folder, cfg, results, _read_epochs(folder / METRICS_FILE), model, features, protocol)


def extract(cfg: CfgNode, model: Network, device: torch.device) -> Features:
    """The features of the test set, as testing extracts them, but without a cache: a report writes into no run."""
    images = build_dataset(cfg, "test")
    source = ImageFiles(images, cfg.image_size, resize=cfg.resize)
    with closing(build_extractor(cfg, images, source, device)) as extractor:
        return extractor(model, cfg.mser_spectra if cfg.mser else ())


def _checkpoints(folder: Path, cfg: CfgNode) -> list[Path]:
    """Where the model of the main results may be."""
    return [Path(cfg.resume)] if cfg.test_only else [folder / BEST, folder / LAST]


def _read_results(folder: Path) -> dict:
    path = folder / RESULTS
    if not path.is_file():
        raise UserError(f"{folder}: holds no {RESULTS}; it is not a run folder, or the run is not complete")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for trials in content["trials"].values():
            [TrialScore(**trial) for trial in trials]
        return {"last": content, "versions": {}, **content}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not the results of a run ({reason(error)})") from None


def _read_epochs(path: Path) -> list[dict[str, float]]:
    """The rows of ``metrics.csv``; empty cells are left out."""
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: not the metrics of a run ({reason(error)})") from None
