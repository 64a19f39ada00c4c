"""Figures as the paper draws them, by matplotlib: training error thin and dashed, test error bold.

Colours are Okabe and Ito's, which colour-blind people tell apart; lines carry their names at their ends, so that a
print in grey can be read as well. Figures are written as PNG and SVG; in an HTML page the SVG takes the page's colours.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet.networks.architectures import parse_network

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from resnet.evaluation.error_summary import Response, Summary
    from resnet.paper.result_rows import CurveRow

INK, GRID = "#1a1a1b", "#c8c8c9"  # no other thing in a figure has these colours: the page replaces them
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "resnet",  # the same figure is the same file
}

End = tuple[float, str, str]  # where a line ends, its name, its colour
Curves = Mapping[str, Sequence[Sequence["CurveRow"]]]  # network -> curves of its seeds


def blank(width: float, height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches with panels side by side. Draw within matplotlib.rc_context(STYLE)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=200)
    FigureCanvasAgg(figure)
    return figure, list(np.ravel(np.asarray(figure.subplots(1, panels), dtype=object)))


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """NAME.png and NAME.svg in a folder."""
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        figure.savefig(folder / f"{name}.png", facecolor="white", metadata={"Software": None})
        figure.savefig(folder / f"{name}.svg", facecolor="white", metadata={"Date": None, "Creator": None})


def inline_svg(figure: Figure, label: str) -> str:
    """The figure as an <svg> element whose colours are CSS variables of the page: --ink, --rule, --series-1 ..."""
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    # Ids are the page's own: two figures must not share them.
    prefix = re.sub(r"\W+", "-", label.lower()).strip("-")
    text = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{prefix}-", text)
    colours = {INK: "var(--ink)", GRID: "var(--rule)"}
    colours |= {colour: f"var(--series-{i})" for i, colour in enumerate(SERIES, start=1)}
    for colour, variable in colours.items():
        text = text.replace(colour, variable)
    text = re.sub(r'<svg ([^>]*?)width="[\d.]+pt" height="[\d.]+pt"', r"<svg \1", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def error_curves(panels: Mapping[str, Curves]) -> Figure:
    """Errors against iterations, a panel a title: the mean over seeds, with the range of the test error as a band."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        figure, axes = blank(3.4 * len(panels) + 0.4, 3.1, len(panels))
        names = [_errors(ax, title, curves) for ax, (title, curves) in zip(axes, panels.items(), strict=True)]
        axes[0].set_ylabel("error (%)")
        # One range for all panels, so that heights can be compared.
        top = max(ax.get_ylim()[1] for ax in axes)
        for ax, ends in zip(axes, names, strict=True):
            ax.set_ylim(0, top)
            _label_ends(ax, ends)
        _legend(figure)
    return figure


def _errors(ax: Axes, title: str, curves: Curves) -> list[End]:
    """One panel, without the names of its lines. Colours go by depth, from shallow to deep."""
    ends: list[End] = []
    tops: list[float] = []
    last = 1
    for colour, network in zip(
        _cycle(len(curves)), sorted(curves, key=lambda name: parse_network(name).depth), strict=True
    ):
        step, train, test = (_column(curves[network], i) for i in (0, 3, 4))
        point: dict[str, Any] = {"marker": "o", "clip_on": False} if len(step[0]) == 1 else {}  # no line has one end
        ax.plot(step[0], train.mean(0), "--", color=colour, linewidth=0.9, markersize=3, **point)
        ax.plot(step[0], test.mean(0), color=colour, linewidth=2, markersize=6, **point)
        if len(test) > 1:
            ax.fill_between(step[0], test.min(0), test.max(0), color=colour, alpha=0.15, linewidth=0)
        ends.append((float(test.mean(0)[-1]), short_name(network), colour))
        tops += [float(np.median(test)), float(test[:, -1].max()), float(train[:, -1].max())]
        last = max(last, int(step[0][-1]))
    ax.set_title(title)
    ax.set_xlim(0, last)
    # As in the paper, the first epochs run out of the picture: what matters is where the curves end.
    ax.set_ylim(0, min(100.0, 1.6 * max(tops) + 1))
    unit = 10_000 if last >= 20_000 else 1_000 if last >= 2_000 else 1
    ax.xaxis.set_major_formatter(lambda value, _: f"{value / unit:g}")
    ax.set_xlabel({10_000: "iterations (1e4)", 1_000: "iterations (1e3)", 1: "iterations"}[unit])
    return ends


