"""The MCJA network: ResNet with adapters, GeM pooling, BatchNorm neck and classifier."""

from collections.abc import Sequence

from torch import Tensor, nn

from models.mda import MDA
from models.network import Network
from models.pooling import POOLINGS, require_pooling
from models.resnet import build_resnet, out_channels, run_stage


class MCJA(Network):
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

    never_used = ("backbone.fc.",)

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
        require_pooling(pooling)
        self.pooling, self.gem_power = pooling, gem_power
        self.backbone = build_resnet(backbone, drop_last_stride=drop_last_stride, pretrained=pretrained)
        for stage, count in enumerate(mda_layers, start=1):
            if count:
                blocks = list(self._stage(stage))[-count:]
                setattr(self, f"MDA_{stage}", nn.ModuleList(MDA(out_channels(block), mda_m) for block in blocks))
        self.embedding_size = out_channels(self._stage(4)[-1])
        self.bn_neck = nn.BatchNorm1d(self.embedding_size)
        nn.init.zeros_(self.bn_neck.bias)
        self.bn_neck.bias.requires_grad_(False)
        self.classifier = nn.Linear(self.embedding_size, num_classes, bias=False)

    def embed(self, images: Tensor, is_infrared: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised images -> features before and after the neck, (B, D) each, not normalised.

        Args:
            is_infrared: not needed by this network.
        """
        backbone = self.backbone
        x = backbone.maxpool(backbone.relu(backbone.bn1(backbone.conv1(images))))
        for stage in (1, 2, 3, 4):
            x = run_stage(self._stage(stage), getattr(self, f"MDA_{stage}", ()), x)
        pooled = POOLINGS[self.pooling](x, self.gem_power)
        return pooled, self.bn_neck(pooled)

    @property
    def neck(self) -> nn.BatchNorm1d:
        return self.bn_neck

    @property
    def last_stage(self) -> nn.Module:
        return self._stage(4)

    def _stage(self, number: int) -> nn.Sequential:
        return getattr(self.backbone, f"layer{number}")
