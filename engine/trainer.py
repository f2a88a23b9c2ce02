"""The trainer: a short step, and what happens around it."""

import logging
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar, TensorboardLogger
from torch import Tensor, nn
from torch.optim import Optimizer

from data.augment import BatchAugment
from data.datasets.base import Batch
from data.loaders import Loader
from data.transfer import send
from engine.checkpoints import BEST, keep_recent, save_state
from engine.finite import FiniteLoss
from engine.precision import ApexPrecision, TorchPrecision
from engine.progress import TESTED, Progress, describe, write_rows
from engine.state import RandomStates, States, Threads
from losses.criterion import Criterion
from utils.results import TrialScore
from utils.run.errors import LoaderDied, Stopped, UserError
from utils.run.interruption import Interruption

logger = logging.getLogger(__name__)

DECAY = 0.1  # of the learning rate at each step


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
    checkpoint_minutes: float = 0.0  # between training states within an epoch; 0: none there

    def evaluates(self, epoch: int) -> bool:
        return self.eval_interval > 0 and epoch >= self.start_eval and epoch % self.eval_interval == 0


def train(training: Training, schedule: Schedule, folder: Path, *, continued: bool = False) -> int | None:
    """Train to the last epoch, keeping models, figures, curves and training states in ``folder``.

    Args:
        continued: go on from the newest intact state in ``folder``, to the same end, bit for bit on a CPU.

    Returns:
        The epoch of the best model, None where no epoch was evaluated.

    Raises:
        UserError: a loss became NaN or infinite, a file cannot be written, or there is no state to go on from.
        Stopped: SIGINT or SIGTERM came; the step was finished and a state written.
    """
    model, progress, interruption = training.model, Progress(), Interruption()
    trainer = build_trainer(training, progress)
    attach_schedule(trainer, training.optimizer, schedule.lr_step)  # before a state brings a rate that has fallen
    states = States(
        folder,
        {
            "model": model,
            "optimizer": training.optimizer,
            "precision": training.precision,
            "augment": training.augment,
            "progress": progress,
            "random": RandomStates(),
            "threads": Threads(training.device),
        },
        images=getattr(training.loader.dataset, "fingerprint", ""),
    )
    if continued:
        path = states.restore()
        logger.info("going on from %s: epoch %d after %d iterations", path.name, progress.epoch, progress.done)
        _rewrite_results(progress, folder)
    else:
        states.save(progress.iteration)

    finite = FiniteLoss(training.loader, progress, folder, training.device)
    saved = time.monotonic()

    def save() -> None:
        nonlocal saved
        states.save(progress.iteration)
        saved = time.monotonic()

    def due() -> bool:
        return 0 < 60 * schedule.checkpoint_minutes <= time.monotonic() - saved

    def end_if_asked() -> None:
        if interruption.received:
            raise Stopped(interruption.received)

    @trainer.on(Events.ITERATION_COMPLETED)
    def watch(engine: Engine) -> None:
        finite.look(engine)
        logs = progress.done % schedule.log_period == 0
        saves = due() or interruption.received
        if logs or saves:
            finite.ask()
        if logs:
            values = {name: value.item() for name, value in engine.state.output.items()}
            total = len(training.loader.batch_sampler.batches)
            logger.info("epoch %d [%d/%d] %s", progress.epoch, progress.done, total, describe(values))
            for name, value in values.items():  # here, where the device has been waited for
                board.writer.add_scalar(f"train/{name}", value, engine.state.iteration)
        if saves:
            save()
        end_if_asked()

    @trainer.on(Events.EPOCH_COMPLETED)
    def complete(engine: Engine) -> None:
        finite.ask()
        epoch, figures = progress.epoch, _epoch_figures(training, progress)
        logger.info("epoch %d done: %s", epoch, describe(figures))
        if schedule.evaluates(epoch):
            if due():
                save()
            try:
                with interruption.immediate():  # it may take minutes, and changes nothing
                    tested = schedule.evaluate(model)
            except Stopped:
                save()
                raise
            figures |= {name: getattr(tested, name) for name in TESTED}
            logger.info("epoch %d test: %s", epoch, describe(tested._asdict()))
            if progress.consider(epoch, tested, model):
                save_state(progress.best.weights, folder / BEST)
        progress.rows.append(figures)
        write_rows(folder / "metrics.csv", progress.rows)
        for name in TESTED:
            if name in figures:
                board.writer.add_scalar(f"test/{name}", figures[name], epoch)
        keep_recent(model, folder, epoch)
        progress.begin(epoch + 1)
        save()
        end_if_asked()

    ProgressBar(persist=False, disable=None).attach(trainer)
    # what an earlier process wrote after the state that this one goes on from does not count
    board = TensorboardLogger(log_dir=str(folder / "tensorboard"), purge_step=progress.iteration + 1)
    with closing(board), closing(training.loader), interruption.noted():
        board.attach_opt_params_handler(trainer, Events.EPOCH_STARTED, optimizer=training.optimizer)
        try:
            trainer.run(training.loader, max_epochs=schedule.num_epoch, epoch_length=len(training.loader))
        except LoaderDied as error:  # between two steps, or in an evaluation
            finite.ask()
            save()
            end_if_asked()
            raise UserError(f"{error}; go on with: python main.py --continue {folder}") from None
    return progress.best.epoch if progress.best else None


