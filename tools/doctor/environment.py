"""Python and the packages; needs none of them."""

import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tools.doctor.report import Report

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"
OLDEST_PYTHON = (3, 10)
NOT_NEEDED = {
    "numba": "scoring takes NumPy instead, which is slower",
    **dict.fromkeys(("pytest", "hypothesis", "ruff"), "only tests need it"),
}


def check_environment(report: Report) -> bool:
    """Whether all is there that a run imports."""
    before = report.counts["error"]
    if sys.version_info < OLDEST_PYTHON:
        report.error(f"Python {platform.python_version()}: {'.'.join(map(str, OLDEST_PYTHON))} or newer is needed")
    else:
        report.ok(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    found = []
    for name, least in re.findall(r"^([\w-]+)>=([\d.]+)", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE):
        try:
            present = version(name)
        except PackageNotFoundError:
            present = None
        if present is not None and _numbers(present) >= _numbers(least):
            found.append(f"{name} {present}")
            continue
        text = f"{name}: {present or 'not installed'}, {least} or newer is wanted; run `make environment`"
        if name in NOT_NEEDED:
            report.warning(f"{text} ({NOT_NEEDED[name]})")
        else:
            report.error(text)
    report.ok(f"packages: {', '.join(found)}")
    return report.counts["error"] == before


def _numbers(text: str) -> tuple[int, ...]:
    """Major, minor and patch, as far as they are given."""
    return tuple(int(number) for number in re.findall(r"\d+", text.split("+")[0])[:3])
