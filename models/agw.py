"""The network of AGW: a stem per modality, shared stages with non-local blocks, GeM pooling, BatchNorm neck.

Source: Ye et al., *Deep Learning for Person Re-identification: A Survey and Outlook*, TPAMI 2022, and its code.
"""

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models import ResNet

from models.network import Network
from models.non_local import NonLocal
from models.pooling import POOLINGS, require_pooling
from models.resnet import build_resnet, out_channels, run_stage
from utils.tensors import at_least_float32

NON_LOCAL_BLOCKS = {2: 2, 3: 3}  # stage -> how many of its last blocks a non-local block follows


class Stem(nn.Module):
    """The first convolution and BatchNorm of one modality: copies of those of ``resnet``."""

    def __init__(self, resnet: ResNet):
        super().__init__()
        self.conv1: nn.Conv2d = copy.deepcopy(resnet.conv1)
        self.bn1: nn.BatchNorm2d = copy.deepcopy(resnet.bn1)


class AGW(Network):
    """The first convolution and BatchNorm exist twice, one pair per modality; the rest is shared.

    The triplet loss uses the features before the neck; cross-entropy and testing use those after it. The names of the
    state dict are the released ones, without the copies of the backbone that the released code never uses.

    Args:
        num_classes: number of training identities.
        backbone: a name in ``models.resnet.BACKBONES``.
        pretrained: see :func:`models.resnet.build_resnet`; both stems start with the same weights.
        non_local_channels: inner channels of the non-local blocks; 0: no blocks, as in the baseline of AGW.
        pooling: a name in ``models.pooling.POOLINGS``; ``avg`` in the baseline.
        gem_power: the power of ``gem``, which is not learned.
        drop_last_stride: stride 1 instead of 2 in the last stage.
    """

    needs_modality = True
    never_used = (
        "visible_module.visible.layer",
        "thermal_module.thermal.layer",
        "base_resnet.base.conv1.",
        "base_resnet.base.bn1.",
    )

    def __init__(
        self,
        num_classes: int,
        *,
        backbone: str = "resnet50",
        pretrained: str | None = None,
        non_local_channels: int = 1,
        pooling: str = "gem",
        gem_power: float = 3,
        drop_last_stride: bool = True,
    ):
        super().__init__()
        require_pooling(pooling)
        self.pooling, self.gem_power = pooling, gem_power
        resnet = build_resnet(backbone, drop_last_stride=drop_last_stride, pretrained=pretrained)
        self.visible_module = nn.ModuleDict({"visible": Stem(resnet)})
        self.thermal_module = nn.ModuleDict({"thermal": Stem(resnet)})
        stages = {f"layer{number}": getattr(resnet, f"layer{number}") for number in (1, 2, 3, 4)}
        self.base_resnet = nn.ModuleDict({"base": nn.ModuleDict(stages)})
        self.relu, self.maxpool = resnet.relu, resnet.maxpool
        if non_local_channels:
            for stage, count in NON_LOCAL_BLOCKS.items():
                blocks = list(self._stage(stage))[-count:]
                adapters = (NonLocal(out_channels(block), non_local_channels) for block in blocks)
                setattr(self, f"NL_{stage}", nn.ModuleList(adapters))
        self.embedding_size = out_channels(self._stage(4)[-1])
        self.bottleneck = nn.BatchNorm1d(self.embedding_size)
        nn.init.normal_(self.bottleneck.weight, 1, 0.01)
        nn.init.zeros_(self.bottleneck.bias)
        self.bottleneck.bias.requires_grad_(False)
        self.classifier = nn.Linear(self.embedding_size, num_classes, bias=False)
        nn.init.normal_(self.classifier.weight, 0, 0.001)

    def embed(self, images: Tensor, is_infrared: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`models.network.Network.embed`.

        Raises:
            ValueError: ``is_infrared`` is missing.
        """
        if is_infrared is None:
            raise ValueError("AGW has a stem for each modality: give is_infrared, (B,) booleans")
        x = self.maxpool(self.relu(self._stems(images, is_infrared)))
        for stage in (1, 2, 3, 4):
            x = run_stage(self._stage(stage), getattr(self, f"NL_{stage}", ()), x)
        pooled = POOLINGS[self.pooling](x, self.gem_power)
        return pooled, self.bottleneck(pooled)

    @property
    def neck(self) -> nn.BatchNorm1d:
        return self.bottleneck

    @property
    def last_stage(self) -> nn.Module:
        return self._stage(4)

    def _stage(self, number: int) -> nn.Sequential:
        return getattr(self.base_resnet["base"], f"layer{number}")

    def _stems(self, images: Tensor, is_infrared: Tensor) -> Tensor:
        """Convolution and BatchNorm of each image's own modality.

        Both convolutions see the whole batch, so shapes do not depend on the mix of modalities: nothing synchronises
        with a GPU, and the step can be compiled. One costs about 2 % of the network's operations.
        """
        visible = cast(Stem, self.visible_module["visible"])
        infrared = cast(Stem, self.thermal_module["thermal"])
        x = torch.where(is_infrared[:, None, None, None], infrared.conv1(images), visible.conv1(images))
        return modality_batch_norm(x, is_infrared, visible.bn1, infrared.bn1)


def modality_batch_norm(x: Tensor, is_infrared: Tensor, visible: nn.BatchNorm2d, infrared: nn.BatchNorm2d) -> Tensor:
    """Visible images through one BatchNorm, infrared images through another: (B, C, H, W) -> (B, C, H, W).

    It equals the two modules on the two parts of the batch. In training, the statistics of a module are those of its
    own images, and a module without an image keeps its running statistics.

    Args:
        is_infrared: (B,) booleans.
    """
    values = at_least_float32(x)
    scales, shifts = [], []
    if visible.training or infrared.training:
        image_variances, image_means = torch.var_mean(values, dim=(2, 3), correction=0)  # (B, C)
    for norm, own in ((visible, ~is_infrared), (infrared, is_infrared)):
        if norm.training:
            mean, variance = _statistics(norm, image_means, image_variances, own, x.shape[2] * x.shape[3])
        else:
            assert norm.running_mean is not None and norm.running_var is not None
            mean, variance = norm.running_mean, norm.running_var
        scale = norm.weight * (variance + norm.eps).rsqrt()
        scales.append(scale)
        shifts.append(norm.bias - mean * scale)
    scale, shift = (torch.where(is_infrared[:, None], pair[1], pair[0]) for pair in (scales, shifts))  # (B, C)
    return (values * scale[..., None, None] + shift[..., None, None]).to(x.dtype)


def _statistics(
    norm: nn.BatchNorm2d, means: Tensor, variances: Tensor, own: Tensor, positions: int
) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of the images of ``norm``. Updates its running statistics.

    Args:
        means, variances: (B, C) of each image over its positions.
        own: (B,) booleans, which images are those of ``norm``.
        positions: height times width.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.momentum is not None and norm.num_batches_tracked is not None
    rows, images = own[:, None], own.sum().clamp(min=1)
    mean = torch.where(rows, means, 0).sum(dim=0) / images
    variance = torch.where(rows, variances + (means - mean).square(), 0).sum(dim=0) / images
    with torch.no_grad():
        any_own, count = own.any(), images * positions
        unbiased = variance * (count / (count - 1))
        for running, now in ((norm.running_mean, mean), (norm.running_var, unbiased)):
            running.copy_(torch.where(any_own, running.lerp(now, norm.momentum), running))
        norm.num_batches_tracked.add_(any_own)
    return mean, variance
