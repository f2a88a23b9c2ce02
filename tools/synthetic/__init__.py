"""Synthetic pedestrians in the layouts of SYSU-MM01, RegDB and LLCM, for the demo, the tests and trial runs."""

from tools.synthetic.dataset import LAYOUTS, make_synthetic

__all__ = ["LAYOUTS", "make_synthetic"]
