"""``make demo``: render a synthetic SYSU-MM01, train ``configs/demo.yml`` on it, test it plain and re-ranked."""

import json
import sys
import time
from pathlib import Path

from configs import get_config
from main import main as run
from tools.synthetic import make_synthetic
from utils.run.cli import run_program
from utils.run.errors import UserError
from utils.run.files import write_json

CONFIG = Path("configs/demo.yml")
SEED = 8
# many people with few images each: how well strangers are found depends on how many others were learnt from
DATA = {"identities": 480, "images_per_camera": 2, "test_identities": 30, "seed": SEED}


def main() -> int:
    cfg = get_config(CONFIG)
    render(Path(cfg.data_root))
    start = time.perf_counter()
    code = run(["--cfg", str(CONFIG), "--seed", str(SEED), "--desc", "demo"])
    print(f"trained and tested in {time.perf_counter() - start:.0f} s")
    return code


def render(root: Path) -> None:
    """Made-up pedestrians below ``root``, unless an earlier demo left the same ones there."""
    receipt = root / "demo.json"  # written last
    if receipt.exists() and json.loads(receipt.read_text()) == DATA:
        return
    if root.exists():
        raise UserError(f"{root}: not what this demo renders, or not all of it; remove it with `make clean-demo`")
    print(f"rendering made-up pedestrians in the layout of SYSU-MM01 to {root}", flush=True)
    make_synthetic("sysu", root, **DATA, workers=2, progress=True)
    write_json(receipt, DATA)


if __name__ == "__main__":
    sys.exit(run_program(main))
