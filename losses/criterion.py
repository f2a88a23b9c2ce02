"""The training objective: a named sum of losses."""

from torch import Tensor, nn
from torch.nn import functional

from losses.cmr import CrossModalityRetrievalLoss

LOSSES = ("loss_id", "loss_cmr")  # every name that a criterion may give


class Criterion(nn.Module):
    """L = CE(logits, identity) + CMR(embeddings), weight 1 each, both in float32 at least.

    ``forward`` returns the named terms that are switched on, ``{"loss_id": ..., "loss_cmr": ...}``; their sum is the
    objective.
    """

    def __init__(self, *, loss_id: bool = True, loss_cmr: bool = True, soft_rank: str = "auto"):
        super().__init__()
        if not (loss_id or loss_cmr):
            raise ValueError("loss_id and loss_cmr are both off: nothing to learn from")
        self.loss_id = loss_id
        self.retrieval = CrossModalityRetrievalLoss(backend=soft_rank) if loss_cmr else None

    @property
    def names(self) -> tuple[str, ...]:
        """The terms that are switched on."""
        return tuple(name for name, on in zip(LOSSES, (self.loss_id, self.retrieval), strict=True) if on)

    def __str__(self) -> str:
        rank = f" (soft rank: {self.retrieval.backend})" if self.retrieval is not None else ""
        return " + ".join(self.names) + rank

    def forward(self, embeddings: Tensor, logits: Tensor, labels: Tensor, is_infrared: Tensor) -> dict[str, Tensor]:
        losses = {}
        if self.loss_id:
            losses["loss_id"] = functional.cross_entropy(logits.float(), labels)
        if self.retrieval is not None:
            losses["loss_cmr"] = self.retrieval(embeddings, labels, is_infrared)
        return losses
