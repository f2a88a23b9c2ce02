"""A run of ``main.py`` as a job of submitit. This module imports little, because each job loads it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from submitit.helpers import Checkpointable, DelayedSubmission

from utils.run.errors import UserError
from utils.run.files import FolderLock
from utils.run.folder import CONDITIONS, RESULTS, has_states

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = "output.txt"  # what the runs of a job printed
POLL_SECONDS = 1.0


class MainProgram(Checkpointable):
    """Begin or continue a run; submitit calls it in a process of its own. It returns the exit code.

    The run is in a session of its own, so that ctrl-C in a terminal does not reach it: it gets one SIGTERM, saves its
    training state and ends.

    Args:
        folder: ``output_dir`` of the run.
        new: the arguments of ``main.py`` that begin the run.
        gpu: the argument ``--gpu``.
        slurm: whether the job runs on a SLURM cluster.
    """

    def __init__(self, folder: Path, new: list[str], gpu: str, *, slurm: bool):
        self.folder, self.new, self.gpu, self.slurm = folder, new, gpu, slurm
        self.visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # submitit changes it on this machine
        self.process: subprocess.Popen | None = None
        self.stopped = False

    def __call__(self) -> int:
        signal.signal(signal.SIGTERM, lambda *_: self.stop())
        self.folder.mkdir(parents=True, exist_ok=True)
        self.wait_for_lock()
        environment = dict(os.environ)
        if not self.slurm:
            environment.pop("CUDA_VISIBLE_DEVICES", None)
            environment |= {} if self.visible is None else {"CUDA_VISIBLE_DEVICES": self.visible}
        arguments = continuation(self.folder, self.gpu) or self.new
        command = [sys.executable, "main.py", *arguments]
        with (self.folder / OUTPUT).open("ab") as output:
            if self.stopped:
                return 128 + signal.SIGTERM
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
            )
            return self.process.wait()

    def stop(self) -> None:
        self.stopped = True
        if self.process:
            self.process.terminate()

    def checkpoint(self) -> DelayedSubmission:
        """SLURM preempts the job, or its time is up: stop the run; submitit queues the job again."""
        self.stop()
        if self.process:
            self.process.wait()
        return DelayedSubmission(MainProgram(self.folder, self.new, self.gpu, slurm=self.slurm))

    def wait_for_lock(self) -> None:
        """Wait for the end of an earlier process of this run, whose job was killed."""
        while (run := run_folder(self.folder)) and not self.stopped:
            try:
                FolderLock(run).release()
                return
            except UserError:
                time.sleep(POLL_SECONDS)


def continuation(folder: Path, gpu: str) -> list[str] | None:
    """Arguments of ``main.py`` that continue the run below ``folder``; None if there is none that can be continued."""
    run = run_folder(folder)
    return ["--continue", str(run), "--gpu", gpu] if run and has_states(run) else None


def run_folder(folder: Path) -> Path | None:
    """The newest run folder below ``folder`` that is complete, or else the newest one."""
    runs = sorted(path.parent for path in folder.glob(f"*/*/{CONDITIONS}"))
    complete = [run for run in runs if (run / RESULTS).is_file()]
    return next(reversed(complete or runs), None)
