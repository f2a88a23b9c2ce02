"""``make demo``: render a synthetic SYSU-MM01, train ``configs/demo.yml`` on it, test it plain and re-ranked.

Runs from the root of the repository.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from configs import get_config
from tools.synthetic import make_synthetic
from utils.run.cli import Parser, run_program
from utils.run.errors import UserError
from utils.run.files import write_json

CONFIG = "configs/demo.yml"
SEED = 8
# many identities with few images: accuracy on new identities grows with the number of training identities
DATA: dict[str, Any] = {"identities": 480, "images_per_camera": 2, "test_identities": 30, "seed": SEED}


def main(argv: list[str] | None = None) -> int:
    Parser(prog="python -m tools.demo", description=__doc__.splitlines()[0]).parse_args(argv)
    render(Path(get_config(CONFIG).data_root))
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "main.py", "--cfg", CONFIG, "--seed", str(SEED), "--desc", "demo"])
    print(f"trained and tested in {time.perf_counter() - start:.0f} s")
    return done.returncode


def render(root: Path) -> None:
    """Render the synthetic pedestrians below ``root``, unless an earlier demo did."""
    marker = root / "demo.json"  # written last
    if marker.exists() and json.loads(marker.read_text()) == DATA:
        return
    if root.exists():
        raise UserError(f"{root}: not what this demo renders, or not complete; remove it with `make clean-demo`")
    print(f"rendering synthetic pedestrians in the layout of SYSU-MM01 to {root}", flush=True)
    make_synthetic("sysu", root, **DATA, workers=2, progress=True)
    write_json(marker, DATA)


if __name__ == "__main__":
    sys.exit(run_program(main))
