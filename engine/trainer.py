"""The trainer: a short step and stock ignite handlers."""

import csv
import logging
import math
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from ignite.handlers import LRScheduler, ProgressBar, TensorboardLogger, Timer
from ignite.metrics import Average
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import MultiStepLR

from data.augment import BatchAugment
from data.base import Batch
from data.loaders import Loader
from engine.checkpoints import best_keeper, keep_recent
from engine.precision import ApexPrecision, TorchPrecision
from losses.criterion import LOSSES, Criterion
from utils.errors import UserError
from utils.results import TrialScore

logger = logging.getLogger(__name__)

DECAY = 0.1  # of the learning rate at each step
TESTED = ("rank1", "mAP", "mINP")
CSV_FIELDS = ("epoch", "lr", "seconds", "images_per_second", "cls_acc", *LOSSES, *TESTED)


@dataclass
class Training:
    """What is trained, with what, and how it is computed."""

    model: nn.Module
    criterion: Criterion
    optimizer: Optimizer
    augment: BatchAugment
    loader: Loader
    device: torch.device
    precision: TorchPrecision | ApexPrecision
    compile: bool = False  # model and losses, as one graph of fixed shape


@dataclass(frozen=True)
class Schedule:
    """When what happens; epochs count from 1, and ``evaluate`` scores the model on the test set."""

    num_epoch: int
    lr_step: list[int]
    log_period: int
    start_eval: int
    eval_interval: int
    evaluate: Callable[[nn.Module], TrialScore]

    def evaluates(self, epoch: int) -> bool:
        return self.eval_interval > 0 and epoch >= self.start_eval and epoch % self.eval_interval == 0


@dataclass
class EpochLog:
    """The figures of the epoch under way; an evaluation adds its own."""

    figures: dict[str, float] = field(default_factory=dict)
    best_epoch: int | None = None
    best_rank1: float = -1.0


def train(training: Training, schedule: Schedule, folder: Path) -> int | None:
    """Train to the last epoch, keeping models, figures and curves in ``folder``.

    Returns:
        The epoch of the best model, None where no epoch was evaluated.

    Raises:
        UserError: a loss became NaN or infinite; says when.
    """
    trainer = build_trainer(training)
    attach_schedule(trainer, training.optimizer, schedule.lr_step)
    FiniteLoss(training).attach(trainer, every=schedule.log_period)
    ProgressBar(persist=False, disable=None).attach(trainer)

    log = EpochLog()
    _attach_epoch_figures(trainer, training, log)
    _attach_iteration_log(trainer, schedule.log_period)
    with closing(TensorboardLogger(log_dir=str(folder / "tensorboard"))) as board:
        _attach_board(board, trainer, training, schedule.log_period, log)
        # after the figures are there, and before they are written
        best = best_keeper(training.model, folder, lambda _: log.figures["rank1"])
        trainer.add_event_handler(Events.EPOCH_COMPLETED, _evaluate, training.model, schedule, log, best)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, _write_epoch, folder / "metrics.csv", log, board)
        keep_recent(trainer, training.model, folder)
        trainer.run(training.loader, max_epochs=schedule.num_epoch, epoch_length=len(training.loader))
    return log.best_epoch


def build_trainer(training: Training) -> Engine:
    """An engine whose every epoch is exactly the sampler's list for it; its output is the named losses and accuracy."""
    trainer = Engine(train_step(training))
    sampler = training.loader.batch_sampler

    @trainer.on(Events.EPOCH_STARTED)
    def fresh_epoch(engine: Engine) -> None:
        # ignite would keep the first epoch's length and carry its iterator over
        sampler.set_epoch(engine.state.epoch)
        engine.state.epoch_length = len(sampler)
        engine.set_data(training.loader)

    # otherwise ignite takes the product of this length and the number of epochs for the end of the run
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: setattr(engine.state, "epoch_length", None))
    return trainer


def train_step(training: Training) -> Callable[[Engine, Batch], dict[str, Tensor]]:
    """The step as a function of engine and batch; it never waits for the device."""
    model, device = training.model, training.device

    def forward(images: Tensor, labels: Tensor, infrared: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with training.precision.autocast():
            embeddings = model(images)
            logits = model.classifier(embeddings)
        return logits, training.criterion(embeddings, logits, labels, infrared)

    if training.compile:
        forward = torch.compile(forward, fullgraph=True, dynamic=False)

    def step(engine: Engine, batch: Batch) -> dict[str, Tensor]:
        model.train()
        infrared = batch.is_infrared  # on the CPU, where augmentation is drawn
        images = training.augment(batch.images.to(device, non_blocking=True), infrared)
        labels = batch.labels.to(device, non_blocking=True)
        logits, losses = forward(images, labels, infrared.to(device, non_blocking=True))
        training.precision.step(sum(losses.values()), training.optimizer)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        return {"cls_acc": accuracy, **{name: loss.detach() for name, loss in losses.items()}}

    return step


class FiniteLoss:
    """Stops a training whose loss became NaN or infinite, and says in which batch it did first.

    Looks at every loss on the device and asks the device only now and then, since each question waits for it.
    """

    def __init__(self, training: Training):
        self.sampler = training.loader.batch_sampler
        self.paths = getattr(training.loader.dataset, "paths", None)
        self.first = torch.zeros((), dtype=torch.long, device=training.device)  # iteration of the epoch, from 1

    def attach(self, trainer: Engine, *, every: int) -> None:
        trainer.add_event_handler(Events.EPOCH_STARTED, self._restart)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._look)
        trainer.add_event_handler(Events.ITERATION_COMPLETED(every=every), self._ask)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._ask)

    def _restart(self, _: Engine) -> None:
        self.done = 0

    def _look(self, engine: Engine) -> None:
        self.done += 1
        lost = ~torch.stack([loss.isfinite() for loss in engine.state.output.values()]).all()
        self.first = torch.where((self.first == 0) & lost, self.done, self.first)

    def _ask(self, engine: Engine) -> None:
        number = int(self.first)
        if number:
            batch = self.sampler.batches[number - 1].tolist()
            images = f"; its first images: {', '.join(self.paths[batch[:4]])}" if self.paths is not None else ""
            raise UserError(
                f"training stopped in epoch {engine.state.epoch}: a loss is not finite in iteration {number}{images};"
                " lower lr, or set fp16 false or amp_dtype bfloat16"
            )


