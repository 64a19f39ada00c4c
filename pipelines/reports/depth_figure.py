"""Error against depth: plain nets and ResNets of every setting in one picture, with the paper's beside."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.reports.figures import INK, SERIES, STYLE, blank
from pipelines.reports.result_settings import Setting
from pipelines.reports.significance import mean_interval
from resnet.networks.architectures import FAMILIES, parse_network
from resnet.paper import published

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEWEST = 3  # depths of a kind that make a line
OUTSIDE = 3.0  # times the median of all errors: beyond it a network has hardly trained, and is left out of the picture
PANELS = {"top1_error": "test error (%)", "train_error": "training error (%)"}
PUBLISHED = {  # family -> tables of the paper that have depths of a kind; Figure 6 prints no numbers for plain nets
    "cifar10": {"ResNets, the paper's": published.TABLE6},
    "imagenet": {"ResNets, the paper's": published.TABLE3},
}


@dataclass(frozen=True)
class Line:
    """points: depth -> errors of its seeds."""

    label: str
    plain: bool
    colour: str
    points: Mapping[int, Sequence[float]]


@dataclass(frozen=True)
class Panel:
    """Lines of one metric. label: of its y axis."""

    label: str
    lines: list[Line] = field(default_factory=list)


def panels(settings: Sequence[Setting], names: Mapping[str, str]) -> dict[str, list[Panel]]:
    """Family -> its panels, for families of which one setting has three depths of a kind. names: of the settings."""
    found = {}
    for family in sorted(FAMILIES):
        shown = [s for s in settings if s.family == family and any(len(d) >= FEWEST for d in s.kinds().values())]
        if shown:
            drawn = [_panel(metric, family, shown, names) for metric in PANELS]
            found[family] = [panel for panel in drawn if panel.lines]
    return found


def _panel(metric: str, family: str, settings: Sequence[Setting], names: Mapping[str, str]) -> Panel:
    panel = Panel(PANELS[metric])
    if metric == "top1_error":
        panel.lines.extend(Line(label, False, INK, _published(rows)) for label, rows in PUBLISHED[family].items())
    for place, setting in enumerate(settings):
        protocol = FAMILIES[family].protocol if setting.is_papers else setting.rows[0].protocol
        measured = setting.results(protocol)
        colour = SERIES[place % len(SERIES)]
        for shortcut, depths in sorted(setting.kinds().items()):
            points = {
                d: list(measured[name, metric].values()) for d, name in depths.items() if (name, metric) in measured
            }
            if len(points) >= FEWEST:
                kind = "plain nets" if shortcut == "none" else f"ResNets{'' if shortcut == 'A' else ' ' + shortcut}"
                label = f"{kind}, {names[setting.rows[0].setting]}"
                panel.lines.append(Line(label, shortcut == "none", colour, dict(sorted(points.items()))))
    return panel


def _published(rows: Sequence[published.Result]) -> dict[int, list[float]]:
    """Depth -> the paper's error, of the shortcut that the paper gives a depth; the mean where it has one."""
    found = {}
    for row in rows:
        error = row.top1_error if row.mean is None else row.mean
        if row.network is not None and error is not None and row.network == parse_network(_usual(row.network)).name:
            network = parse_network(row.network)
            if network.shortcut != "none":
                found[network.depth] = [error]
    return dict(sorted(found.items()))


def _usual(network: str) -> str:
    found = parse_network(network)
    return f"{found.family}-{'plain' if found.shortcut == 'none' else 'resnet'}{found.depth}"


def depth_drawing(found: Sequence[Panel]) -> Figure:
    """Plain nets dashed with open marks, ResNets solid; bars are 95 % intervals of the mean over seeds."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        figure, axes = blank(3.6 * len(found) + 0.4, 3.7, len(found))
        for ax, panel in zip(axes, found, strict=True):
            for line in panel.lines:
                _draw(ax, line)
            _scales(ax, panel)
        labels: dict[str, Any] = {}
        for ax in axes:
            handles, names = ax.get_legend_handles_labels()
            labels |= {name: handle for handle, name in zip(handles, names, strict=True) if name not in labels}
        columns = 2 if len(found) > 1 else 1
        figure.legend(list(labels.values()), list(labels), loc="outside lower center", ncols=columns, fontsize=8)
    return figure


def _draw(ax: Axes, line: Line) -> None:
    depths = list(line.points)
    means = [statistics.fmean(errors) for errors in line.points.values()]
    ends = [
        mean_interval(errors) if len(errors) > 1 else (m, m)
        for errors, m in zip(line.points.values(), means, strict=True)
    ]
    ends = [(m, m) if low != low else (max(low, 0.0), high) for (low, high), m in zip(ends, means, strict=True)]
    below = [mean - low for (low, _), mean in zip(ends, means, strict=True)]
    above = [high - mean for (_, high), mean in zip(ends, means, strict=True)]
    look: dict[str, Any] = {"color": line.colour, "linewidth": 1.4, "markersize": 4, "capsize": 2, "label": line.label}
    look |= {"fmt": "o--", "markerfacecolor": "none"} if line.plain else {"fmt": "o-"}
    if line.colour == INK:  # the paper's, under ours
        look |= {"linewidth": 4, "alpha": 0.35, "zorder": 1}
    ax.errorbar(depths, means, yerr=[below, above], **look)


def _scales(ax: Axes, panel: Panel) -> None:
    """Depths as they were trained, on a logarithmic axis; errors from zero."""
    depths = sorted({depth for line in panel.lines for depth in line.points})
    ax.set_xscale("log", base=2)
    ax.set_xticks(_apart(depths), [str(depth) for depth in _apart(depths)])
    ax.minorticks_off()
    means = [statistics.fmean(errors) for line in panel.lines for errors in line.points.values()]
    inside = [mean for mean in means if mean <= OUTSIDE * statistics.median(means)]
    ax.set_ylim(0, None if len(inside) == len(means) else 1.15 * max(inside))
    ax.set_xlabel("layers")
    ax.set_ylabel(panel.label)


def _apart(depths: Sequence[int]) -> list[int]:
    """The depths whose labels do not overlap: each a third more than the one before."""
    kept: list[int] = []
    for depth in depths:
        if not kept or depth >= 1.34 * kept[-1]:
            kept.append(depth)
    return kept
