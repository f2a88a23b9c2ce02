"""Figures of the report, drawn by matplotlib in the width of one or two columns of a paper."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from data.datasets import DATASETS
from tools.report.attention import Map
from tools.report.ranking import Centres, Embedding, Group, Histogram, Ranking
from tools.report.run import Run
from utils.images import open_image
from utils.rank_lists import Shown

COLUMN, PAGE = 3.4, 7.0  # widths in inches
# told apart with every kind of colour blindness, and dark and bright enough for both themes (tests check it)
PALETTE = ("#007ab8", "#c96500", "#949460", "#a173ff", "#946069", "#6040ff")
BLUE, ORANGE = PALETTE[:2]
DASHES = ("-", "--")
MARKERS = ("o", "s", "^", "D", "v")  # one less than colours: the pair repeats after 30 lines
LEGEND_LINE = 0.16  # height of a line of a legend, in inches
TITLES = {"cls_acc": "accuracy (fraction)", "lr": "learning rate", "images_per_second": "images per second"}
MAX_BARS = 40
MARKS = {True: ("✓", BLUE, False), False: ("✗", ORANGE, True), None: ("", "", False)}  # mark, colour, whether dashed


class Drawing(NamedTuple):
    """A figure that can be drawn in any colours."""

    name: str  # of its files
    title: str
    text: str  # what it shows, for readers who do not see it
    draw: Callable[[], Figure]
    wide: bool = False  # takes two columns


def style(ink: str, grid: str) -> dict[Any, Any]:
    """Settings of matplotlib: ``ink`` is the colour of text and axes."""
    coloured = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    return {
        **dict.fromkeys(coloured, ink),
        "grid.color": grid,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=PALETTE),
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        "legend.frameon": False,
        "font.size": 8,
        "axes.titlesize": 8,
        "lines.linewidth": 1.3,
        "lines.markersize": 3.5,
        "figure.constrained_layout.use": True,
        "text.parse_math": False,  # names of runs are not formulas
        "svg.fonttype": "none",
        "svg.hashsalt": "report",
        "pdf.fonttype": 42,
    }


def curves(runs: Sequence[Run]) -> list[Drawing]:
    """Losses, accuracy, learning rate, speed, rank-1 and mAP over epochs; one line per run."""
    runs = [run for run in runs if run.epochs]
    present = list(dict.fromkeys(name for run in runs for row in run.epochs for name in row))
    losses = [name for name in present if name.startswith("loss")]
    drawings = []
    for name in (*losses, "cls_acc", "lr", "images_per_second"):
        if name in present:
            title = TITLES.get(name, name)
            drawings.append(_curve(runs, name, f"{title} over epochs", [(name, "")], title))
    if "rank1" in present:
        fields = [("rank1", "rank-1"), ("mAP", "mAP")]
        drawings.append(_curve(runs, "test", f"rank-1 and mAP{_selection(runs)} over epochs", fields, "percent"))
    return drawings


def _selection(runs: Sequence[Run]) -> str:
    """The settings whose mean ``metrics.csv`` holds, for a title; empty if they differ between the runs."""
    selection, *others = {DATASETS[run.cfg.dataset].selection for run in runs}
    return "" if others else f" of {'mean of ' * (len(selection) > 1)}{' and '.join(selection)}"


def _curve(runs: Sequence[Run], name: str, title: str, fields: Sequence[tuple[str, str]], unit: str) -> Drawing:
    """Several fields of ``metrics.csv`` in one figure: a colour per run, or per field if there is one run."""

    def draw() -> Figure:
        figure, axes = _axes(2.0)
        for i, run in enumerate(runs):
            for j, (field, label) in enumerate(fields):
                rows = [(row["epoch"], row[field]) for row in run.epochs if field in row]
                if rows:
                    look = i if len(runs) > 1 else j
                    axes.plot(
                        *zip(*rows, strict=True),
                        color=PALETTE[look % len(PALETTE)],
                        linestyle=DASHES[j],
                        marker=MARKERS[look % len(MARKERS)] if len(rows) < 40 else None,
                        label=_label(label, run.name if len(runs) > 1 else ""),
                    )
        axes.set(xlabel="epoch", ylabel=unit)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if name == "lr":
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        _legend(figure, axes)
        return figure

    last = "; ".join(
        f"{run.name}: {label or unit} {values[-1]:.4g} at the end"
        for run in runs
        for field, label in fields
        if (values := [row[field] for row in run.epochs if field in row])
    )
    return Drawing(f"curve_{name}", title, f"{title}. {last}.", draw)


def cmc_curves(setting: str, rankings: Sequence[tuple[str, Mapping[str, Ranking]]]) -> Drawing:
    """A colour per run, a dash per kind of ranking.

    Args:
        rankings: per run: its name (empty if there is one run), and its rankings by name.
    """
    lines = [
        (f"{run} {name}".strip(), i if len(rankings) > 1 else j, DASHES[j], ranking.cmc)
        for i, (run, of_run) in enumerate(rankings)
        for j, (name, ranking) in enumerate(of_run.items())
    ]

    def draw() -> Figure:
        figure, axes = _axes(2.2)
        for label, look, dash, values in lines:
            axes.plot(
                np.arange(1, len(values) + 1), 100 * values, label=_label(label), linestyle=dash,
                color=PALETTE[look % len(PALETTE)], marker=MARKERS[look % len(MARKERS)],
            )  # fmt: skip
        axes.set(xlabel="rank k (identities)", ylabel="matched queries (%)")
        axes.set_xticks([1, 5, 10, 15, 20])
        _legend(figure, axes)
        return figure

    shown = "; ".join(
        f"{label}: " + ", ".join(f"rank-{k} {100 * values[k - 1]:.1f}" for k in (1, 5, 10, 20))
        for label, _, _, values in lines
    )
    title = f"CMC of {setting}, mean over trials"
    return Drawing(f"cmc_{setting.replace('/', '_')}", title, f"{title}, in percent. {shown}.", draw)


def histogram(values: Histogram) -> Drawing:
    """Distances of matching and other pairs."""

    def draw() -> Figure:
        figure, axes = _axes(2.0)
        middle = (values.edges[:-1] + values.edges[1:]) / 2
        same, others = (f"{count:,}" for count in values.pairs)
        kinds = (
            (values.matching, BLUE, "-", f"same identity ({same} pairs)"),
            (values.others, ORANGE, "--", f"others ({others} pairs)"),
        )
        for shares, colour, dash, label in kinds:
            axes.fill_between(middle, 100 * shares, step="mid", color=colour, alpha=0.25, linewidth=0)
            axes.step(middle, 100 * shares, where="mid", color=colour, linestyle=dash, label=label)
        used = np.flatnonzero(values.matching + values.others > 1e-4)
        axes.set_xlim(values.edges[used[0]], values.edges[used[-1] + 1])
        axes.set_ylim(bottom=0)
        axes.set(xlabel="cosine distance", ylabel="pairs (% per bin of 0.02)")
        _legend(figure, axes)
        return figure

    kind = ", pairs of one location too" if values.same_location else ""
    title = f"{values.name}{kind}: overlap {100 * values.overlap:.1f} %"
    means = [float(((values.edges[:-1] + values.edges[1:]) / 2 * s).sum()) for s in (values.matching, values.others)]
    text = f"Distances of pairs, {title}; mean {means[0]:.2f} for the same identity, {means[1]:.2f} for others."
    return Drawing(f"distances_{values.name.replace(' – ', '_')}", title, text, draw)


def tsne(embedding: Embedding, centres: Centres) -> Drawing:
    """Embeddings on a plane: colour = identity, marker = modality."""

    def draw() -> Figure:
        figure, axes = _axes(3.0)
        colours = (*PALETTE, matplotlib.rcParams["text.color"])
        for number, identity in enumerate(np.unique(embedding.identities).tolist()):
            for infrared, marker in ((False, "o"), (True, "^")):
                chosen = (embedding.identities == identity) & (embedding.infrared == infrared)
                face = colours[number % len(colours)] if infrared else "none"
                edge = {"edgecolors": colours[number % len(colours)], "linewidths": 0.8, "s": 16}
                axes.scatter(*embedding.points[chosen].T, marker=marker, facecolors=face, **edge)
        for infrared, marker, label in ((False, "o", "visible"), (True, "^", "infrared")):
            ink = matplotlib.rcParams["text.color"]
            face = ink if infrared else "none"
            axes.scatter([], [], marker=marker, facecolors=face, edgecolors=ink, s=16, label=label)
        axes.set(xticks=[], yticks=[], xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)")
        axes.grid(visible=False)
        _legend(figure, axes)
        return figure

    number = len(np.unique(embedding.identities))
    title = f"t-SNE of {len(embedding.points)} images of {number} identities (colour) in both modalities (marker)"
    distances = (
        f"{centres.modalities:.3f} between the modalities of an identity, {centres.identities:.3f} between identities"
    )
    return Drawing("tsne", title, f"{title}. Mean cosine distance of centres over all identities: {distances}.", draw)


def bars(groups: Sequence[Group], kind: str) -> Drawing:
    """Rank-1 and mAP of groups of queries; of the lowest ``MAX_BARS``."""
    shown = list(groups)[:MAX_BARS]
    few = "" if len(shown) == len(groups) else f", the lowest {len(shown)} of {len(groups)}"
    wide = len(shown) > 10
    queries = [group.queries for group in groups]

    def draw() -> Figure:
        figure, axes = _axes(2.0, PAGE if wide else COLUMN)
        places = np.arange(len(shown))
        axes.bar(places - 0.2, [group.rank1 for group in shown], 0.38, color=BLUE, label="rank-1")
        mAP = [group.mAP for group in shown]
        axes.bar(places + 0.2, mAP, 0.38, facecolor="none", edgecolor=ORANGE, hatch="////", label="mAP")
        names = [f"{group.name}\n({group.queries})" if not wide else str(group.name) for group in shown]
        axes.set_xticks(places, names, rotation=90 if wide else 0)
        axes.set(xlabel=kind + ("" if wide else " (queries)"), ylabel="percent", ylim=(0, 100))
        axes.grid(visible=False, axis="x")
        _legend(figure, axes)
        return figure

    title = f"rank-1 and mAP by {kind}{few}; {min(queries)} to {max(queries)} queries each"
    values = "; ".join(f"{group.name}: {group.rank1:.0f}, {group.mAP:.0f}" for group in shown)
    return Drawing(f"by_{kind.replace(' ', '_')}", title, f"{title}, in percent. {values}.", draw, wide)


def maps(name: str, title: str, rows: Sequence[Sequence[Map]]) -> Drawing:
    """Images with maps over them; one row per image."""
    columns = max(map(len, rows))
    width = COLUMN if columns <= 3 else PAGE

    def draw() -> Figure:
        cell = min(width / columns, 1.0)
        figure = Figure(figsize=(width, len(rows) * (2 * cell + 0.5)))
        for axes, shown in zip(
            np.array(figure.subplots(len(rows), columns, squeeze=False)).flat,
            [shown for row in rows for shown in [*row, *[None] * (columns - len(row))]],
            strict=True,
        ):
            axes.set_axis_off()
            if shown is not None:
                height, breadth = shown.image.shape[:2]
                axes.set_title(shown.title, fontsize=6)
                axes.imshow(shown.image, interpolation="bilinear")
                if shown.heat is not None:
                    axes.imshow(
                        shown.heat, cmap="inferno", alpha=0.25 + 0.5 * shown.heat, vmin=0, vmax=1,
                        extent=(-0.5, breadth - 0.5, height - 0.5, -0.5), interpolation="bilinear",
                    )  # fmt: skip
        return figure

    what = ", ".join(row[0].title.replace("\n", " ") for row in rows)
    return Drawing(name, title, f"{title}: {what}. Bright places count most.", draw, wide=True)


def rank_lists(name: str, title: str, rows: Sequence[tuple[str, Sequence[Shown]]]) -> Drawing:
    """Rank lists in the width of a page; they are shown as text and images on the page.

    Args:
        rows: label of the row; the query and its results.
    """
    columns = max(len(images) for _, images in rows)

    def draw() -> Figure:
        cell = PAGE / (columns + 0.3)
        figure = Figure(figsize=(PAGE, len(rows) * (2 * cell + 0.32)))
        figure.set_layout_engine("none")
        step = 1 / len(rows)
        for row, (label, images) in enumerate(rows):
            for column, shown in enumerate(images):
                left = (column + (0.3 if column else 0) + 0.04) / (columns + 0.3)
                bottom = 1 - (row + 1) * step + 0.3 / figure.get_figheight()
                axes = figure.add_axes((left, bottom, 0.92 / (columns + 0.3), 1.9 * cell / figure.get_figheight()))
                axes.imshow(open_image(shown.path), aspect="auto", interpolation="bilinear")
                axes.set(xticks=[], yticks=[])
                mark, colour, dash = MARKS[shown.correct]
                for spine in axes.spines.values():
                    spine.set(
                        color=colour or matplotlib.rcParams["text.color"], linewidth=1.6, capstyle="butt", visible=True
                    )
                    spine.set_linestyle((0, (2, 1)) if dash else "-")
                under = f"{mark} {column}\n{shown.caption}" if column else f"{label}\n{shown.caption}"
                axes.set_xlabel(under, fontsize=6, labelpad=2)
        return figure

    return Drawing(name, title, title, draw, wide=True)


def _axes(height: float, width: float = COLUMN):
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def _legend(figure: Figure, axes) -> None:
    """A legend above the axes, for which the figure grows, if there is more than one line."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        columns = 2 if max(map(len, labels)) < 28 else 1
        figure.set_figheight(figure.get_figheight() + LEGEND_LINE * -(-len(labels) // columns))
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, fontsize=7)


def _label(*words: str) -> str:
    """The words in one line. matplotlib leaves out labels that begin with an underscore, hence the space."""
    text = " ".join(filter(None, words))
    return f" {text}" if text.startswith("_") else text