def attach_schedule(trainer: Engine, optimizer: Optimizer, lr_step: list[int]) -> None:
    """Multiply the learning rate by 0.1 when the listed epochs have been completed."""
    scheduler = LRScheduler(MultiStepLR(optimizer, milestones=lr_step, gamma=DECAY))
    # ignite's first call leaves the rate alone, so that at the start of epoch e it is that of e - 1 completed epochs;
    # at the end of an epoch it would come one epoch late
    trainer.add_event_handler(Events.EPOCH_STARTED, scheduler)


def _attach_epoch_figures(trainer: Engine, training: Training, log: EpochLog) -> None:
    names = ("cls_acc", *training.criterion.names)
    for name in names:
        Average(output_transform=lambda output, name=name: output[name], device=training.device).attach(trainer, name)
    timer = Timer()
    timer.attach(trainer, start=Events.EPOCH_STARTED, resume=Events.EPOCH_STARTED, pause=Events.EPOCH_COMPLETED)

    @trainer.on(Events.EPOCH_COMPLETED)
    def collect(engine: Engine) -> None:
        seconds = timer.value()
        images = sum(map(len, training.loader.batch_sampler.batches))
        log.figures = {
            "epoch": engine.state.epoch,
            "lr": training.optimizer.param_groups[0]["lr"],
            "seconds": round(seconds, 3),
            "images_per_second": round(images / seconds, 1),
            **{name: float(engine.state.metrics[name]) for name in names},
        }
        logger.info("epoch %d done: %s", engine.state.epoch, _describe(log.figures))


def _attach_iteration_log(trainer: Engine, period: int) -> None:
    done = 0  # iterations of the epoch; ignite counts those of the run

    @trainer.on(Events.EPOCH_STARTED)
    def restart(_: Engine) -> None:
        nonlocal done
        done = 0

    @trainer.on(Events.ITERATION_COMPLETED)
    def log_iteration(engine: Engine) -> None:
        nonlocal done
        done += 1
        if done % period == 0:
            losses = {name: value.item() for name, value in engine.state.output.items()}
            logger.info("epoch %d [%d/%d] %s", engine.state.epoch, done, engine.state.epoch_length, _describe(losses))


def _attach_board(board: TensorboardLogger, trainer: Engine, training: Training, period: int, log: EpochLog) -> None:
    board.attach_output_handler(
        trainer, Events.ITERATION_COMPLETED(every=period), tag="train", output_transform=lambda output: output
    )
    board.attach_opt_params_handler(trainer, Events.EPOCH_STARTED, optimizer=training.optimizer)


def _evaluate(engine: Engine, model: nn.Module, schedule: Schedule, log: EpochLog, best: Callable) -> None:
    if not schedule.evaluates(engine.state.epoch):
        return
    figures = schedule.evaluate(model)
    log.figures |= {name: getattr(figures, name) for name in TESTED}
    logger.info("epoch %d test: %s", engine.state.epoch, _describe(figures._asdict()))
    if figures.rank1 > log.best_rank1:
        log.best_epoch, log.best_rank1 = engine.state.epoch, figures.rank1
    best(engine)


def _write_epoch(engine: Engine, path: Path, log: EpochLog, board: TensorboardLogger) -> None:
    append_row(path, log.figures)
    for name in TESTED:
        if name in log.figures:
            board.writer.add_scalar(f"test/{name}", log.figures[name], engine.state.epoch)


def append_row(path: Path, figures: dict[str, float]) -> None:
    """Append one row of ``CSV_FIELDS``, flushed to the disk; what is not measured stays empty."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, CSV_FIELDS)
        if new:
            writer.writeheader()
        writer.writerow(figures)
        file.flush()
        os.fsync(file.fileno())


def _describe(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in figures.items() if name != "epoch")


def _short(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) and abs(value) < 0.01 else f"{value:.3f}".rstrip("0").rstrip(".")
