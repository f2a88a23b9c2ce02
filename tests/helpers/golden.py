"""Golden values: outputs of the authors' code, in ``tests/golden``."""

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def golden_cases(name: str) -> list[dict[str, np.ndarray]]:
    """The numbered cases of a golden file, as one dict each."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        cases: dict[int, dict[str, np.ndarray]] = {}
        for key in arrays.files:
            case, _, field = key.removeprefix("case").partition("_")
            if field:
                cases.setdefault(int(case), {})[field] = arrays[key]
    return [cases[number] for number in sorted(cases)]
