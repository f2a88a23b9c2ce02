"""The MCJA network: ResNet with adapters, GeM pooling, BatchNorm neck and classifier."""

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from models.mda import MDA
from models.resnet import build_resnet
from utils.tensors import at_least_float32

GEM_POWER = 3  # fixed, not learned, as released
ADAPTED = {2: 2, 3: 3}  # stage -> number of last blocks that are followed by an MDA


class MCJA(nn.Module):
    """``forward(images)`` gives embeddings, ``classifier(embeddings)`` gives logits.

    Cross-entropy, the retrieval loss and testing all use the embedding after the neck. The names of the state dict are
    the released ones, without the unused ``backbone.fc``.

    Args:
        num_classes: number of training identities.
        mda_m: attention maps per adapter; 2 on SYSU-MM01, 12 on RegDB.
        drop_last_stride: stride 1 instead of 2 in the last stage.
        backbone: a name in ``models.resnet.BACKBONES``.
        pretrained: see :func:`models.resnet.build_resnet`.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        mda_m: int = 2,
        drop_last_stride: bool = False,
        backbone: str = "resnet50",
        pretrained: str | None = None,
    ):
        super().__init__()
        self.backbone = build_resnet(backbone, drop_last_stride=drop_last_stride, pretrained=pretrained)
        for stage, count in ADAPTED.items():
            blocks = list(self._stage(stage))[-count:]
            setattr(self, f"MDA_{stage}", nn.ModuleList(MDA(_out_channels(block), mda_m) for block in blocks))
        self.embedding_size = _out_channels(self._stage(4)[-1])
        self.bn_neck = nn.BatchNorm1d(self.embedding_size)
        nn.init.zeros_(self.bn_neck.bias)
        self.bn_neck.bias.requires_grad_(False)
        self.classifier = nn.Linear(self.embedding_size, num_classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images -> (B, D) embeddings, not normalised; D is 2048 with ResNet-50."""
        backbone = self.backbone
        x = backbone.maxpool(backbone.relu(backbone.bn1(backbone.conv1(images))))
        x = backbone.layer1(x)
        x = self._adapted_stage(2, x)
        x = self._adapted_stage(3, x)
        x = backbone.layer4(x)
        return self.bn_neck(generalised_mean_pool(x))

    def _stage(self, number: int) -> nn.Sequential:
        return getattr(self.backbone, f"layer{number}")

    def _adapted_stage(self, number: int, x: Tensor) -> Tensor:
        blocks, adapters = self._stage(number), getattr(self, f"MDA_{number}")
        first = len(blocks) - len(adapters)
        for index, block in enumerate(blocks):
            x = block(x)
            if index >= first:
                x = adapters[index - first](x)
        return x


def generalised_mean_pool(x: Tensor, power: float = GEM_POWER) -> Tensor:
    """Generalised mean (GeM) pooling, (B, C, H, W) -> (B, C), in at least float32.

    The result is (mean of x^p over height and width + 1e-12)^(1/p). Half precision would lose the 1e-12 and overflow on
    large activations.
    """
    return (at_least_float32(x).flatten(2).pow(power).mean(dim=2) + 1e-12).pow(1 / power)


def _out_channels(block: BasicBlock | Bottleneck) -> int:
    """Number of output channels of a residual block, taken from its last BatchNorm."""
    last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
    return last.num_features
