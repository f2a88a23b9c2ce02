"""Cross-entropy on identities."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class IdentityLoss(nn.Module):
    """Mean cross-entropy of the logits, (B, classes) and (B,) labels -> scalar, in at least float32."""

    def forward(self, embeddings: Tensor, logits: Tensor, labels: Tensor, is_infrared: Tensor) -> Tensor:
        return functional.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels)
