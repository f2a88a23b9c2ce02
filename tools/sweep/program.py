"""A run of ``main.py`` as a job of submitit. This module imports little, because each job loads it."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from submitit.helpers import Checkpointable, DelayedSubmission

from utils.run.errors import FolderInUse
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
        arguments: of ``main.py``, if there is no run to continue when the job starts.
        gpu: the argument ``--gpu``.
        changes: overrides for a run that is continued, as ``KEY VALUE ...``.
        slurm: whether the job runs on a SLURM cluster.
    """

    def __init__(self, folder: Path, arguments: list[str], gpu: str, changes: list[str], *, slurm: bool):
        self.folder, self.arguments, self.gpu, self.changes, self.slurm = folder, arguments, gpu, changes, slurm
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
        arguments = continuation(self.folder, self.gpu, self.changes) or self.arguments
        with (self.folder / OUTPUT).open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "main.py"), *arguments],
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=ignore_user_signals,
            )
        if self.stopped:  # before there was a process
            self.process.terminate()
        return self.process.wait()

    def stop(self) -> None:
        self.stopped = True
        if self.process:
            self.process.terminate()

    def checkpoint(self) -> DelayedSubmission:
        """SLURM preempts the job, or its time is up: stop the run; submitit queues the job again.

        submitit calls this in a signal handler while ``__call__`` is in ``Popen.wait``, which cannot be entered twice.
        """
        self.stop()
        if self.process:
            with suppress(ChildProcessError):  # it has ended
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(MainProgram(self.folder, self.arguments, self.gpu, self.changes, slurm=self.slurm))

    def wait_for_lock(self) -> None:
        """Wait for the end of an earlier process of this run, whose job was killed."""
        while (run := run_folder(self.folder)) and not self.stopped:
            try:
                FolderLock(run).release()
                return
            except FolderInUse:
                time.sleep(POLL_SECONDS)


def ignore_user_signals() -> None:
    """SLURM sends the signal that calls ``checkpoint`` to the run, too, and it would end the run at once."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def continuation(folder: Path, gpu: str, changes: list[str]) -> list[str] | None:
    """Arguments of ``main.py`` that continue the run below ``folder``; None if there is none that can be continued."""
    run = run_folder(folder)
    return ["--continue", str(run), "--gpu", gpu, *changes] if run and has_states(run) else None


def run_folder(folder: Path) -> Path | None:
    """The newest run folder below ``folder`` that is complete, or else the newest one."""
    runs = sorted(path.parent for path in folder.glob(f"*/*/{CONDITIONS}"))
    complete = [run for run in runs if (run / RESULTS).is_file()]
    return next(reversed(complete or runs), None)
