"""Cross-entropy on identities."""

from torch import Tensor, nn
from torch.nn import functional

from utils.tensors import at_least_float32


class IdentityLoss(nn.Module):
    """Mean cross-entropy: (B, classes) logits, (B,) labels -> scalar, in at least float32."""

    def forward(self, embeddings: Tensor, logits: Tensor, labels: Tensor, is_infrared: Tensor) -> Tensor:
        return functional.cross_entropy(at_least_float32(logits), labels)
