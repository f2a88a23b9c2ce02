"""Cross-entropy on identities."""

from torch import Tensor, nn
from torch.nn import functional

from losses.criterion import Outputs
from utils.tensors import at_least_float32


class IdentityLoss(nn.Module):
    """Mean cross-entropy of (B, classes) logits and (B,) labels, in at least float32.

    Args:
        label_smoothing: share of the target that is spread over all classes, 0 to 1.
    """

    def __init__(self, *, label_smoothing: float = 0.0):
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, outputs: Outputs, labels: Tensor, is_infrared: Tensor) -> Tensor:
        logits = at_least_float32(outputs.logits)
        return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def extra_repr(self) -> str:
        return f"label smoothing {self.label_smoothing:g}" if self.label_smoothing else ""
