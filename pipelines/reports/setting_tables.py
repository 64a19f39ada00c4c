"""Tables on settings as such: how they differ from the paper's, what one change does, what they cost, gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from pipelines.reports import figures
from pipelines.reports.html_page import Table
from pipelines.reports.result_settings import ABLATED, Setting, differing, gradient_ratios, spread
from pipelines.reports.significance import paired_interval
from pipelines.reports.tables import bounds, three_digits
from resnet.paper.result_rows import GENTLE, ResultRow
from resnet.recipes.named import recipe

Numbers = Mapping[str, str]  # ResultRow.setting -> what the page calls it


def departures(settings: Sequence[Setting], numbers: Numbers) -> Table | None:
    """Every field in which a setting differs from the recipe of its networks that it names. None: none does."""
    where: dict[tuple[str, str, str], list[str]] = {}
    for setting in settings:
        for departure in _departures(setting.rows[0]):
            where.setdefault(departure, []).append(numbers[setting.rows[0].setting])
    rows = [(", ".join(found), *departure) for departure, found in where.items()]
    caption = "Hyper-parameters that differ from the recipe"
    return Table(caption, "llll", ("setting", "field", "the recipe's", "here"), rows) if rows else None


def _departures(row: ResultRow) -> list[tuple[str, str, str]]:
    """The first row stands for its setting, but for a gentle start, which the paper gives deep networks only."""
    papers, ours = (_flat(r.model_dump(mode="json")) for r in (recipe(row.recipe.name), row.recipe))
    left_out = {"variant", "network", "precision", "bn_batch"}
    variant = [] if row.recipe.variant == "paper" else [("recipe", "@paper", f"@{row.recipe.variant}")]
    if row.aspects["gentle_start"] == "the paper's":
        left_out |= {f"schedule.{name}" for name in GENTLE}
    changed = {field: value for field, value in ours.items() if field not in left_out and value != papers.get(field)}
    found = variant + [(field, _shown(papers.get(field)), _shown(value)) for field, value in changed.items()]
    asked = recipe(row.recipe.name).bn_batch
    if row.bn_batch != asked:
        found.append(("bn_batch", _shown(asked), "not recorded" if row.bn_batch is None else str(row.bn_batch)))
    if row.precision != "float32":
        found.append(("precision", "the paper's float32", row.precision or "not recorded"))
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None else str(value)


def ablations(settings: Sequence[Setting], numbers: Numbers) -> Table | None:
    """Networks of two settings that differ in just one aspect: what that does to the errors. None: there are none."""
    rows = []
    for one, other in combinations(settings, 2):
        changed = differing(one, other)
        if len(changed) == 1 and changed[0] in ABLATED and None not in (values := _values(one, other, changed[0])):
            names = " and ".join(numbers[s.rows[0].setting] for s in (one, other))
            rows += [(ABLATED[changed[0]], *values, names, *cells) for cells in _ablation(one, other)]
    header = ("aspect", "from", "to", "settings", "network", "seeds", "training error", "top-1 error")
    caption = "What one change does: errors after it less those before, in points, paired by seed [95 % interval]"
    return Table(caption, "llllllrr", header, rows) if rows else None


def _values(one: Setting, other: Setting, aspect: str) -> list[str | None]:
    """An aspect of two settings in words; None: not recorded."""
    found = [s.aspects[aspect] for s in (one, other)]
    if aspect == "gentle_start":
        return [value if isinstance(value, str) else "none" if value[0] is None else f"lr {value[0]:g}, {value[1]:g} %"
                for value in found]  # fmt: skip
    return [None if value is None else str(value) for value in found]


def _ablation(one: Setting, other: Setting) -> list[tuple[str, ...]]:
    before, after = (s.results(s.rows[0].protocol) for s in (one, other))
    rows = []
    for network in one.networks:
        if network in other.networks:
            seeds = {r.seed for r in one.of(network)} & {r.seed for r in other.of(network)}
            cells = [_change(before, after, (network, metric)) for metric in ("train_error", "top1_error")]
            rows.append((figures.short_name(network), str(len(seeds) or "-"), *cells))
    return rows


def _change(before: Any, after: Any, key: tuple[str, str]) -> str:
    """The mean difference of the seeds that both have; of others both means."""
    first, second = before.get(key, {}), after.get(key, {})
    shared = sorted(first.keys() & second.keys())
    if not shared:
        return f"{spread(list(first.values()))} to {spread(list(second.values()))}"
    found = [second[seed] - first[seed] for seed in shared]
    interval = bounds(paired_interval(found), 2) if len(found) > 1 else ""
    return f"{sum(found) / len(found):+.2f} {interval}".strip()


def gradients(setting: Setting, caption: str) -> Table | None:
    """Ratio of the gradient norms of first and last convolution, and the first one's weights, step by step.

    A range over seeds: a mean would hide an explosion. None: nothing was recorded.
    """
    rows = {name: [row for row in setting.of(name) if row.norms] for name in setting.networks}
    steps = sorted({norms.step for found in rows.values() for row in found for norms in row.norms})
    cells = [
        (figures.short_name(name), str(len(found)), *(_norms(found, step) for step in steps))
        for name, found in rows.items()
        if found
    ]
    header = ("network", "seeds", *(f"step {step:,}" for step in steps))
    return Table(caption, "l" + "r" * (len(steps) + 1), header, cells) if cells else None


def _norms(rows: Sequence[ResultRow], step: int) -> str:
    """`1.9-5.5 (5.7-5.8)`: ratio of gradients, norm of weights."""
    ratios = [ratio for row in rows if (ratio := gradient_ratios(row).get(step)) is not None]
    weights = [
        next(weight for name, (_, weight) in norms.layers.items() if "conv" in name)
        for row in rows
        for norms in row.norms
        if norms.step == step
    ]
    return f"{_range(ratios)} ({_range(weights)})" if ratios else "-"


def _range(values: Sequence[float]) -> str:
    low, high = three_digits(min(values)), three_digits(max(values))
    return low if low == high else f"{low}-{high}"


def compute(settings: Sequence[Setting], numbers: Numbers) -> Table:
    """Compute of each setting. CPU hours are the workers'; where nobody recorded them, wall hours stand alone."""
    rows = []
    for setting in settings:
        known = [row.cpu_seconds for row in setting.rows if row.cpu_seconds is not None]
        wall = [row.seconds for row in setting.rows if row.seconds is not None]
        hours = f"{sum(known) / 3600:.1f}" if known else "not recorded"
        if 0 < len(known) < len(setting.rows):
            hours += f" ({len(known)} of {len(setting.rows)} trainings)"
        steps = sum(row.steps for row in setting.rows)
        cells = (str(len(setting.rows)), f"{steps:,}", f"{sum(wall) / 3600:.1f}" if wall else "-", hours)
        rows.append((numbers[setting.rows[0].setting], *cells, _machines(setting)))
    header = ("setting", "trainings", "steps", "wall hours", "CPU hours", "machines")
    return Table("Compute used", "lrrrrl", header, rows)


def _machines(setting: Setting) -> str:
    found = {c.hardware for row in setting.rows for c in row.conditions}
    found |= {row.hardware for row in setting.rows if not row.conditions}
    return ", ".join(sorted(found))