def _column(curves: Sequence[Sequence[CurveRow]], place: int) -> np.ndarray:
    """(seeds, epochs) of one column, over the epochs that all seeds have; a missing error is the one before."""
    count = min(len(curve) for curve in curves)
    rows: Any = [[row[place] for row in curve[:count]] for curve in curves]
    values = np.array(rows, dtype=float)
    for i in range(1, count):
        values[:, i] = np.where(np.isnan(values[:, i]), values[:, i - 1], values[:, i])
    return values


def _label_ends(ax: Axes, ends: list[End]) -> None:
    """Names beside the ends of the lines, moved apart where they would overlap."""
    low, high = ax.get_ylim()
    gap, floor = 0.075 * (high - low), low
    for value, name, colour in sorted(ends):
        place = max(min(value, high), floor)
        ax.annotate(
            name,
            xy=(1, place),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontweight="bold",
            fontsize=8,
            annotation_clip=False,
        )
        floor = place + gap


def _legend(figure: Figure) -> None:
    """The meaning of dashes, once a figure."""
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=INK, linewidth=0.9, linestyle="--", label="training error"),
        Line2D([], [], color=INK, linewidth=2, label="test error"),
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=2, fontsize=8)


def responses(networks: Mapping[str, Sequence[Response]]) -> Figure:
    """Figure 7: standard deviations of layer responses, in the order of the layers (top) and sorted."""
    import matplotlib as mpl
    from matplotlib.ticker import MaxNLocator

    with mpl.rc_context(STYLE):
        figure, axes = blank(7.2, 2.9, 2)
        depths = sorted({len(found) for found in networks.values()})
        for name, found in networks.items():
            stds = np.array([response.std for response in found])
            # A plain net is dashed, in the colour of the ResNet that is as deep.
            colour = SERIES[depths.index(len(found)) % len(SERIES)]
            look: dict[str, Any] = {"color": colour, "linewidth": 1.4, "linestyle": "--" if "plain" in name else "-"}
            axes[0].plot(np.arange(1, len(stds) + 1), stds, label=short_name(name), **look)
            axes[1].plot(np.arange(1, len(stds) + 1), np.sort(stds)[::-1], **look)
        for ax, label in zip(axes, ("layer index, from input to output", "layers sorted by std"), strict=True):
            ax.set_xlabel(label)
            ax.set_ylim(bottom=0)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].set_ylabel("std of responses")
        figure.legend(loc="outside lower center", ncols=min(6, len(networks)), fontsize=8)
    return figure


def reliability_diagram(summary: Summary) -> Figure:
    """Accuracy against confidence in bins, and how many images lie in each."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        figure, axes = blank(7.2, 2.9, 2)
        bins = [b for b in summary.bins if b.confidence is not None]
        axes[0].plot([0, 1], [0, 1], color=GRID, linewidth=1)
        means = np.array([[b.confidence, b.accuracy] for b in bins], dtype=float).reshape(-1, 2)
        axes[0].plot(means[:, 0], means[:, 1], "o-", color=SERIES[0], markersize=3)
        axes[0].set(xlabel="score of the best class", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
        axes[0].set_title(f"calibration error {100 * summary.ece:.2f} %")
        width = 1 / len(summary.bins)
        axes[1].bar(
            [b.low + width / 2 for b in summary.bins], [b.examples for b in summary.bins], 0.9 * width, color=SERIES[0]
        )
        axes[1].set(xlabel="score of the best class", ylabel="images", xlim=(0, 1))
    return figure


def short_name(network: str) -> str:
    """`plain-20`, `ResNet-56`, `ResNet-34 B`, as the paper writes them; another name stays as it is.

    What was done otherwise follows an `@` and is kept: `ResNet-110 (lr 0.1 from the start)`.
    """
    network, _, change = network.partition("@")
    if change:
        return f"{short_name(network)} ({change})"
    try:
        found = parse_network(network)
    except ValueError:
        return network
    if found.shortcut == "none":
        return f"plain-{found.depth}"
    usual = parse_network(f"{found.family}-resnet{found.depth}").shortcut == found.shortcut
    return (
        f"ResNet-{found.depth}"
        + ("" if usual and found.depth != 34 else f" {found.shortcut}")
        + (" v1.5" if found.v15 else "")
    )


def _cycle(count: int) -> list[str]:
    return [SERIES[i % len(SERIES)] for i in range(count)]
