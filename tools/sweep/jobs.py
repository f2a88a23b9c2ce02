"""Run the jobs of a sweep with submitit: on this machine, or on a SLURM cluster."""

import csv
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import submitit
from submitit.core.utils import FailedJobError

from engine.report import METRICS_FILE
from tools.sweep.plan import Job
from tools.sweep.program import OUTPUT, POLL_SECONDS, MainProgram
from utils.run.errors import Stopped, UserError, reason
from utils.run.interruption import Interruption

MONTH = 60 * 24 * 30  # minutes; submitit ends a job after two minutes unless it is told otherwise

MAX_REQUEUES = 100  # of a run whose time on SLURM is up


@dataclass
class Running:
    """A job that was submitted."""

    job: Job
    handle: submitit.Job
    gpu: str
    started: float
    epochs: int  # of the run
    first: int  # completed when it was submitted
    epoch: int  # completed now

    def whole_run(self, epoch: int) -> float | None:
        """Seconds that all epochs take, given that ``epoch`` of them are completed; None: not known yet."""
        if epoch <= self.first:
            return None
        return (time.monotonic() - self.started) * self.epochs / (epoch - self.first)


def build_executor(folder: Path, slurm: str) -> submitit.AutoExecutor:
    """An executor for this machine or, given ``PARTITION,time=MINUTES[,KEY=VALUE...]``, for SLURM."""
    if not slurm:
        executor = submitit.AutoExecutor(folder, cluster="local")
        executor.update_parameters(timeout_min=MONTH)
        return executor
    partition, *words = slurm.split(",")
    options = dict(word.split("=", 1) for word in words if "=" in word)
    if not partition or not all(options.values()) or len(options) < len(words):
        raise UserError(f"--slurm: {slurm} should be PARTITION,time=MINUTES[,KEY=VALUE...]")
    if not options.get("time", "").isdecimal():
        raise UserError(f"--slurm: {slurm} should have time=MINUTES of a run, a whole number such as time=1440")
    parameters = {
        f"slurm_{key.replace('-', '_')}": int(value) if value.isdecimal() else value for key, value in options.items()
    }
    try:
        executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=MAX_REQUEUES)
        executor.update_parameters(**{"slurm_partition": partition, "slurm_gpus_per_node": 1} | parameters)
    except (RuntimeError, NameError) as error:  # no srun; an option that submitit does not know
        raise UserError(f"--slurm: {str(error).splitlines()[0]}") from None
    return executor


class Watch:
    """Run jobs, ``slots`` at a time, and report what happens.

    Args:
        jobs: those that are not complete.
        slots: the ``--gpu`` of each job that may run at the same time.
    """

    def __init__(self, executor: submitit.AutoExecutor, jobs: Sequence[Job], slots: Sequence[str]):
        self.executor, self.waiting, self.free = executor, list(jobs), list(slots)
        self.interruption = Interruption()
        self.running: list[Running] = []
        self.failed: list[str] = []
        self.total, self.slots = len(jobs), len(slots)
        self.seconds: list[float] = []  # that a whole run takes, of the jobs that ended well

    def run(self) -> list[str]:
        """Run all jobs. Returns a line for each that failed.

        Raises:
            Stopped: by a signal. The jobs were stopped, too.
        """
        with self.interruption.noted():
            try:
                while self.waiting or self.running:
                    while self.waiting and self.free and not self.interruption.received:
                        self.submit(self.waiting.pop(0), self.free.pop(0))
                    if self.interruption.received:
                        raise Stopped(self.interruption.received)
                    time.sleep(POLL_SECONDS)
                    for running in list(self.running):
                        self.look(running)
            except BaseException:  # also if a job cannot be submitted
                self.stop_all()
                raise
        return self.failed

    def submit(self, job: Job, gpu: str) -> None:
        arguments = job.command(gpu)
        how = "continued" if arguments[0] == "--continue" else "started"
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the job's processes inherit it: see MainProgram
        try:
            slurm = self.executor.cluster == "slurm"
            handle = self.executor.submit(MainProgram(job.folder, arguments, gpu, job.changes, slurm=slurm))
        except FailedJobError as error:
            raise UserError(f"sbatch: {reason(error)}") from None
        finally:
            signal.signal(signal.SIGINT, before)
        epochs, epoch = job.config().num_epoch, completed_epochs(job)
        self.running.append(Running(job, handle, gpu, time.monotonic(), epochs, epoch, epoch))
        self.say(f"{job.name}: {how}")

    def look(self, running: Running) -> None:
        """Report a new epoch, or the end of a job."""
        epoch = completed_epochs(running.job)
        if epoch > running.epoch:
            running.epoch = epoch
            self.say(f"{running.job.name}: epoch {epoch} of {running.epochs}{self.time_left()}")
        if not running.handle.done():
            return
        self.running.remove(running)
        self.free.append(running.gpu)
        if running.job.is_complete():
            if estimate := running.whole_run(running.epochs):
                self.seconds.append(estimate)
            self.say(f"{running.job.name}: done{self.time_left()}")
        else:
            line = f"{running.job.name}: failed: {last_line(running)}"
            self.failed.append(line)
            self.say(line)

    def say(self, text: str) -> None:
        ended = self.total - len(self.waiting) - len(self.running)
        print(f"[{ended}/{self.total}] {text}", flush=True)

    def time_left(self) -> str:
        """An estimate from the jobs that ended or, before the first has, from the epochs of those that run."""
        whole = self.seconds or [seconds for one in self.running if (seconds := one.whole_run(one.epoch))]
        jobs = len(self.waiting) + len(self.running)
        if not whole or not jobs:
            return ""
        left = len(self.waiting) + sum(1 - one.epoch / max(1, one.epochs) for one in self.running)  # whole runs
        minutes = left * sum(whole) / len(whole) / min(self.slots, jobs) / 60
        return f"; about {minutes:.0f} min left" if minutes >= 1 else "; less than a minute left"

    def stop_all(self) -> None:
        """Stop the jobs and wait until their training states are saved."""
        print(f"stopping {len(self.running)} jobs", flush=True)
        for running in self.running:
            if isinstance(running.handle, submitit.LocalJob):
                with suppress(ProcessLookupError):  # it has just ended
                    os.kill(int(running.handle.job_id), signal.SIGTERM)  # cancel() would kill it after a second
            else:
                running.handle.cancel()
        while any(not running.handle.done(force_check=True) for running in self.running):
            time.sleep(POLL_SECONDS)


def completed_epochs(job: Job) -> int:
    run = job.run_folder()
    if not run or not (run / METRICS_FILE).is_file():
        return 0
    with (run / METRICS_FILE).open() as file:
        return len(list(csv.DictReader(file)))


def last_line(running: Running) -> str:
    """The last line that the run printed, or that submitit did."""
    for path in (running.job.folder / OUTPUT, Path(running.handle.paths.stderr)):
        if path.is_file():
            lines = path.read_text(errors="replace").strip().splitlines()
            if lines:
                return lines[-1]
    return f"it printed nothing; see {running.handle.paths.stderr}"
