"""Figures of the report, drawn by matplotlib in the width of one or two columns of a paper."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure

from tools.report.attention import Map
from tools.report.ranking import Centres, Embedding, Group, Histogram, Ranking
from tools.report.run import Run

COLUMN, PAGE = 3.4, 7.0  # widths in inches
# Okabe and Ito's palette without its yellow, which is too pale on white: told apart with every kind of colour blindness
BLUE, ORANGE, GREEN, PINK, AMBER, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
PALETTE = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY)
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P")
TITLES = {"cls_acc": "accuracy (fraction)", "lr": "learning rate", "images_per_second": "images per second"}
MAX_BARS = 40


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
        drawings.append(_curve(runs, "test", "rank-1 and mAP over epochs, without re-ranking", fields, "percent"))
    return drawings


def _curve(runs: Sequence[Run], name: str, title: str, fields: Sequence[tuple[str, str]], unit: str) -> Drawing:
    """Several fields of ``metrics.csv`` in one figure: a colour per run, or per field if there is one run."""

    def draw() -> Figure:
        figure, axes = _axes(2.2)
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
                        label=" ".join(filter(None, (label, run.name if len(runs) > 1 else ""))),
                    )
        axes.set(xlabel="epoch", ylabel=unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if name == "lr":
            axes.set_yscale("log")
        _legend(figure, axes)
        return figure

    last = "; ".join(
        f"{run.name}: {label or unit} {values[-1]:.4g} at the end"
        for run in runs
        for field, label in fields
        if (values := [row[field] for row in run.epochs if field in row])
    )
    return Drawing(f"curve_{name}", title, f"{title}. {last}.", draw)


def cmc_curves(rankings: Sequence[tuple[str, Ranking]]) -> Drawing:
    """Args: name of the curve, and the ranking."""

    def draw() -> Figure:
        figure, axes = _axes(2.6)
        for number, (name, ranking) in enumerate(rankings):
            ranks = np.arange(1, len(ranking.cmc) + 1)
            look = {"color": PALETTE[number % len(PALETTE)], "linestyle": DASHES[number % len(DASHES)]}
            axes.plot(ranks, 100 * ranking.cmc, marker=MARKERS[number % len(MARKERS)], label=name, **look)
        axes.set(xlabel="rank k", ylabel="queries with a match\namong the first k identities (%)")
        axes.set_xticks([1, 5, 10, 15, 20])
        _legend(figure, axes)
        return figure

    values = "; ".join(
        f"{name}: " + ", ".join(f"rank-{k} {100 * ranking.cmc[k - 1]:.1f}" for k in (1, 5, 10, 20))
        for name, ranking in rankings
    )
    title = f"CMC curves of {rankings[0][1].setting}, mean over trials"
    return Drawing("cmc", title, f"{title}, in percent. {values}.", draw)


def histogram(values: Histogram) -> Drawing:
    """Distances of matching and other pairs."""

    def draw() -> Figure:
        figure, axes = _axes(2.2)
        middle = (values.edges[:-1] + values.edges[1:]) / 2
        kinds = ((values.matching, BLUE, "-", "same identity"), (values.others, ORANGE, "--", "other identities"))
        for shares, colour, dash, label in kinds:
            axes.fill_between(middle, 100 * shares, step="mid", color=colour, alpha=0.25, linewidth=0)
            axes.step(middle, 100 * shares, where="mid", color=colour, linestyle=dash, label=label)
        used = np.flatnonzero(values.matching + values.others > 1e-4)
        axes.set_xlim(values.edges[used[0]], values.edges[used[-1] + 1])
        axes.set_ylim(bottom=0)
        axes.set(xlabel="cosine distance", ylabel="pairs (% per bin)")
        _legend(figure, axes)
        return figure

    title = f"{values.name}: overlap {100 * values.overlap:.1f} %"
    means = [float(((values.edges[:-1] + values.edges[1:]) / 2 * s).sum()) for s in (values.matching, values.others)]
    text = f"Distances of {values.name} pairs: mean {means[0]:.2f} for the same identity, {means[1]:.2f} for others."
    return Drawing(f"distances_{values.name.replace(' – ', '_')}", title, text, draw)


def tsne(embedding: Embedding, centres: Centres) -> Drawing:
    """Embeddings on a plane: colour = identity, marker = modality."""

    def draw() -> Figure:
        figure, axes = _axes(3.2)
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
    title = f"t-SNE of {number} identities (colour) in both modalities (marker)"
    distances = (
        f"{centres.modalities:.3f} between the modalities of an identity, {centres.identities:.3f} between identities"
    )
    return Drawing("tsne", title, f"{title}. Mean cosine distance of centres over all identities: {distances}.", draw)


def bars(groups: Sequence[Group], kind: str) -> Drawing:
    """Rank-1 and mAP of groups of queries; of the lowest ``MAX_BARS``."""
    shown = list(groups)[:MAX_BARS]
    few = "" if len(shown) == len(groups) else f", the lowest {len(shown)} of {len(groups)}"
    wide = len(shown) > 10

    def draw() -> Figure:
        figure, axes = _axes(2.2, PAGE if wide else COLUMN)
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

    title = f"rank-1 and mAP by {kind}{few}"
    values = "; ".join(f"{group.name}: {group.rank1:.0f}, {group.mAP:.0f}" for group in shown)
    return Drawing(f"by_{kind.replace(' ', '_')}", title, f"{title}, in percent. {values}.", draw, wide)


def maps(name: str, title: str, rows: Sequence[Sequence[Map]]) -> Drawing:
    """Images with maps over them; one row per image."""

    def draw() -> Figure:
        columns = max(map(len, rows))
        height = min(PAGE, columns * 0.8) / columns * 2.05 * len(rows) + 0.4
        figure = Figure(figsize=(min(PAGE, columns * 0.8), height))
        for axes, shown in zip(
            np.array(figure.subplots(len(rows), columns, squeeze=False)).flat,
            [shown for row in rows for shown in [*row, *[None] * (columns - len(row))]],
            strict=True,
        ):
            axes.set_axis_off()
            if shown is not None:
                axes.set_title(shown.title, fontsize=6)
                axes.imshow(shown.image, interpolation="bilinear", aspect="auto")
                if shown.heat is not None:
                    axes.imshow(
                        shown.heat, cmap="inferno", alpha=0.25 + 0.5 * shown.heat, vmin=0, vmax=1, aspect="auto",
                        extent=(-0.5, shown.image.shape[1] - 0.5, shown.image.shape[0] - 0.5, -0.5),
                        interpolation="bilinear",
                    )  # fmt: skip
        return figure

    return Drawing(name, title, f"{title}. Bright: the network looks here.", draw)


def _axes(height: float, width: float = COLUMN):
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def _legend(figure: Figure, axes) -> None:
    """A legend above the axes, if there is more than one line, so that it never covers any."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        columns = 2 if max(map(len, labels)) < 28 else 1
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, fontsize=7)
