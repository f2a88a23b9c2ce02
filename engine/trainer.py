"""The training loop."""

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ignite.engine import Engine, Events
from torch import nn

from engine.checkpoints import BEST, keep_recent, save_state
from engine.data_wait import DataWait
from engine.evaluator import Evaluation
from engine.finite import FiniteLoss
from engine.progress import Pace, Progress
from engine.report import METRICS_FILE, Report, write_rows
from engine.state import OptimizerState, RandomStates, States, Threads
from engine.step import Training, build_step
from utils.results import TrialScore
from utils.run.errors import LoaderDied, Stopped, UserError
from utils.run.folder import has_states
from utils.run.interruption import Interruption

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """Number of epochs, learning rate, and when to log, evaluate and save. Epochs count from 1."""

    lr: float
    lr_step: list[int]  # completed epochs after which the learning rate is multiplied by lr_decay
    num_epoch: int
    log_period: int  # iterations
    start_eval: int
    eval_interval: int  # 0: never
    evaluate: Callable[[nn.Module], Evaluation]  # of the model on the test set
    checkpoint_minutes: float = 0.0  # between training states within an epoch; 0: only at the end of epochs
    lr_decay: float = 0.1
    warmup_epochs: int = 0  # in epoch e of these, the learning rate is multiplied by e / warmup_epochs
    select_by: str = "rank1"  # metric of the best model, a field of TrialScore; "last": the last model is the best

    def learning_rate(self, epoch: int) -> float:
        rate = self.lr
        for step in self.lr_step:
            rate = rate * self.lr_decay if step < epoch else rate
        return rate * epoch / self.warmup_epochs if epoch <= self.warmup_epochs else rate

    def evaluates(self, epoch: int) -> bool:
        return self.eval_interval > 0 and epoch >= self.start_eval and epoch % self.eval_interval == 0


def train(training: Training, schedule: Schedule, folder: Path) -> int | None:
    """Train to the last epoch; models, metrics, curves and training states go to ``folder``.

    Continues from the newest intact state in ``folder`` if there is one. On a CPU the result is the same, bit for bit,
    as without the interruption.

    Returns:
        The epoch of the best model, None if no epoch was evaluated.

    Raises:
        UserError: a loss became NaN or infinite, a file cannot be written, or no state is intact.
        Stopped: SIGINT or SIGTERM; the step was finished and a state written.
    """
    return Trainer(training, schedule, folder).run()


