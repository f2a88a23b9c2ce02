"""Evaluate models on a test set."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import nn

from data.datasets.base import ReIDDataset
from engine.extract import Extractor
from utils.features import Features
from utils.protocols import Search, require_scorable, score
from utils.rerank import MSER
from utils.results import Results, SettingResult, TrialScore


def require_testable(dataset: ReIDDataset) -> None:
    """Raise ``UserError`` unless every setting of the protocol can be scored with the listed images."""
    require_scorable(dataset.protocol(dataset, dataset.root), dataset.identities)


class Evaluator:
    """Evaluates models on one test set, on the device of the extractor.

    Args:
        dataset: the test set.
        extractor: extracts its features.
        mser: hyper-parameters of MSER, or None for plain ranking only.
        no_casts: a context in which scoring stays in float32, although apex casts everywhere else.
    """

    def __init__(
        self,
        dataset: ReIDDataset,
        extractor: Extractor,
        *,
        mser: MSER | None,
        no_casts: Callable[[], AbstractContextManager] = nullcontext,
    ):
        self.dataset, self.extractor, self.mser, self.no_casts = dataset, extractor, mser, no_casts
        self.device = extractor.device
        self.protocol = self.dataset.protocol(self.dataset, self.dataset.root)

    def test(self, model: nn.Module) -> tuple[Results, Features]:
        """Results of every setting, plain and with MSER if configured, and the features."""
        features = self.extractor(model, self.mser.spectra if self.mser else ())
        return self._score(features, self.protocol, self.mser), features

    def test_plain(self, model: nn.Module) -> Results:
        """Results of every setting without MSER."""
        return self._score(self.extractor(model), self.protocol)

    def select(self, model: nn.Module) -> TrialScore:
        """Mean metrics over the settings ``dataset.selection``, without MSER. They select the best model."""
        protocol = [search.only(self.dataset.selection) for search in self.protocol]
        results = self._score(self.extractor(model), protocol)
        return SettingResult(tuple(result.mean for result in results.values())).mean

    def _score(self, features: Features, protocol: Sequence[Search], mser: MSER | None = None) -> Results:
        with self.no_casts():
            return score(features, protocol, mser=mser, device=self.device)

    def close(self) -> None:
        """End the loaders' workers."""
        self.extractor.close()
