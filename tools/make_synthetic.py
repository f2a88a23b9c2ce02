"""Render a synthetic data set of pedestrians: python -m tools.make_synthetic --layout sysu --root DIR"""

import sys

from tools.synthetic import LAYOUTS, make_synthetic
from tools.synthetic.dataset import DEFAULT_SIZE
from tools.synthetic.layout import DEFAULT_IDENTITIES, DEFAULT_IMAGES
from utils.run.cli import Parser, run_program
from utils.run.errors import UserError


def build_parser() -> Parser:
    """The command's arguments, named as those of ``make_synthetic``."""
    parser = Parser(prog="python -m tools.make_synthetic", description=__doc__.split(":")[0] + ".")
    parser.add_argument("--layout", required=True, choices=LAYOUTS, help="the real data set whose layout to follow")
    parser.add_argument("--root", required=True, metavar="DIR", help="folder to write; must be empty or not exist")
    parser.add_argument("--identities", type=int, metavar="N", help=f"people (default {DEFAULT_IDENTITIES})")
    images = f"images of an identity from each camera that sees it (default {DEFAULT_IMAGES})"
    parser.add_argument("--images-per-camera", type=int, metavar="N", help=images)
    test = "people in the test list, for sysu (default a quarter of them) and llcm (a third)"
    parser.add_argument("--test-identities", type=int, metavar="N", help=test)
    seed = "the same seed gives the same files (default 0)"
    parser.add_argument("--seed", type=int, default=0, metavar="S", help=seed)
    permutation = "a rand_perm_cam.mat whose identities and numbers of images to reproduce, for sysu only"
    parser.add_argument("--permutation", metavar="FILE.mat", help=permutation)
    size = "height and width of the images in pixels (default {} {})".format(*DEFAULT_SIZE)
    parser.add_argument("--size", type=int, nargs=2, default=DEFAULT_SIZE, metavar=("H", "W"), help=size)
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that render (default 1)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = vars(build_parser().parse_args(arguments))
    size = tuple(options.pop("size"))
    try:
        images = make_synthetic(**options, size=size, progress=sys.stderr.isatty())
    except OSError as error:
        raise UserError(f"{error.filename or options['root']}: {error.strerror or error}") from None
    print(f"{images} images in {options['root']}")
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
