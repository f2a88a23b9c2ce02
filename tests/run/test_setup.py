"""Set-up by the Makefile and tools/install_torchsort.sh, with a stand-in for Python that installs nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = ("Makefile", "requirements.txt", "requirements-tools.txt", "requirements-dev.txt", "tools/install_torchsort.sh")
PROGRAMS = ("cp", "ln", "make", "mkdir", "mktemp", "rm", "sh", "touch")

# Writes to `calls` what it installs and which compilers it finds. Files say what works: gpu, requirements, torchsort,
# cuda_build, cpu_build.
PYTHON = f"""#!/bin/sh
cd "$ROOT"
case "$*" in
    *"import torch, torchsort"*) test -e torchsort ;;
    *torch.cuda.is_available*) test -e gpu ;;
    *version_info*) {sys.executable} -c "$2" ;;
    "-m venv "*) mkdir -p env/bin; cp "$0" env/bin/python ;;
    *requirements-dev.txt) echo requirements >>calls; test -e requirements ;;
    *"torchsort>"*)
        build=cpu_build
        command -v g++ && echo g++ >>calls
        command -v nvcc && echo nvcc >>calls && build=cuda_build
        test -e $build && touch torchsort ;;
esac
"""


def write_program(path: Path, text: str = "#!/bin/sh\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def root(tmp_path) -> Path:
    """A copy of the set-up's files, the stand-in for Python, and nvcc and g++ in one folder of the PATH."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    write_program(tmp_path / "python3", PYTHON)
    write_program(tmp_path / "env/bin/python", PYTHON)
    for name in ("nvcc", "g++"):
        write_program(tmp_path / "programs" / name)
    for name in PROGRAMS:
        (tmp_path / "programs" / name).symlink_to(shutil.which(name))
    return tmp_path


def run(root: Path, *command: str, works: str = "") -> tuple[subprocess.CompletedProcess, list[str]]:
    """Run the command; returns it and what the stand-in wrote. ``works`` names the imports that succeed afterwards."""
    for name in works.split():
        (root / name).touch()
    (root / "calls").write_text("")
    environment = {"PATH": str(root / "programs"), "ROOT": str(root), "TMPDIR": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=60)
    return done, (root / "calls").read_text().split()


def install_torchsort(root: Path, works: str = "") -> tuple[str, list[str]]:
    """The printed text, and the compilers that each build found."""
    done, found = run(root, "sh", "tools/install_torchsort.sh", "env", works=works)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout, found


def test_an_interrupted_installation_is_continued(root):
    shutil.rmtree(root / "env")
    make = ("make", "environment", "VENV=env", f"PYTHON={root / 'python3'}")
    assert run(root, *make)[0].returncode != 0
    done, calls = run(root, *make, works="requirements cpu_build")
    assert done.returncode == 0, done.stderr
    assert "requirements" in calls
    assert run(root, *make)[1] == []  # nothing is left to do


def test_an_old_python_is_refused(root):
    old = PYTHON.replace('-c "$2"', '-c "import sys; sys.version_info = (3, 9); $2"')
    write_program(root / "python3", old)
    done, calls = run(root, "make", "environment", "VENV=env", f"PYTHON={root / 'python3'}")
    assert "Python 3.10 or newer is needed" in done.stderr
    assert calls == []


def test_without_a_gpu_nvcc_is_hidden_and_the_compiler_beside_it_is_not(root):
    output, found = install_torchsort(root, works="cpu_build")
    assert found == ["g++"]
    assert "built-in" not in output


def test_with_a_gpu_nvcc_is_used(root):
    assert install_torchsort(root, works="gpu cuda_build")[1] == ["g++", "nvcc"]


def test_a_failed_cuda_build_is_followed_by_a_cpu_build(root):
    output, found = install_torchsort(root, works="gpu cpu_build")
    assert found == ["g++", "nvcc", "g++"]
    assert "built-in" not in output


def test_a_failed_build_is_a_notice_and_no_error(root):
    assert "built-in soft rank is used" in install_torchsort(root)[0]
