"""The data set: folders, lists, permutations, numbers of images, and with ``full`` every image."""

from yacs.config import CfgNode

from data import build_sampler, check_numbers, open_dataset, skips_unreadable
from data.datasets.base import ReIDDataset
from data.unreadable import find_unreadable, leave_out
from engine.evaluator import require_testable
from tools.doctor.report import Report

# identities, visible images, infrared images; a data set without published numbers needs no entry
PUBLISHED = {
    ("sysu", "train"): (395, 22258, 11909),
    ("sysu", "test"): (96, 6775, 3803),
    ("regdb", "train"): (206, 2060, 2060),
    ("regdb", "test"): (206, 2060, 2060),
}


def check_dataset(report: Report, cfg: CfgNode, *, full: bool) -> list[ReIDDataset]:
    """The splits that a run needs, as far as they can be opened."""
    opened = []
    for split in ("test",) if cfg.test_only else ("train", "test"):
        with report.errors():
            dataset = open_dataset(cfg, split)
            opened.append(dataset)
            _check_counts(report, cfg, dataset)
            with report.errors():
                check_numbers(cfg, dataset)
            if full or skips_unreadable(cfg, split):
                _check_images(report, cfg, dataset)
            else:
                report.ok(f"{split} images: all are there, none was decoded; --full tries each")
            if split == "train":
                _check_modalities(report, dataset)
                batches = len(build_sampler(cfg, dataset, seed=0))
                report.ok(f"{cfg.sample_method}: {batches} batches in the first epoch")
            else:
                require_testable(dataset)
                report.ok("test protocol: every gallery can be filled and has matches")
    return opened


def _check_counts(report: Report, cfg: CfgNode, dataset: ReIDDataset) -> None:
    found = (dataset.num_identities, int((~dataset.infrared).sum()), int(dataset.infrared.sum()))
    published = PUBLISHED.get((cfg.dataset, dataset.split), found)
    text = f"{dataset.name} {dataset.split} in {dataset.root}: {_describe(found)}"
    if found == published:
        report.ok(f"{text}, as published" if (cfg.dataset, dataset.split) in PUBLISHED else text)
    else:
        report.warning(f"{text}; published are {_describe(published)}: right only if this is other data")


def _describe(counts: tuple[int, int, int]) -> str:
    return "{:,} identities, {:,} visible and {:,} infrared images".format(*counts)


def _check_images(report: Report, cfg: CfgNode, dataset: ReIDDataset) -> None:
    reasons = find_unreadable(dataset, num_workers=cfg.num_workers)
    tried = f"{dataset.split} images: {len(dataset):,} decoded"
    if not reasons:
        report.ok(tried)
    elif skips_unreadable(cfg, dataset.split):
        report.warning(*(f"{reason}; skip_unreadable leaves it out" for reason in reasons.values()))
        leave_out(dataset, reasons)
    else:
        report.error(*(f"{reason}; {dataset.advice}" for reason in reasons.values()))


def _check_modalities(report: Report, dataset: ReIDDataset) -> None:
    sides = [set(dataset.identities[dataset.infrared == side].tolist()) for side in (False, True)]
    lone = sorted(sides[0] ^ sides[1])
    if lone:
        report.warning(
            f"{dataset.name} {dataset.split}: {len(lone)} identities have images of one modality only, the first is"
            f" {lone[0]}; nothing is learned across modalities from them"
        )
