"""Evaluation of a model on a test set: features, protocols, figures."""

from collections.abc import Callable

from torch import nn

from data.base import ReIDDataset
from data.regdb import RegDB
from data.sysu import SYSU
from engine.extract import Extractor
from utils.features import Features
from utils.protocols import MSER, Setting, regdb_settings, score, sysu_settings
from utils.results import Results, SettingResult, TrialScore

SETTINGS: dict[type[ReIDDataset], Callable[[Features, ReIDDataset], list[Setting]]] = {
    SYSU: lambda features, dataset: sysu_settings(features, dataset.permutations),
    RegDB: lambda features, dataset: regdb_settings(features),
}
# the settings whose mean decides which model of a training is the best
SELECTION = {SYSU: ("all/1-shot",), RegDB: ("infrared_to_visible", "visible_to_infrared")}


class Evaluator:
    """Scores models on one test set.

    Args:
        extractor: of the test set.
        mser: hyper-parameters of the re-ranking, or None for plain ranking alone.
    """

    def __init__(self, extractor: Extractor, *, mser: MSER | None):
        self.extractor, self.mser = extractor, mser
        self.dataset = extractor.dataset

    def test(self, model: nn.Module) -> tuple[Results, Features]:
        """Every setting, plain and, if configured, re-ranked; and the features that it was scored with."""
        features = self.extractor(model, all_spectra=self.mser is not None)
        return score(features, self._settings(features), mser=self.mser), features

    def test_plain(self, model: nn.Module) -> Results:
        """Every setting without re-ranking."""
        features = self.extractor(model, all_spectra=False)
        return score(features, self._settings(features))

    def select(self, model: nn.Module) -> TrialScore:
        """The figures that decide which model is the best: the selection settings' mean, without re-ranking."""
        features = self.extractor(model, all_spectra=False)
        wanted = SELECTION[type(self.dataset)]
        results = score(features, [setting for setting in self._settings(features) if setting.name in wanted])
        return SettingResult(tuple(result.mean for result in results.values())).mean

    def _settings(self, features: Features) -> list[Setting]:
        return SETTINGS[type(self.dataset)](features, self.dataset)
