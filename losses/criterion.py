"""The training objective: the sum of several losses, weight 1 each."""

from collections.abc import Mapping

from torch import Tensor, nn


class Criterion(nn.Module):
    """``forward`` returns each loss by name, such as ``{"loss_id": ..., "loss_cmr": ...}``; train on their sum.

    Args:
        losses: name -> module, called with (embeddings, logits, labels, is_infrared), that returns a scalar.
    """

    def __init__(self, losses: Mapping[str, nn.Module]):
        super().__init__()
        if not losses:
            raise ValueError("a criterion needs at least one loss")
        self.losses = nn.ModuleDict(losses)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.losses)

    def forward(self, embeddings: Tensor, logits: Tensor, labels: Tensor, is_infrared: Tensor) -> dict[str, Tensor]:
        """(B, D), (B, classes), (B,) integers, (B,) booleans -> scalars."""
        return {name: loss(embeddings, logits, labels, is_infrared) for name, loss in self.losses.items()}

    def __str__(self) -> str:
        settings = {name: loss.extra_repr() for name, loss in self.losses.items()}
        return " + ".join(f"{name} ({setting})" if setting else name for name, setting in settings.items())
