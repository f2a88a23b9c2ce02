"""Made-up pedestrians in the layouts of SYSU-MM01 and RegDB, for the demo, the tests and rehearsals."""

from .layout import LAYOUTS, make_synthetic

__all__ = ["LAYOUTS", "make_synthetic"]
