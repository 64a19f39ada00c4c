"""The tables of the report: claims with their evidence, the paper's figures beside ours, the networks of a setting."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from pipelines import figures
from pipelines.page import Table
from pipelines.verdicts import FAMILIES, Decision, Evidence, Setting, data_name, spread
from resnet import paper
from resnet.results import ResultRow

if TYPE_CHECKING:
    from resnet.cost import Cost

METRICS = {
    "top1_error": "top-1 error",
    "top5_error": "top-5 error",
    "train_error": "training error",
    "response_std": "std of responses",
}


def claims(found: Sequence[Decision], caption: str, data: str = "CIFAR-10") -> Table:
    """Claims with their verdicts and evidence. data: what the claims on CIFAR-10 are judged on."""
    rows = [
        (
            d.claim.sentence.replace("CIFAR-10", data),
            d.claim.source,
            d.verdict,
            "<br>".join(e for e in map(evidence, d.evidence) if e) or "-",
        )
        for d in found
    ]
    counts = {v: sum(d.verdict == v for d in found) for v in ("holds", "fails", "not decided", "not run")}
    tally = ", ".join(f"{v}: {n}" for v, n in counts.items() if n)
    return Table(f"{caption} ({tally})", "llll", ("claim", "source", "verdict", "difference [95 % interval]"), rows)


def glance(found: Sequence[tuple[Setting, Sequence[Decision]]]) -> Table:
    """Each setting with the number of its claims by verdict."""
    verdicts = ("holds", "fails", "not decided", "not run")
    rows, number = [], 0
    for setting, decided in found:
        first = setting.rows[0]
        number += not setting.is_papers
        name = f"{number}: {data_name(first.data)}, {first.total:,} steps"
        if setting.is_papers:
            name = f"the paper's, {FAMILIES[setting.family]}"
        seeds = len({row.seed for row in setting.rows})
        counts = [str(sum(d.verdict == v for d in decided)) for v in verdicts]
        program = "Ray" if first.engine == "ray" else "one process"
        rows.append((name, program, str(len(setting.networks)), str(seeds), *counts))
    header = ("setting", "made by", "networks", "seeds", *verdicts)
    return Table("At a glance: claims by setting", "llrrrrrr", header, rows)


def counted(n: int, what: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def evidence(found: Evidence) -> str:
    """`plain-56 - plain-20, training error: +3.21 [+1.20, +5.22], 3 seeds`; empty if it was not run."""
    if found.mean is None:
        return ""
    c = found.comparison
    right = figures.short_name(c.right) if isinstance(c.right, str) else f"{c.right:g}"
    digits = 3 if c.metric == "response_std" else 2
    text = f"{figures.short_name(c.left)} - {right}, {METRICS[c.metric]}: {found.mean:+.{digits}f}"
    if found.low is not None and found.high is not None and found.low == found.low:
        text += f" [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"
    return f"{text}, {counted(found.n, 'seed')}"


def complexities() -> Table:
    """Table 1: multiply-adds as printed, and as counted in our networks."""
    rows = []
    for row in paper.TABLE1:
        cost = _cost(row.network) if row.network else None
        ours = (f"{cost.multiply_adds / 1e9:.2f}", f"{cost.parameters / 1e6:.2f}") if cost else ("-", "-")
        rows.append((row.method, f"{row.multiply_adds / 1e9:.1f}", *ours))
    header = ("network", "paper, 1e9 multiply-adds", "ours", "ours, 1e6 parameters")
    return Table("Table 1: what the networks cost, counted for one 224x224 image", "lrrr", header, rows)


@cache
def _cost(network: str) -> Cost:
    """Counted once: 1202 layers take a second."""
    from resnet.cost import count

    return count(network)


def beside(caption: str, rows: Sequence[paper.Result], setting: Setting | None) -> Table:
    """A table of the paper with ours. A row is ours only by the protocol of the paper's row."""
    with_top5 = any(row.top5_error is not None for row in rows)
    header = ["method", "seeds", "paper, top-1 %", "ours, top-1 %", "difference"]
    header += ["paper, top-5 %", "ours, top-5 %", "difference"] if with_top5 else []
    if any(row.parameters for row in rows):
        header.append("parameters, paper / ours")
    cells = [_beside(row, setting, with_top5, len(header)) for row in rows]
    return Table(caption, "l" + "r" * (len(header) - 1), header, cells)


