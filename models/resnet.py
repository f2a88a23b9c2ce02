"""torchvision's ResNets as backbones."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import (
    ResNet,
    ResNet18_Weights,
    ResNet34_Weights,
    ResNet50_Weights,
    ResNet101_Weights,
    ResNet152_Weights,
    WeightsEnum,
)
from torchvision.models.resnet import BasicBlock, Bottleneck

from models.loading import read_state_dict
from utils.run.errors import UserError, reason


class Backbone(NamedTuple):
    """Blocks of a ResNet, and its ImageNet weights."""

    block: type[BasicBlock | Bottleneck]
    blocks: tuple[int, ...]  # per stage
    weights: WeightsEnum | None


BACKBONES = {
    "resnet152": Backbone(Bottleneck, (3, 8, 36, 3), ResNet152_Weights.IMAGENET1K_V1),
    "resnet101": Backbone(Bottleneck, (3, 4, 23, 3), ResNet101_Weights.IMAGENET1K_V1),
    "resnet50": Backbone(Bottleneck, (3, 4, 6, 3), ResNet50_Weights.IMAGENET1K_V1),
    "resnet34": Backbone(BasicBlock, (3, 4, 6, 3), ResNet34_Weights.IMAGENET1K_V1),
    "resnet18": Backbone(BasicBlock, (2, 2, 2, 2), ResNet18_Weights.IMAGENET1K_V1),
    "resnet10": Backbone(BasicBlock, (1, 1, 1, 1), None),
}


def build_resnet(name: str = "resnet50", *, drop_last_stride: bool = False, pretrained: str | None = None) -> ResNet:
    """A ResNet without its classification head.

    Args:
        name: a name in ``BACKBONES``.
        drop_last_stride: stride 1 instead of 2 in the last stage.
        pretrained: ``imagenet`` (torchvision's weights, downloaded if needed), a file with a torchvision state dict,
            or ``none`` (also None) for random weights.

    Raises:
        UserError: the weights cannot be downloaded or read, or do not fit.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; choose from {', '.join(BACKBONES)}")
    network = ResNet(BACKBONES[name].block, list(BACKBONES[name].blocks))
    del network.fc
    if drop_last_stride:
        for module in network.layer4[0].modules():
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.stride = (1, 1)
    if pretrained not in (None, "none"):
        state = _imagenet_state(name) if pretrained == "imagenet" else read_state_dict(pretrained)
        _load(network, state, source=pretrained)
    return network


def imagenet_file(name: str) -> Path:
    """Where the ImageNet weights of a backbone are, or will be downloaded to."""
    return Path(torch.hub.get_dir()) / "checkpoints" / _imagenet_weights(name).url.rsplit("/", 1)[1]


def _imagenet_weights(name: str) -> WeightsEnum:
    weights = BACKBONES[name].weights
    if weights is None:
        raise UserError(f"pretrained: there are no ImageNet weights of {name}; set `pretrained none`")
    return weights


def _imagenet_state(name: str) -> dict[str, Tensor]:
    weights, file = _imagenet_weights(name), imagenet_file(name)
    if file.is_file():
        return read_state_dict(file)  # checks the file, which may be an incomplete copy
    try:
        return weights.get_state_dict(check_hash=True, progress=False, map_location="cpu", weights_only=True)
    except (URLError, OSError, RuntimeError, EOFError) as error:
        raise UserError(
            f"pretrained: the ImageNet weights cannot be downloaded ({reason(error)}); save {weights.url} as"
            f" {file}, or set `pretrained` to a file or to none"
        ) from None


def _load(network: ResNet, state: dict[str, Tensor], *, source: str) -> None:
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"pretrained: {source} does not hold the weights of this backbone ({reason(error)})") from None


def out_channels(block: BasicBlock | Bottleneck) -> int:
    """Number of output channels of a residual block, taken from its last BatchNorm."""
    last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
    return last.num_features


def run_stage(blocks: nn.Sequential, adapters: Sequence[nn.Module] | nn.ModuleList, x: Tensor) -> Tensor:
    """The blocks of a stage; each of the last ones is followed by an adapter, as many as there are."""
    if not len(adapters):
        return blocks(x)  # as one module, for hooks
    first = len(blocks) - len(adapters)
    for index, block in enumerate(blocks):
        x = block(x)
        if index >= first:
            x = adapters[index - first](x)
    return x
