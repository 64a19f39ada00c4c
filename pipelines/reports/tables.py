"""The tables of the report: claims with their evidence, the paper's figures beside ours, the networks of a setting."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from pipelines.reports import figures
from pipelines.reports.html_page import Table
from pipelines.reports.result_settings import Setting, data_name, particulars, spread
from pipelines.reports.significance import LEVEL, ImageByImage, equivalence_p, half_width, seeds_needed
from pipelines.reports.verdicts import HALF, VERDICTS, Decision, Evidence, TrendEvidence, TwoNetworks, counts
from resnet.networks.architectures import FAMILIES
from resnet.paper import published
from resnet.paper.claim_forms import COUNTED, Comparison
from resnet.paper.result_rows import ResultRow

METRICS = {
    "top1_error": "top-1 error",
    "top5_error": "top-5 error",
    "train_error": "training error",
    "early_error": "error of the first half",
    "gradient_imbalance": "log10 of the gradients' ratio",
    "response_median": "median std of responses",
    "response_mean": "mean std of responses",
    "multiply_adds": "multiply-adds",
    "parameters": "parameters",
}
FINE = ("response_median", "response_mean", "gradient_imbalance")  # shown with three digits after the point


def claims(found: Sequence[Decision], caption: str, data: str = "CIFAR-10") -> Table:
    """Claims with their verdicts and evidence. data: what the claims on CIFAR-10 are judged on."""
    rows = [
        (_sentence(d).replace("CIFAR-10", data), d.claim.source, d.verdict, "<br>".join(reasons(d)) or "-")
        for d in found
    ]
    counts = {v: sum(d.verdict == v for d in found) for v in VERDICTS}
    tally = ", ".join(f"{v}: {n}" for v, n in counts.items() if n)
    return Table(f"{caption} ({tally})", "llll", ("claim", "source", "verdict", "difference [95 % interval]"), rows)


def _sentence(found: Decision) -> str:
    """The claim, and on a line of its own what a reader must know of a verdict that there is or cannot be."""
    noted = found.claim.note and (found.verdict != "not run" or found.claim.judged_in == "nowhere")
    return f"{found.claim.sentence}<br>{found.claim.note}" if noted else found.claim.sentence


def reasons(found: Decision) -> list[str]:
    """The grounds of a verdict, a line each."""
    lines = [line for line in map(evidence, found.evidence) if line]
    lines += [f"beside, not judged: {line}" for line in map(evidence, found.beside) if line]
    if found.trend is not None and (line := trend(found.trend)):
        lines.append(line)
    return lines


def glance(found: Sequence[tuple[Setting, Sequence[Decision]]]) -> Table:
    """Each setting with the number of its claims by verdict."""
    rows, number = [], 0
    for setting, decided in found:
        first = setting.rows[0]
        number += not setting.is_papers
        name = f"{number}: {data_name(first.data)}, {first.total:,} steps{particulars(setting)}"
        if setting.is_papers:
            name = f"the paper's, {FAMILIES[setting.family].title}"
        seeds = len({row.seed for row in setting.rows})
        counts = [str(sum(d.verdict == v for d in decided)) for v in VERDICTS]
        program = "Ray" if first.engine == "ray" else "one process"
        rows.append((name, program, str(len(setting.networks)), str(seeds), *counts))
    header = ("setting", "made by", "networks", "seeds", *VERDICTS)
    return Table("At a glance: claims by setting", "llrrrrrrr", header, rows)


def counted(n: int, what: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def comparison_name(c: Comparison) -> str:
    """`plain-56 - plain-20, training error`."""
    right = figures.short_name(c.right) if isinstance(c.right, str) else f"{c.right:g}"
    return f"{figures.short_name(c.left)} - {right}, {METRICS[c.metric]}"


def bounds(interval: tuple[float, float], digits: int) -> str:
    """`[+1.20, +5.22]`; empty where it is not defined."""
    low, high = interval
    return "" if math.isnan(low) else f"[{low:+.{digits}f}, {high:+.{digits}f}]"


def evidence(found: Evidence) -> str:
    """`plain-56 - plain-20, training error: +3.21 [+1.20, +5.22], 3 seeds`; empty if it was not run."""
    c = found.comparison
    if found.mean is None:
        return ""
    if c.metric in COUNTED:
        return f"{comparison_name(c)}: {found.mean:+.3g}, counted"
    if c.metric == "gradient_imbalance":
        return _gradients(found)
    if c.metric == "smaller_responses":
        left, right = figures.short_name(c.left), figures.short_name(str(c.right))
        shares = ", ".join(f"{value + HALF:.0f}" for value in found.differences)
        return f"{left} less than {right} in {shares} % of the layers, {counted(len(found.differences), 'seed')}"
    digits = 3 if c.metric in FINE else 2
    interval = bounds(found.interval, digits)
    text = f"{comparison_name(c)}: {found.mean:+.{digits}f}{' ' if interval else ''}{interval}"
    text += f", {counted(len(found.differences), 'seed')}"
    if c.margin is not None and len(found.differences) > 1:
        p = equivalence_p(found.differences, c.margin)
        text += f"; within ± {c.margin:g}: p = {p:.2g}" if p == p else ""
    return text


def _gradients(found: Evidence) -> str:
    """`plain-56: the gradients differ by a factor of 2,780 [2,100, 3,700], bound 10, 2 seeds`: means of logarithms."""
    bound = float(found.comparison.right)
    low, high = (10 ** (end + bound) for end in found.interval)
    interval = "" if math.isnan(low) else f" [{three_digits(low)}, {three_digits(high)}]"
    factor = 10 ** ((found.mean or 0.0) + bound)
    name = figures.short_name(found.comparison.left)
    text = f"{name}: first and last gradient differ by a factor of {three_digits(factor)}"
    return f"{text}{interval}, bound {10**bound:g}, {counted(len(found.differences), 'seed')}"


def three_digits(value: float) -> str:
    """`2,780` of 2776.4, `0.123` of 0.12345."""
    return f"{float(f'{value:.3g}'):,.10g}"


def trend(found: TrendEvidence) -> str:
    """`8, 14, 20 layers: +1.20 points a doubling of depth [+0.8, +1.6]; Page's p = 0.004, 3 seeds`."""
    if found.verdict == "not run":
        return ""
    text = f"{', '.join(map(str, found.depths))} layers"
    if found.slope is not None:
        text += f": {found.slope.value:+.2f} points a doubling of depth {bounds(found.slope[1:], 2)}"
    if found.p is None:
        return f"{text}; {counted(found.seeds, 'seed')} with all depths, Page's test needs two"
    return f"{text}; Page's p = {found.p:.2g}, {counted(found.seeds, 'seed')}"


def arithmetic(found: Sequence[Decision], caption: str) -> Table | None:
    """Each comparison with the paired interval, Welch's, the level of `fails`, and what other seeds could decide.

    None: nothing has two seeds.
    """
    rows = {}
    for decided in found:
        for e in (*decided.evidence, *decided.beside):
            if len(e.differences) > 1 and e.comparison.metric not in (*COUNTED, "smaller_responses"):
                rows[e.comparison] = _arithmetic(e, max(1, len(decided.evidence)))
    header = ("comparison", "seeds", "difference", "paired 95 %", "Welch's 95 %", "level of fails", "half-width",
              "of 3, 5, 10 seeds", "seeds needed")  # fmt: skip
    return Table(caption, "lrrrrrrrr", header, list(rows.values())) if rows else None


def _arithmetic(e: Evidence, comparisons: int) -> tuple[str, ...]:
    digits = 3 if e.comparison.metric in FINE else 2
    std = statistics.stdev(e.differences)
    now, *other = (f"{half_width(std, n):.{digits}f}" for n in (len(e.differences), 3, 5, 10))
    return (
        comparison_name(e.comparison),
        str(len(e.differences)),
        f"{statistics.fmean(e.differences):+.{digits}f}",
        bounds(e.interval, digits) or "-",
        bounds(e.welch, digits) or "-",
        f"{100 * LEVEL / comparisons:.3g} %",
        now,
        ", ".join(other),
        str(seeds_needed(e.differences) or "> 1,000") if std > 0 else "-",
    )


def by_image(found: Sequence[TwoNetworks], caption: str) -> Table:
    """McNemar's test, two networks a row, over the seeds of both. The level is divided by the number of tests."""
    level = LEVEL / max(1, len(found))
    pairs: dict[tuple[str, str], list[ImageByImage]] = {}
    for two in found:
        pairs.setdefault((two.left, two.right), []).append(two.found)
    short = {name: figures.short_name(name) for pair in pairs for name in pair}
    rows = [_by_image(short[left], short[right], tests, level) for (left, right), tests in pairs.items()]
    header = ("trained networks", "seeds", "only the first right", "only the second", "p", "which is right more often")
    return Table(f"{caption}, at {100 * level:.2g} % each", "lrrrrl", header, rows)


