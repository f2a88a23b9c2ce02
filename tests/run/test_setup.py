"""Set-up by the Makefile and tools/install_torchsort.sh, with a stand-in for Python that installs nothing."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = ("Makefile", "requirements.txt", "requirements-dev.txt", "tools/install_torchsort.sh")

# Writes its arguments to `calls`. Files say what works: pip, requirements, torchsort, gpu, cuda_build, cpu_build.
PYTHON = f"""#!/bin/sh
cd "$ROOT"
echo "$@" >>calls
case "$*" in
    *"import torch, torchsort"*) test -e torchsort ;;
    *torch.cuda.is_available*) test -e gpu ;;
    *version_info*) {sys.executable} -c "$2" ;;
    "-m venv "*) mkdir -p env/bin; cp "$0" env/bin/python; touch pip ;;
    "-m ensurepip") touch pip ;;
    *pip*" --version") test -e pip ;;
    *requirements-dev.txt) test -e requirements ;;
    *torchsort*)
        build=cpu_build
        command -v g++ && echo "found g++" >>calls
        command -v nvcc && echo "found nvcc" >>calls && build=cuda_build
        test -e $build && touch torchsort ;;
esac
"""


def write_program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Machine:
    """A folder with the set-up's files, the stand-in for Python, and nvcc and g++ in one folder of the PATH."""

    def __init__(self, root: Path):
        self.root = root
        for name in FILES:
            (root / name).parent.mkdir(exist_ok=True)
            shutil.copy(REPOSITORY / name, root / name)
        self.python = write_program(root / "python3", PYTHON)
        programs = root / "programs"
        for name in ("nvcc", "g++"):
            write_program(programs / name)
        for name in ("cp", "cat", "ln", "make", "mkdir", "mktemp", "rm", "sh", "touch"):
            (programs / name).symlink_to(shutil.which(name))

    def works(self, *names: str) -> None:
        for name in names:
            (self.root / name).touch()

    def run(self, *command: str) -> tuple[subprocess.CompletedProcess, list[str]]:
        """The finished command, and the calls of Python that it made."""
        environment = {"PATH": str(self.root / "programs"), "ROOT": str(self.root), "TMPDIR": str(self.root)}
        calls = self.root / "calls"
        calls.write_text("")
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=60)
        return done, calls.read_text().splitlines()

    def make(self, target: str = "environment") -> tuple[subprocess.CompletedProcess, list[str]]:
        return self.run("make", target, "VENV=env", f"PYTHON={self.python}")

    def install_torchsort(self) -> tuple[str, list[str]]:
        """What was printed, and the compilers that were found, build by build."""
        write_program(self.root / "env" / "bin" / "python", PYTHON)
        done, calls = self.run("sh", "tools/install_torchsort.sh", "env")
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        return done.stdout, [call for call in calls if call.startswith("found")]


@pytest.fixture
def machine(tmp_path):
    if shutil.which("make") is None:
        pytest.skip("needs make")
    return Machine(tmp_path)


def test_the_environment_is_made_once(machine):
    machine.works("requirements", "cpu_build")
    done, calls = machine.make()
    assert done.returncode == 0, done.stderr
    assert "-m venv env" in calls
    assert machine.make()[1] == []


def test_a_changed_requirement_is_installed(machine):
    machine.works("requirements", "cpu_build")
    machine.make()
    later = time.time() + 10  # make compares times of change, which may be equal within some milliseconds
    os.utime(machine.root / "requirements.txt", (later, later))
    calls = machine.make()[1]
    assert any("requirements-dev.txt" in call for call in calls)
    assert "-m venv env" not in calls


def test_an_interrupted_installation_is_continued(machine):
    assert machine.make()[0].returncode != 0
    machine.works("requirements", "cpu_build")
    done, calls = machine.make()
    assert done.returncode == 0, done.stderr
    assert any("requirements-dev.txt" in call for call in calls)


def test_a_virtual_environment_without_pip_gets_it(machine):
    """Left by an interrupted `python -m venv`, or made by Debian's Python without python3-venv."""
    machine.works("requirements", "cpu_build")
    write_program(machine.root / "env" / "bin" / "python", PYTHON)
    done, calls = machine.make()
    assert done.returncode == 0, done.stderr
    assert calls.index("-m ensurepip") < next(i for i, call in enumerate(calls) if "requirements-dev.txt" in call)


def test_an_old_python_is_refused(machine):
    old = PYTHON.replace('-c "$2"', '-c "import sys; sys.version_info = (3, 9); $2"')
    write_program(machine.python, old)
    done, calls = machine.make()
    assert done.returncode != 0
    assert "Python 3.10 or newer is needed" in done.stderr
    assert "-m venv env" not in calls


def test_make_setup_builds_torchsort_again(machine):
    machine.works("requirements")
    assert "built-in soft rank is used" in machine.make()[0].stdout
    machine.works("cpu_build")
    assert "built-in soft rank is used" not in machine.make("setup")[0].stdout
    assert (machine.root / "torchsort").exists()


def test_without_a_gpu_nvcc_is_hidden_and_the_compiler_beside_it_is_not(machine):
    machine.works("cpu_build")
    output, found = machine.install_torchsort()
    assert found == ["found g++"]
    assert "built-in" not in output


def test_with_a_gpu_nvcc_is_used(machine):
    machine.works("gpu", "cuda_build")
    assert machine.install_torchsort()[1] == ["found g++", "found nvcc"]


def test_a_failed_cuda_build_is_followed_by_a_cpu_build(machine):
    machine.works("gpu", "cpu_build")
    output, found = machine.install_torchsort()
    assert found == ["found g++", "found nvcc", "found g++"]
    assert "built-in" not in output


def test_a_failed_build_is_a_notice_and_no_error(machine):
    assert "built-in soft rank is used" in machine.install_torchsort()[0]


def test_an_installed_torchsort_is_kept(machine):
    machine.works("torchsort")
    assert machine.install_torchsort() == ("", [])
