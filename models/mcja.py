"""The MCJA network: ResNet with adapters, GeM pooling, BatchNorm neck and classifier."""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from models.mda import MDA
from models.resnet import build_resnet
from utils.tensors import at_least_float32

POOLINGS = ("gem", "avg")


class MCJA(nn.Module):
    """``forward(images)`` gives embeddings, ``classifier(embeddings)`` gives logits.

    Cross-entropy, the retrieval loss and testing all use the embedding after the neck. The names of the state dict are
    the released ones, without the unused ``backbone.fc``.

    Args:
        num_classes: number of training identities.
        mda_m: attention maps per adapter; 2 on SYSU-MM01, 12 on RegDB.
        mda_layers: for each of the four stages, how many of its last blocks are followed by an adapter. If the stage
            has fewer blocks, all of them are.
        pooling: ``gem``, generalised mean pooling, or ``avg``, the mean.
        gem_power: the power of ``gem``, which is not learned.
        drop_last_stride: stride 1 instead of 2 in the last stage.
        backbone: a name in ``models.resnet.BACKBONES``.
        pretrained: see :func:`models.resnet.build_resnet`.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        mda_m: int = 2,
        mda_layers: Sequence[int] = (0, 2, 3, 0),
        pooling: str = "gem",
        gem_power: float = 3,
        drop_last_stride: bool = False,
        backbone: str = "resnet50",
        pretrained: str | None = None,
    ):
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"unknown pooling {pooling!r}; choose from {', '.join(POOLINGS)}")
        self.pooling, self.gem_power = pooling, gem_power
        self.backbone = build_resnet(backbone, drop_last_stride=drop_last_stride, pretrained=pretrained)
        for stage, count in enumerate(mda_layers, start=1):
            if count:
                blocks = list(self._stage(stage))[-count:]
                setattr(self, f"MDA_{stage}", nn.ModuleList(MDA(_out_channels(block), mda_m) for block in blocks))
        self.embedding_size = _out_channels(self._stage(4)[-1])
        self.bn_neck = nn.BatchNorm1d(self.embedding_size)
        nn.init.zeros_(self.bn_neck.bias)
        self.bn_neck.bias.requires_grad_(False)
        self.classifier = nn.Linear(self.embedding_size, num_classes, bias=False)

    def forward(self, images: Tensor, is_infrared: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) normalised images -> (B, D) embeddings, not normalised; D is 2048 with ResNet-50."""
        return self.embed(images, is_infrared)[1]

    def embed(self, images: Tensor, is_infrared: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised images -> features before and after the neck, (B, D) each, not normalised.

        Args:
            is_infrared: not needed by this network.
        """
        backbone = self.backbone
        x = backbone.maxpool(backbone.relu(backbone.bn1(backbone.conv1(images))))
        for stage in (1, 2, 3, 4):
            x = self._adapted_stage(stage, x)
        pooled = generalised_mean_pool(x, self.gem_power) if self.pooling == "gem" else average_pool(x)
        return pooled, self.bn_neck(pooled)

    def _stage(self, number: int) -> nn.Sequential:
        return getattr(self.backbone, f"layer{number}")

    def _adapted_stage(self, number: int, x: Tensor) -> Tensor:
        blocks, adapters = self._stage(number), getattr(self, f"MDA_{number}", None)
        if adapters is None:
            return blocks(x)
        first = len(blocks) - len(adapters)
        for index, block in enumerate(blocks):
            x = block(x)
            if index >= first:
                x = adapters[index - first](x)
        return x


def average_pool(x: Tensor) -> Tensor:
    """Mean over height and width, (B, C, H, W) -> (B, C), in at least float32."""
    return at_least_float32(x).mean(dim=(2, 3))


def generalised_mean_pool(x: Tensor, power: float = 3) -> Tensor:
    """Generalised mean (GeM) pooling, (B, C, H, W) -> (B, C), in at least float32.

    The result is (mean of x^p over height and width + 1e-12)^(1/p). Half precision would lose the 1e-12 and overflow on
    large activations. Negative activations count as 0; only an adapter after the last block gives such.
    """
    return (at_least_float32(x).clamp(min=0).flatten(2).pow(power).mean(dim=2) + 1e-12).pow(1 / power)


def _out_channels(block: BasicBlock | Bottleneck) -> int:
    """Number of output channels of a residual block, taken from its last BatchNorm."""
    last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
    return last.num_features