def _by_image(left: str, right: str, tests: Sequence[ImageByImage], level: float) -> tuple[str, ...]:
    apart = [test for test in tests if test.p < level]
    wins = {left: sum(t.only_left > t.only_right for t in apart), right: sum(t.only_right > t.only_left for t in apart)}
    said = [name if len(tests) == 1 else f"{name} in {n} of {len(tests)}" for name, n in wins.items() if n]
    counts = (_range([getattr(t, side) for t in tests], ",") for side in ("only_left", "only_right"))
    p = _range([test.p for test in tests], ".2g")
    return f"{left} and {right}", str(len(tests)), *counts, p, ", ".join(said) or "not told apart"


def _range(values: Sequence[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def power() -> Table:
    """Half-widths of the paired interval that seeds give."""
    seeds = (2, 3, 5, 10, 20)
    rows = [(f"{std:g}", *(f"{half_width(std, n):.2f}" for n in seeds)) for std in (0.25, 0.5, 1.0)]
    caption = "Half-width of the 95 % interval of a difference, in points: smaller differences are not decided"
    header = ("std of the differences", *(f"{n} seeds" for n in seeds))
    return Table(caption, "l" + "r" * len(seeds), header, rows)


def complexities() -> Table:
    """Table 1: multiply-adds as printed, and as counted in our networks."""
    rows = []
    for row in published.TABLE1:
        cost = counts(row.network) if row.network else None
        ours = (f"{cost.multiply_adds / 1e9:.2f}", f"{cost.parameters / 1e6:.2f}") if cost else ("-", "-")
        rows.append((row.method, f"{row.multiply_adds / 1e9:.1f}", *ours))
    header = ("network", "paper, 1e9 multiply-adds", "ours", "ours, 1e6 parameters")
    return Table("Table 1: what the networks cost, counted for one 224x224 image", "lrrr", header, rows)


def beside(caption: str, rows: Sequence[published.Result], setting: Setting | None) -> Table:
    """A table of the paper with ours. A row is ours only by the protocol of the paper's row."""
    with_top5 = any(row.top5_error is not None for row in rows)
    header = ["method", "seeds", "paper, top-1 %", "ours, top-1 %", "difference"]
    header += ["paper, top-5 %", "ours, top-5 %", "difference"] if with_top5 else []
    if any(row.parameters for row in rows):
        header.append("parameters, paper / ours")
    cells = [_beside(row, setting, with_top5, len(header)) for row in rows]
    return Table(caption, "l" + "r" * (len(header) - 1), header, cells)


def _beside(row: published.Result, setting: Setting | None, with_top5: bool, columns: int) -> list[str]:
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


def _difference(ours: Sequence[float], published: float | None, row: published.Result) -> tuple[str, str]:
    if not ours or row.network is None:
        return "not run" if row.network else "", ""
    return spread(ours), "" if published is None else f"{statistics.fmean(ours) - published:+.2f}"


def _parameters(row: published.Result) -> str:
    if row.parameters is None:
        return ""
    printed = f"{row.parameters / 1e6:.4g}M"
    return f"{printed} / {counts(row.network).parameters / 1e6:.3g}M" if row.network else printed


def networks(setting: Setting, caption: str) -> Table:
    """Every network of a setting, by the training's own protocol, without the paper's figures."""
    protocol = setting.rows[0].protocol
    tested = "finished network" if setting.tests_are_final else "last epoch, running"
    header = ("network", "seeds", f"training error % ({tested})", f"top-1 error % ({protocol})", "top-5 error %",
              "std of responses, median", "mean")  # fmt: skip
    measured = setting.results(protocol)
    rows = []
    for name in setting.networks:
        digits = {"train_error": 2, "top1_error": 2, "top5_error": 2, "response_median": 3, "response_mean": 3}
        cells = [spread(list(measured.get((name, metric), {}).values()), n) for metric, n in digits.items()]
        rows.append((figures.short_name(name), str(len(setting.of(name))), *cells))
    return Table(caption, "lrrrrrr", header, rows)


def runs(rows: Sequence[ResultRow], numbers: dict[str, str]) -> Table:
    """Every training. numbers: what the page calls its setting, by ResultRow.setting."""
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
