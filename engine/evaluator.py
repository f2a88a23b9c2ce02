"""Evaluate models on a test set."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from PIL import Image
from torch import nn

from data.datasets.base import ReIDDataset
from engine.extract import Extractor
from utils.features import Features
from utils.protocols import Search, describe_queries, only, require_scorable, score
from utils.rank_lists import best_to_worst, draw, rank_lists, row_of
from utils.rerank import MSER
from utils.results import Results, SettingResult, TrialScore
from utils.run.errors import UserError

logger = logging.getLogger(__name__)

QUERIES, RESULTS = 5, 10  # rows of a picture of rank lists, and gallery images per row


class Evaluation(NamedTuple):
    """An evaluation during training."""

    score: TrialScore  # selects the best model
    picture: Image.Image | None = None  # rank lists, if their images could be read


def require_testable(dataset: ReIDDataset) -> None:
    """Raise ``UserError`` unless every setting of the protocol, with all variants, can be scored with these images."""
    require_scorable(dataset.protocol(dataset, dataset.root), dataset.identities)


class Evaluator:
    """Evaluates models on one test set, on the device of the extractor.

    Args:
        dataset: the test set.
        extractor: extracts its features.
        mser: hyper-parameters of MSER, or None for plain ranking only.
        variants: values of the keys of ``dataset.variants``; None for their first values.
        no_casts: makes a context in which scoring stays in float32, although apex casts everywhere else.
    """

    def __init__(
        self,
        dataset: ReIDDataset,
        extractor: Extractor,
        *,
        mser: MSER | None,
        variants: Mapping[str, str] | None = None,
        no_casts: Callable[[], AbstractContextManager] = nullcontext,
    ):
        self.dataset, self.extractor, self.mser, self.no_casts = dataset, extractor, mser, no_casts
        self.device = extractor.device
        self.protocol = dataset.chosen_protocol(dataset, dataset.root, variants or {})

    def summary(self) -> str:
        """How many queries of each setting are scored, in a few lines for the log."""
        lines = describe_queries(self.protocol, self.dataset.identities)
        return "\n".join(["test protocol:", *(f"  {line}" for line in lines)])

    def test(self, model: nn.Module) -> tuple[Results, Features]:
        """Results of every setting, plain and with MSER if configured, and the features."""
        features = self.extractor(model, self.mser.spectra if self.mser else ())
        return self._score(features, self.protocol, self.mser), features

    def test_plain(self, model: nn.Module) -> Results:
        """Results of every setting without MSER."""
        return self._score(self.extractor(model), self.protocol)

    def select(self, model: nn.Module) -> Evaluation:
        """Mean metrics over the settings ``dataset.selection``, without MSER, and a picture of rank lists."""
        features = self.extractor(model)
        results = self._score(features, only(self.protocol, self.dataset.selection))
        score = SettingResult(tuple(result.mean for result in results.values())).mean
        return Evaluation(score, self.draw_rank_lists(features))

    def draw_rank_lists(self, features: Features) -> Image.Image | None:
        """Rank lists of some queries, from the best to the worst. None, and a warning, if an image cannot be read."""
        with self.no_casts():
            lists = best_to_worst(features, rank_lists(features, self.protocol[0]), QUERIES)
        try:
            return draw([row_of(features, self.dataset.root, query, results[:RESULTS]) for query, results in lists])
        except UserError as error:
            logger.warning("no picture of rank lists: %s", error)
            return None

    def _score(self, features: Features, protocol: Sequence[Search], mser: MSER | None = None) -> Results:
        with self.no_casts():
            return score(features, protocol, mser=mser, device=self.device)

    def close(self) -> None:
        """End the loaders' workers."""
        self.extractor.close()