def build_trainer(training: Training, progress: Progress | None = None) -> Engine:
    """An engine whose every epoch is exactly the sampler's list for it; its output is the named losses and accuracy.

    It begins where ``progress`` is.
    """
    trainer = Engine(train_step(training))
    progress = progress or Progress()
    sampler = training.loader.batch_sampler

    @trainer.on(Events.STARTED)
    def go_on(engine: Engine) -> None:
        engine.state.epoch, engine.state.iteration = progress.epoch - 1, progress.iteration
        engine.state.epoch_length = None
        if progress.done:
            sampler.set_epoch(progress.epoch)
            if progress.done == len(sampler):  # only the end of the epoch is left
                engine.state.epoch = progress.epoch
                engine.fire_event(Events.EPOCH_COMPLETED)

    @trainer.on(Events.EPOCH_STARTED)
    def fresh_epoch(engine: Engine) -> None:
        if not progress.done or engine.state.epoch != progress.epoch:
            progress.begin(engine.state.epoch)
        sampler.set_epoch(engine.state.epoch)
        sampler.start = progress.done
        # ignite would keep the first epoch's length and carry its iterator over
        engine.state.epoch_length = len(sampler)
        engine.set_data(training.loader)

    @trainer.on(Events.ITERATION_COMPLETED)
    def count(engine: Engine) -> None:
        progress.add(engine.state.output)

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
        forward = as_one_graph(forward)

    def step(engine: Engine, batch: Batch) -> dict[str, Tensor]:
        model.train()
        infrared = batch.is_infrared  # on the CPU, where augmentation is drawn
        images = training.augment(send(batch.images, device), infrared)
        labels = send(batch.labels, device)
        logits, losses = forward(images, labels, send(infrared, device))
        training.precision.step(sum(losses.values()), training.optimizer)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        return {"cls_acc": accuracy, **{name: loss.detach() for name, loss in losses.items()}}

    return step


def as_one_graph(function: Callable) -> Callable:
    """``function`` as one graph of fixed shape, compiled when it is first called.

    Raises:
        UserError: torch could not compile it, most often for want of a C++ compiler.
    """
    from torch._dynamo.exc import TorchDynamoException  # takes a second to import

    graph = torch.compile(function, fullgraph=True, dynamic=False)

    def call(*arguments):
        try:
            return graph(*arguments)
        except TorchDynamoException as error:
            why, _, _ = str(error).strip().partition("\n")
            raise UserError(f"compile: torch could not compile the step ({why}); set compile false") from None

    return call


def attach_schedule(trainer: Engine, optimizer: Optimizer, lr_step: list[int]) -> None:
    """Multiply the learning rate by 0.1 when the listed epochs have been completed."""
    rates = [group["lr"] for group in optimizer.param_groups]

    @trainer.on(Events.EPOCH_STARTED)
    def set_rates(engine: Engine) -> None:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            for step in lr_step:
                rate = rate * DECAY if step < engine.state.epoch else rate
            group["lr"] = rate


def _epoch_figures(training: Training, progress: Progress) -> dict[str, float]:
    seconds = progress.elapsed()
    images = sum(map(len, training.loader.batch_sampler.batches))
    return {
        "epoch": progress.epoch,
        "lr": training.optimizer.param_groups[0]["lr"],
        "seconds": round(seconds, 3),
        "images_per_second": round(images / seconds, 1),
        **progress.means(),
    }


def _rewrite_results(progress: Progress, folder: Path) -> None:
    """Have the files of figures and of the best model say what the state says, whatever came after it."""
    if progress.best:
        save_state(progress.best.weights, folder / BEST)
    else:
        (folder / BEST).unlink(missing_ok=True)
    write_rows(folder / "metrics.csv", progress.rows)
