"""Evaluation of a model on a test set: features, protocols, figures."""

from collections.abc import Callable

import numpy as np
from torch import nn

from data.datasets.base import ReIDDataset
from data.datasets.regdb import RegDB
from data.datasets.sysu import SYSU
from engine.extract import Extractor
from utils.features import Features
from utils.protocols import Search, regdb_search, require_scorable, score, sysu_search
from utils.rerank import MSER
from utils.results import Results, SettingResult, TrialScore

SEARCHES: dict[type[ReIDDataset], Callable[[Features, ReIDDataset], Search]] = {
    SYSU: lambda features, dataset: sysu_search(features, dataset.permutations),
    RegDB: lambda features, dataset: regdb_search(features),
}
# the settings whose mean decides which model of a training is the best
SELECTION = {SYSU: ("all/1-shot",), RegDB: ("infrared_to_visible", "visible_to_infrared")}


def require_testable(dataset: ReIDDataset) -> None:
    """Raise ``UserError`` unless every setting can be scored on this test set; looks at its lists alone."""
    nothing = np.zeros((len(dataset), 1), dtype=np.float32)
    features = Features(dataset.paths, dataset.identities, dataset.camera_ids, {"original": nothing})
    require_scorable(SEARCHES[type(dataset)](features, dataset), dataset.identities)


class Evaluator:
    """Scores models on one test set, on the device of the extractor.

    Args:
        extractor: of the test set.
        mser: hyper-parameters of the re-ranking, or None for plain ranking alone.
    """

    def __init__(self, extractor: Extractor, *, mser: MSER | None):
        self.extractor, self.mser = extractor, mser
        self.dataset, self.device = extractor.dataset, extractor.device

    def test(self, model: nn.Module) -> tuple[Results, Features]:
        """Every setting, plain and, if configured, re-ranked; and the features that it was scored with."""
        features = self.extractor(model, all_spectra=self.mser is not None)
        return score(features, self._search(features), mser=self.mser, device=self.device), features

    def test_plain(self, model: nn.Module) -> Results:
        """Every setting without re-ranking."""
        features = self.extractor(model, all_spectra=False)
        return score(features, self._search(features), device=self.device)

    def select(self, model: nn.Module) -> TrialScore:
        """The figures that decide which model is the best: the selection settings' mean, without re-ranking."""
        features = self.extractor(model, all_spectra=False)
        search = self._search(features).only(SELECTION[type(self.dataset)])
        results = score(features, search, device=self.device)
        return SettingResult(tuple(result.mean for result in results.values())).mean

    def close(self) -> None:
        """End the processes that load images."""
        self.extractor.close()

    def _search(self, features: Features) -> Search:
        return SEARCHES[type(self.dataset)](features, self.dataset)
