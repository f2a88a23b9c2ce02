"""The program; it imports nothing that the environment may lack before it has looked for it."""

import argparse
import sys
import warnings
from pathlib import Path

from tools.doctor.environment import check_environment
from tools.doctor.report import MOST_LINES, Report
from utils.run.cli import Parser, run_program


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m tools.doctor",
        description="Says what is in the way of a run: a line per finding, at most"
        f" {MOST_LINES} of a kind. Ends with 0 if a run can start, else with 2.",
    )
    parser.add_argument("--cfg", required=True, type=Path, metavar="FILE", help="YAML configuration of the run")
    parser.add_argument("--gpu", default="auto", help="as of the run: index of a GPU, cpu, or auto")
    parser.add_argument("--full", action="store_true", help="decode every image, with num_workers processes")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="override any configuration key")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    report = Report()
    if check_environment(report):
        from tools.doctor.run import check_run

        warnings.simplefilter("ignore")  # of the libraries: what matters is a finding
        check_run(report, arguments.cfg, arguments.overrides, gpu=arguments.gpu, full=arguments.full)
    print(report.verdict)
    return 2 if report.counts["error"] else 0


if __name__ == "__main__":
    sys.exit(run_program(main))
