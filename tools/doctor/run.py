"""Everything that a run needs; what takes long comes last."""

from collections.abc import Sequence
from pathlib import Path

from configs import get_config
from tools.doctor.dataset import check_dataset
from tools.doctor.machine import check_device, check_disks, check_memory
from tools.doctor.report import Report
from tools.doctor.weights import check_model


def check_run(report: Report, path: Path, overrides: Sequence[str], *, gpu: str, full: bool) -> None:
    with report.errors():
        cfg = get_config(path, overrides)
        report.ok(f"configuration: {path}")
        device = check_device(report, cfg, gpu)
        model = check_model(report, cfg, device)
        datasets = check_dataset(report, cfg, full=full)
        check_memory(report, cfg, datasets, device)
        check_disks(report, cfg, datasets, model)
