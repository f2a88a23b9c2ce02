"""The training objective: the sum of several losses, each with weight 1."""

from collections.abc import Mapping

from torch import Tensor, nn


class Criterion(nn.Module):
    """``forward`` returns each loss by name, such as ``{"loss_id": ..., "loss_cmr": ...}``; train on their sum.

    Args:
        losses: name -> module that is called with (embeddings, logits, labels, is_infrared) and returns a scalar.
    """

    def __init__(self, losses: Mapping[str, nn.Module]):
        super().__init__()
        if not losses:
            raise ValueError("a criterion needs at least one loss")
        self.losses = nn.ModuleDict(losses)

    def forward(self, embeddings: Tensor, logits: Tensor, labels: Tensor, is_infrared: Tensor) -> dict[str, Tensor]:
        """(B, D), (B, classes), (B,) integers, (B,) booleans -> scalars."""
        return {name: loss(embeddings, logits, labels, is_infrared) for name, loss in self.losses.items()}

    def __str__(self) -> str:
        details = {name: loss.extra_repr() for name, loss in self.losses.items()}
        return " + ".join(f"{name} ({detail})" if detail else name for name, detail in details.items())
