"""Make an environment ready to run MCJA: ``python tools/setup_environment.py DIR``. Needs nothing but Python itself.

Creates DIR as a virtual environment if it is not one, installs ``requirements.txt``, and builds torchsort against the
installed torch. A torchsort that cannot be built is no failure: the built-in soft rank takes its place. Once done, it
does nothing until something it depends on changes, or with ``--again``.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"
TORCHSORT = "torchsort>=0.1.10"
OLDEST_PYTHON = (3, 10)
NOTICE = """
notice: torchsort could not be built (log: {log}).
        The built-in soft rank is used instead; it gives the same ranks and needs no compiler.
        `make setup` tries again.
"""


def main(folder: Path, *, again: bool = False) -> int:
    if sys.version_info < OLDEST_PYTHON:
        print(
            f"error: Python {'.'.join(map(str, OLDEST_PYTHON))} or newer is needed, this is {sys.version.split()[0]};"
            " set PYTHON",
            file=sys.stderr,
        )
        return 2
    python = folder / "bin" / "python"
    stamp = folder / ".mcja-ready"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + Path(__file__).read_bytes()).hexdigest()
    if not again and python.exists() and stamp.exists() and stamp.read_text().strip() == wanted:
        return 0
    try:
        if not python.exists():
            print(f"creating the environment {folder}", flush=True)
            create(folder)
        print(f"installing {REQUIREMENTS.name} into {folder}; a first time takes some minutes", flush=True)
        pip(python, "install", "--quiet", "-r", str(REQUIREMENTS))
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"error: {folder} could not be set up: {error}; remove it to start afresh", file=sys.stderr)
        return 2
    if not imports(python, "torchsort"):
        build_torchsort(python)
    with contextlib.suppress(OSError):  # an environment that only others may write to is checked again next time
        stamp.write_text(wanted + "\n")
    return 0


def create(folder: Path) -> None:
    """A virtual environment with pip; a half-made one is removed again."""
    try:
        venv.create(folder, with_pip=True)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, subprocess.CalledProcessError):  # Debian's Python comes without what makes pip
            raise OSError("Python's venv module is incomplete; install it (Debian: apt install python3-venv)") from None
        raise


def pip(python: Path, *arguments: str, **options: object) -> None:
    quiet = ("--disable-pip-version-check", "--no-input")
    subprocess.run([str(python), "-m", "pip", *quiet, *arguments], check=True, **options)


def imports(python: Path, module: str) -> bool:
    # torch first: the extension modules need its libraries
    return subprocess.run([str(python), "-c", f"import torch, {module}"], capture_output=True).returncode == 0


def build_torchsort(python: Path) -> None:
    """With its CUDA kernel where a GPU and a compiler are there and it builds, else for the CPU, else not at all."""
    print("building torchsort (about a minute)", flush=True)
    log = Path(tempfile.gettempdir()) / f"torchsort-build-{os.getpid()}.log"
    with log.open("wb") as output, tempfile.TemporaryDirectory() as shadows:
        environments = [without_nvcc(Path(shadows))]
        if sees_gpu(python) and shutil.which("nvcc"):
            environments.insert(0, dict(os.environ))
        for environment in environments:
            # the programs of the environment, such as ninja, come first
            environment["PATH"] = os.pathsep.join([str(python.parent.resolve()), environment.get("PATH", "")])
            try:
                pip(python, "install", "--quiet", "wheel", "setuptools", stdout=output, stderr=output)
                # no isolation: it compiles against the torch that is installed
                arguments = (
                    "install",
                    "--no-build-isolation",
                    "--no-deps",
                    "--no-cache-dir",
                    "--force-reinstall",
                    TORCHSORT,
                )
                pip(python, *arguments, env=environment, stdout=output, stderr=output)
            except (subprocess.CalledProcessError, OSError):
                continue
            if imports(python, "torchsort"):
                log.unlink()
                return
    print(NOTICE.format(log=log), flush=True)


def sees_gpu(python: Path) -> bool:
    check = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([str(python), "-c", check], capture_output=True).returncode == 0


def without_nvcc(shadows: Path) -> dict[str, str]:
    """The environment with no CUDA compiler in sight: without a complete toolkit it would make the build fail.

    A folder on the path that holds ``nvcc`` may hold the C++ compiler, too, so a copy of links to all but ``nvcc``,
    made below ``shadows``, takes its place.
    """
    environment = {name: value for name, value in os.environ.items() if name not in ("CUDA_HOME", "CUDA_PATH")}
    folders = []
    for number, folder in enumerate(environment.get("PATH", "").split(os.pathsep)):
        if not (Path(folder) / "nvcc").exists():
            folders.append(folder)
            continue
        shadow = shadows / str(number)
        shadow.mkdir()
        for program in Path(folder).iterdir():
            if program.name != "nvcc":
                (shadow / program.name).symlink_to(program.resolve())
        folders.append(str(shadow))
    environment["PATH"] = os.pathsep.join(folders)
    return environment


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--again"]
    if len(words) != 1:
        sys.exit("usage: python tools/setup_environment.py [--again] DIR")
    try:
        sys.exit(main(Path(words[0]), again="--again" in sys.argv))
    except KeyboardInterrupt:
        sys.exit(130)
