"""The training objective: the weighted sum of several losses."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn


class Outputs(NamedTuple):
    """What a network makes of a batch of B images."""

    pooled: Tensor  # (B, D) features before the neck
    embeddings: Tensor  # (B, D) after the neck
    logits: Tensor  # (B, classes)


class Criterion(nn.Module):
    """``forward`` returns each loss by name, such as ``{"loss_id": ..., "loss_cmr": ...}``; train on their sum.

    Args:
        losses: name -> module that is called with (outputs, labels, is_infrared) and returns a scalar.
        weights: name -> factor of the loss; 1 if it is not given.
    """

    def __init__(self, losses: Mapping[str, nn.Module], weights: Mapping[str, float] | None = None):
        super().__init__()
        if not losses:
            raise ValueError("a criterion needs at least one loss")
        self.losses = nn.ModuleDict(losses)
        self.weights = dict.fromkeys(losses, 1.0) | dict(weights or {})

    def forward(self, outputs: Outputs, labels: Tensor, is_infrared: Tensor) -> dict[str, Tensor]:
        """Outputs, (B,) integers, (B,) booleans -> scalars, times their weights."""
        return {name: self.weights[name] * loss(outputs, labels, is_infrared) for name, loss in self.losses.items()}

    def __str__(self) -> str:
        return " + ".join(self._describe(name, loss) for name, loss in self.losses.items())

    def _describe(self, name: str, loss: nn.Module) -> str:
        weight = "" if self.weights[name] == 1 else f"{self.weights[name]:g} "
        detail = loss.extra_repr()
        return f"{weight}{name} ({detail})" if detail else f"{weight}{name}"
