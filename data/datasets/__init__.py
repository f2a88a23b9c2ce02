"""Data sets: one file and one entry in ``DATASETS`` each."""

from data.datasets.base import ReIDDataset
from data.datasets.llcm import LLCM
from data.datasets.regdb import RegDB
from data.datasets.sysu import SYSU

DATASETS: dict[str, type[ReIDDataset]] = {"sysu": SYSU, "regdb": RegDB, "llcm": LLCM}