class Trainer:
    """The training loop; see :func:`train`. ``run`` reads from top to bottom."""

    def __init__(self, training: Training, schedule: Schedule, folder: Path):
        self.training, self.schedule, self.folder = training, schedule, folder
        self.sampler = training.sampler
        self.progress, self.pace = Progress(), Pace()
        self.data_wait = DataWait(training.device)
        self.interruption = Interruption()
        self.finite = FiniteLoss(self.sampler, training.dataset.paths, self.progress, training.device)
        self.states = States(
            folder,
            {
                "model": training.model,
                "optimizer": OptimizerState(training.optimizer),
                "precision": training.precision,
                "augment": training.augment,
                "progress": self.progress,
                "data_wait": self.data_wait,
                "random": RandomStates(),
                "threads": Threads(training.device),
            },
            images=training.dataset.fingerprint,
        )

    def run(self) -> int | None:
        if has_states(self.folder):
            self.restore()
        else:
            self.save()
        self.step = build_step(self.training)
        self.report = Report(self.folder, first_iteration=self.progress.iteration + 1)
        with closing(self.report), closing(self.training.loader), self.interruption.noted():
            try:
                while self.progress.epoch <= self.schedule.num_epoch:
                    self.set_learning_rate()
                    self.run_epoch()
                    row = self.epoch_metrics()
                    self.report.log_epoch(row, iteration=self.progress.iteration)
                    if self.schedule.evaluates(self.progress.epoch):
                        row |= self.evaluate()
                    self.record(row)
                    self.save()
                    self.stop_if_signalled()
            except LoaderDied as error:
                self.save_after_dead_loader()
                raise UserError(f"{error}; continue with: python main.py --continue {self.folder}") from None
        return self.progress.best.epoch if self.progress.best else None

    def restore(self) -> None:
        """Load the newest state. Rewrite ``metrics.csv`` and ``best.pth`` from it: they may be newer than the state."""
        path = self.states.restore()
        progress = self.progress
        logger.info("continuing from %s: epoch %d after %d iterations", path.name, progress.epoch, progress.done)
        if progress.best:
            save_state(progress.best.weights, self.folder / BEST)
        else:
            (self.folder / BEST).unlink(missing_ok=True)
        write_rows(self.folder / METRICS_FILE, progress.rows)

    def set_learning_rate(self) -> None:
        rate = self.schedule.learning_rate(self.progress.epoch)
        for group in self.training.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_factor", 1)

    def run_epoch(self) -> None:
        """Train on the batches of the epoch that are not done yet."""
        self.sampler.set_epoch(self.progress.epoch)
        self.sampler.start = self.progress.done
        if not len(self.sampler):  # the state was written after the last batch
            return
        engine = Engine(lambda engine, batch: self.step(batch))
        self.data_wait.attach(engine)
        self.progress.start_clock()
        self.pace.start_period(self.progress.iteration)
        with self.report.bar(self.epoch_name(), done=self.progress.done, batches=len(self.sampler.batches)) as bar:
            engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: bar.update())
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.after_step)
            engine.run(self.training.loader, epoch_length=len(self.sampler))
        self.finite.require(self.folder)  # waits for the device
        self.progress.stop_clock()

    def after_step(self, engine: Engine) -> None:
        """Count, check, log and save; stop if a signal came."""
        progress, values = self.progress, engine.state.output
        progress.add(values)
        self.finite.check(values)
        log_now = progress.done % self.schedule.log_period == 0
        save_now = self.state_is_due() or self.interruption.received
        if log_now or save_now:
            self.finite.require(self.folder)  # a state with NaN weights would be useless
        if log_now:
            self.log_period()
        if save_now:
            self.save()
        self.stop_if_signalled()

    def log_period(self) -> None:
        """Report the last ``log_period`` iterations, and how long the rest may take."""
        progress, batches = self.progress, len(self.sampler.batches)
        means = progress.end_period()  # waits for the device
        steps_per_second = self.pace.end_period(progress.iteration)
        values = {
            **means,
            "lr": self.training.optimizer.param_groups[0]["lr"],
            "images_per_second": steps_per_second * self.sampler.batches.shape[1],
        }
        where = f"{self.epoch_name()} [{progress.done}/{batches}]"
        self.report.log_period(where, values, left=self.seconds_left(), iteration=progress.iteration)

    def epoch_name(self) -> str:
        return f"epoch {self.progress.epoch}/{self.schedule.num_epoch}"

    def seconds_left(self) -> tuple[float, float]:
        """Of the epoch and of the training, if the epochs to come have as many batches as this one."""
        epoch, num_epoch, batches = self.progress.epoch, self.schedule.num_epoch, len(self.sampler.batches)
        steps = batches - self.progress.done
        evaluations = sum(map(self.schedule.evaluates, range(epoch, num_epoch + 1)))
        return self.pace.seconds(steps), self.pace.seconds(steps + (num_epoch - epoch) * batches, evaluations)

    def epoch_metrics(self) -> dict[str, float]:
        """Learning rate, seconds, images per second, share of the time waited for data, and the means of accuracy and
        losses over the epoch."""
        waited, seconds = self.data_wait.seconds(), self.progress.elapsed()
        images = self.sampler.batches.size
        return {
            "epoch": self.progress.epoch,
            "lr": self.schedule.learning_rate(self.progress.epoch),
            "seconds": round(seconds, 3),
            "images_per_second": round(images / seconds, 1),
            "data_wait": round(waited / seconds, 3),
            **self.progress.epoch_averages.means(),
        }

    def evaluate(self) -> dict[str, float]:
        """Metrics of the model on the test set, in percent. Keeps the model if it is the best so far."""
        if self.state_is_due():
            self.save()
        try:
            with self.interruption.immediate(), self.pace.evaluation():  # it may take minutes and changes nothing
                score, picture = self.schedule.evaluate(self.training.model)
        except Stopped:
            self.save()
            raise
        if self.schedule.select_by != "last":
            self.keep_if_best(getattr(score, self.schedule.select_by))
        self.report.log_evaluation(self.progress.epoch, score, best=self.best_so_far(score), picture=picture)
        return score._asdict()

    def keep_if_best(self, value: float) -> None:
        """Keep the model if ``value`` is the best so far."""
        if self.progress.is_best(value):
            best = self.progress.set_best(value, self.training.model)
            save_state(best.weights, self.folder / BEST)

    def best_so_far(self, score: TrialScore) -> tuple[int, TrialScore] | None:
        """Epoch and metrics of the best model, after the current epoch got ``score``; None if no model is selected."""
        best, epoch = self.progress.best, self.progress.epoch
        if best is None:
            return None
        if best.epoch == epoch:
            return epoch, score
        row = self.progress.rows[best.epoch - 1]
        return best.epoch, TrialScore(*(row[name] for name in TrialScore._fields))

    def record(self, row: dict[str, float]) -> None:
        """Write the epoch's metrics and model."""
        keep_recent(self.training.model, self.folder, self.progress.epoch)
        self.progress.end_epoch(row)
        self.data_wait.reset()
        write_rows(self.folder / METRICS_FILE, self.progress.rows)

    def save(self) -> None:
        self.states.save(self.progress.iteration)

    def state_is_due(self) -> bool:
        return 0 < self.schedule.checkpoint_minutes <= self.states.minutes_since_save()

    def save_after_dead_loader(self) -> None:
        """The loader failed between two steps, or in an evaluation, so the state is consistent."""
        self.finite.require(self.folder)
        self.save()
        self.stop_if_signalled()

    def stop_if_signalled(self) -> None:
        if self.interruption.received:
            raise Stopped(self.interruption.received)