def _beside(row: paper.Result, setting: Setting | None, with_top5: bool, columns: int) -> list[str]:
    ours: tuple[list[float], list[float]] = ([], [])
    if setting is not None and row.network is not None:
        ours = setting.errors(row.network, row.protocol)
    published = "-" if row.top1_error is None else f"{row.top1_error:.2f}"
    if row.mean is not None and row.std is not None:
        published += f" ({row.mean:.2f} ± {row.std:.2f})"
    # Where the paper prints the best of several runs and their mean, ours is a mean and is held against the mean.
    against = row.top1_error if row.mean is None else row.mean
    seeds = str(len(ours[0]) or "-") if row.network else ""
    cells = [row.method, seeds, published, *_difference(ours[0], against, row)]
    if with_top5:
        top5 = "-" if row.top5_error is None else f"{row.top5_error:.2f}"
        cells += [top5, *_difference(ours[1], row.top5_error, row)]
    if len(cells) < columns:
        cells.append(_parameters(row))
    return cells


def _difference(ours: Sequence[float], published: float | None, row: paper.Result) -> tuple[str, str]:
    if not ours or row.network is None:
        return "not run" if row.network else "", ""
    return spread(ours), "" if published is None else f"{statistics.fmean(ours) - published:+.2f}"


def _parameters(row: paper.Result) -> str:
    if row.parameters is None:
        return ""
    printed = f"{row.parameters / 1e6:.4g}M"
    return f"{printed} / {_cost(row.network).parameters / 1e6:.3g}M" if row.network else printed


def networks(setting: Setting, caption: str) -> Table:
    """Every network of a setting, by the training's own protocol, without the paper's figures."""
    protocol = setting.rows[0].protocol
    header = (
        "network",
        "seeds",
        f"training error % ({'finished network' if setting.tests_are_final else 'last epoch, running'})",
        f"top-1 error % ({protocol})",
        "top-5 error %",
        "std of responses",
    )
    stds = setting.results(protocol)
    rows = []
    for name in setting.networks:
        top1, top5 = setting.errors(name, protocol)
        training = [error for row in setting.of(name) if (error := setting.train_error(row)) is not None]
        response = spread(list(stds.get((name, "response_std"), {}).values()), 3)
        rows.append(
            (
                figures.short_name(name),
                str(len(setting.of(name))),
                spread(training),
                spread(top1),
                spread(top5),
                response,
            )
        )
    return Table(caption, "lrrrrr", header, rows)


def runs(rows: Sequence[ResultRow], numbers: dict[str, str]) -> Table:
    """Every training. numbers: what the page calls its setting, by ResultRow.setting."""
    errors = ("running training error %", "top-1 error %")
    errors = ("running training error %", "top-1 error %")
    header = ("run", "setting", "made by", "commit", "steps", *errors, "CPU hours", "note")
    cells = [
        (
            row.name,
            numbers[row.setting],
            row.engine,
            row.commit[:9],
            f"{row.steps:,}",
            f"{row.train_error:.2f}",
            f"{row.top1_error:.2f}",
            "-" if row.cpu_seconds is None else f"{row.cpu_seconds / 3600:.2f}",
            row.note,
        )
        for row in sorted(rows, key=lambda row: (numbers[row.setting], row.recipe.network, row.seed))
    ]
    return Table("Every finished training, as results/trainings holds it", "llllrrrrl", header, cells)
