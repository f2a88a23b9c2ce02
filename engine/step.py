"""The training step."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.optim import Optimizer

from data.augment import BatchAugment
from data.datasets.base import ReIDDataset
from data.datasets.images import ImageSource
from data.loaders import Batch, Loader
from data.samplers import EpochSampler
from engine.precision import ApexPrecision, TorchPrecision
from losses.criterion import Criterion, Outputs
from models import Network
from utils.run.errors import UserError
from utils.tensors import at_least_float32, send

logger = logging.getLogger(__name__)

Step = Callable[[Batch], dict[str, Tensor]]


@dataclass(kw_only=True)
class StepParts:
    """Everything that a training step uses."""

    model: Network
    criterion: Criterion
    optimizer: Optimizer
    augment: BatchAugment
    device: torch.device
    precision: TorchPrecision | ApexPrecision
    compile: bool = False  # compile model and losses to one graph of fixed shapes


@dataclass(kw_only=True)
class Training(StepParts):
    """Everything that a training uses: the parts of its step, and its data."""

    dataset: ReIDDataset
    sampler: EpochSampler
    source: ImageSource
    loader: Loader  # of the batches that the sampler lists, with images from the source


def build_step(parts: StepParts) -> Step:
    """The step as a function of a batch. It returns the accuracy (a fraction) and each loss, as scalars.

    It does not synchronise with the device: the scalars stay there.
    """
    model, device, precision = parts.model, parts.device, parts.precision

    def forward(images: Tensor, labels: Tensor, is_infrared: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with precision.autocast():
            pooled, embeddings = map(at_least_float32, model.embed(images, is_infrared))
        with precision.no_autocast():
            outputs = Outputs(pooled, embeddings, model.classifier(embeddings))
            return outputs.logits, parts.criterion(outputs, labels, is_infrared)

    if parts.compile:
        forward = torch.compile(forward, fullgraph=True, dynamic=False)

    def step(batch: Batch) -> dict[str, Tensor]:
        if not model.training:
            model.train()
        images = parts.augment(send(batch.images, device), batch.is_infrared)
        labels = send(batch.labels, device)
        logits, losses = forward(images, labels, send(batch.is_infrared, device))
        precision.step(reduce(torch.add, losses.values()), parts.optimizer)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        return {"cls_acc": accuracy, **{name: loss.detach() for name, loss in losses.items()}}

    return explain_compile_errors(step) if parts.compile else step


def explain_compile_errors(step: Step) -> Step:
    """``step``, with a one-line error if torch cannot compile it. The traceback goes to the log.

    It wraps the whole step, because the backward pass may be compiled later than the forward pass.

    Raises:
        UserError: most often because there is no C++ compiler.
    """
    from torch._dynamo.exc import TorchDynamoException  # takes a second to import

    def explained(batch: Batch) -> dict[str, Tensor]:
        try:
            return step(batch)
        except TorchDynamoException as error:
            logger.exception("torch could not compile the step")
            why, _, _ = str(error).strip().partition("\n")
            raise UserError(f"compile: torch could not compile the step ({why}); set compile false") from None

    return explained
