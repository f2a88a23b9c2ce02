"""The interface that every network has."""

from typing import ClassVar

from torch import Tensor, nn


class Network(nn.Module):
    """``forward(images, is_infrared)`` gives embeddings, ``classifier(embeddings)`` gives logits.

    Metric losses take the features before the neck, the classifier and testing those after it.
    """

    needs_modality: ClassVar[bool] = False  # whether `is_infrared` must be given
    # beginnings of names in released checkpoints that the network never uses
    never_used: ClassVar[tuple[str, ...]] = ()

    classifier: nn.Linear
    embedding_size: int

    def forward(self, images: Tensor, is_infrared: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) normalised images -> (B, D) embeddings, not normalised; D is 2048 with ResNet-50."""
        return self.embed(images, is_infrared)[1]

    def embed(self, images: Tensor, is_infrared: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised images -> features before and after the neck, (B, D) each, not normalised.

        Args:
            is_infrared: (B,) booleans on the device of the images; modalities in any order, or one alone.
        """
        raise NotImplementedError

    @property
    def neck(self) -> nn.Module:
        """The BatchNorm after the pooling."""
        raise NotImplementedError

    @property
    def last_stage(self) -> nn.Module:
        """The module whose output is pooled."""
        raise NotImplementedError
