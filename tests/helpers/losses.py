"""MCJA's objective, and the backends of its soft rank to parametrise tests with."""

import pytest

from losses import Criterion
from losses.cmr import CrossModalityRetrievalLoss
from losses.identity import IdentityLoss
from losses.soft_rank import torchsort

BACKENDS = ["builtin", pytest.param("torchsort", marks=pytest.mark.skipif(torchsort is None, reason="not installed"))]


def mcja_criterion(backend: str = "auto") -> Criterion:
    return Criterion({"loss_id": IdentityLoss(), "loss_cmr": CrossModalityRetrievalLoss(backend=backend)})
