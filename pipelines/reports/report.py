"""Pages about trainings: the table and curves of one, and the report of the paper's results beside ours."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.reports import depth_figure, figures, report_text, setting_tables, tables
from pipelines.reports.html_page import Figure, Heading, PageBlock, Paragraph, Table, to_html, to_markdown
from pipelines.reports.result_settings import Setting, data_name, describe_setting, settings
from pipelines.reports.verdicts import Decision, decisions, image_by_image
from resnet.networks.architectures import FAMILIES, parse_network
from resnet.paper import published
from resnet.paper.result_rows import CurveRow, ResultRow

TABLES = {
    "imagenet": {
        "Table 2: plain nets and ResNets, 10-crop": published.TABLE2,
        "Table 3: shortcuts and depth, 10-crop": published.TABLE3,
        "Table 4: single models, multi-scale fully convolutional": published.TABLE4,
        "Table 5: ensembles, ImageNet test set": published.TABLE5,
        "The authors' release: 1-crop": published.RELEASE,
    },
    "cifar10": {"Table 6: CIFAR-10 test set": published.TABLE6},
}
PLAIN = tuple(f"cifar10-plain{depth}" for depth in (20, 32, 44, 56, 110))
RESIDUAL = tuple(f"cifar10-resnet{depth}-A" for depth in (20, 32, 44, 56, 110))
FIGURES = {  # number -> the networks of each panel; a panel is drawn if two of them were trained
    1: {"plain nets": (PLAIN[0], PLAIN[3])},
    4: {
        "plain nets": ("imagenet-plain18", "imagenet-plain34"),
        "ResNets": ("imagenet-resnet18-A", "imagenet-resnet34-A"),
    },
    6: {
        "plain nets": PLAIN,
        "ResNets": RESIDUAL,
        "110 and 1202 layers": ("cifar10-resnet110-A", "cifar10-resnet1202-A"),
    },
}
CURVES = (
    "Training error dashed, test error bold: the mean over seeds, with the range of the test error where there are "
    "several. The training error is that of the augmented images as they were learnt."
)
RESPONSES = (
    "standard deviations of layer responses (outputs of the 3x3 layers after batch normalisation, before ReLU and "
    "addition), in the order of the layers and sorted; the first seed of each network."
)
OTHERS = (
    "These trainings differ from the paper's in their schedule or their data. Each setting is compared within itself "
    "only: its figures say nothing of the paper's figures, and its verdicts hold for it alone."
)


def write_report(
    rows: Sequence[ResultRow], out: str | os.PathLike[str], docs: str | os.PathLike[str] | None = None
) -> Path:
    """report.html, report.md and figures/ in a folder; the Markdown also as the file `docs`. The HTML's path."""
    folder = Path(out)
    parts = list(report(rows))
    for pattern in ("setting[0-9]*-*.*", "paper-*-*.*", "depths-*.*"):  # one setting more gives others new numbers
        for earlier in (folder / "figures").glob(pattern):
            earlier.unlink()
    for part in parts:
        if isinstance(part, Figure):
            figures.save_figure(part.drawing, folder / "figures", part.name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(to_html(parts))
    (folder / "report.md").write_text(to_markdown(parts, "figures"))
    if docs is not None:
        Path(docs).parent.mkdir(parents=True, exist_ok=True)
        link = os.path.relpath(folder / "figures", Path(docs).parent)
        Path(docs).write_text(to_markdown(parts, Path(link).as_posix()))
    return folder / "report.html"


def report(rows: Sequence[ResultRow]) -> Iterator[PageBlock]:
    """The parts of the page: scope and verdicts at a glance, the paper's setting, every other one on its own, what was
    not run, and what a reviewer of a reproduction asks for."""
    found = settings(rows)
    papers = [s for s in found if s.is_papers]
    others = [s for s in found if not s.is_papers]
    numbers = {s.rows[0].setting: f"the paper's, {FAMILIES[s.family].title}" for s in papers}
    numbers |= {s.rows[0].setting: str(number) for number, s in enumerate(others, start=1)}
    yield Heading(1, "Deep residual learning: the paper's results beside ours")
    yield Paragraph(_summary(rows, papers, others))
    yield Paragraph(report_text.SCOPE)
    if rows and (lacking := _lacking(rows)):
        yield Paragraph(lacking)
    if found:
        yield tables.glance([(s, decisions(s, s.family)) for s in found])
    yield from _depths(found, numbers)
    yield Heading(2, "How claims are judged")
    yield Paragraph(report_text.HOW)
    yield Table("Verdicts", "ll", ("verdict", "of a claim"), report_text.VERDICT_ROWS)
    yield from map(Paragraph, (report_text.TRENDS, report_text.MCNEMAR, report_text.POWER))
    yield tables.power()
    if papers:
        yield Heading(2, "The paper's setting")
    for setting in papers:
        yield from _beside_the_paper(setting)
    if others:
        yield Heading(2, "Other settings")
        yield Paragraph(OTHERS)
    for number, setting in enumerate(others, start=1):
        yield from _among_themselves(setting, number)
    yield from _present(setting_tables.ablations(found, numbers), heading="Ablations")
    yield from _differences_from_the_paper(found, numbers)
    yield Heading(2, "Costs")
    yield tables.complexities()
    if found:
        yield setting_tables.compute(found, numbers)
    yield from _not_run([family for family in sorted(FAMILIES) if family not in {s.family for s in papers}])
    yield Heading(2, "What was easy, what was hard")
    yield from map(Paragraph, (report_text.EASY, report_text.HARD))
    yield Heading(2, "Runs")
    yield tables.runs(rows, numbers)


def _lacking(rows: Sequence[ResultRow]) -> str:
    """The facts that rows do not record, and so nobody can know of them."""
    without = {
        "precision, batch norm's group, threads, versions and the CPU's model": sum(not r.conditions for r in rows),
        "a test of the finished network in float32, its predictions": sum(r.final is None for r in rows),
        "norms of gradients": sum(not r.norms for r in rows),
        "CPU hours": sum(r.cpu_seconds is None for r in rows),
    }
    said = [f"{n} of {len(rows)} lack {what}" for what, n in without.items() if n]
    return f"Not recorded, and not made up later: {'; '.join(said)}." if said else ""


def _depths(found: Sequence[Setting], numbers: setting_tables.Numbers) -> Iterator[PageBlock]:
    """Error against depth, a figure a family of networks."""
    names = {
        s.rows[0].setting: "ours in the paper's setting" if s.is_papers else f"setting {numbers[s.rows[0].setting]}"
        for s in found
    }
    for family, drawn in depth_figure.panels(found, names).items():
        caption = f"{FAMILIES[family].title} networks. {report_text.DEPTHS}"
        yield Figure(f"depths-{family}", caption, depth_figure.depth_drawing(drawn))


def _present(table: Table | None, heading: str = "") -> Iterator[PageBlock]:
    """A table that there may be, with a heading of its own."""
    if table is not None:
        if heading:
            yield Heading(2, heading)
        yield table


def _differences_from_the_paper(found: Sequence[Setting], numbers: setting_tables.Numbers) -> Iterator[PageBlock]:
    """Choices that the paper leaves, hyper-parameters that differ, and what was looked at to choose them."""
    yield Heading(2, "Differences from the paper")
    yield Paragraph(report_text.DEPARTURES)
    header = ("what", "the paper", "here, by default", "field of the run")
    yield Table("Choices of the recipes called @paper", "llll", header, report_text.DEPARTURE_ROWS)
    yield from _present(setting_tables.departures(found, numbers))
    yield Paragraph(report_text.CHOSEN)
    plateau = [numbers[s.rows[0].setting] for s in found if s.rows[0].recipe.schedule.kind == "plateau"]
    if plateau:
        yield Paragraph(report_text.PLATEAU.format(settings=f"setting {', '.join(plateau)}"))


def _summary(rows: Sequence[ResultRow], papers: Sequence[Setting], others: Sequence[Setting]) -> str:
    if not rows:
        return "He et al., arXiv 1512.03385. No training is finished yet."
    counted = tables.counted
    trained = counted(len({row.recipe.network for row in rows}), "network")
    text = f"He et al., arXiv 1512.03385. {counted(len(rows), 'finished training')} of {trained}: "
    own = sum(len(s.rows) for s in papers)
    text += f"{own or 'none'} in the paper's own setting"
    rest = f", {len(rows) - own} in {counted(len(others), 'other setting')}, compared among themselves only"
    return text + (rest if others else "") + "."


def _beside_the_paper(setting: Setting) -> Iterator[PageBlock]:
    """The claims that a setting of the paper's own decides, the paper's tables with ours beside, and the figures."""
    family, engine = setting.family, setting.rows[0].engine
    yield Heading(3, f"{FAMILIES[family].title}, {'trained on Ray' if engine == 'ray' else 'trained in one process'}")
    yield Paragraph(describe_setting(setting))
    decided = decisions(setting, family)
    yield tables.claims(decided, "The paper's claims")
    yield from _in_numbers(setting, decided, "The paper's setting")
    for caption, rows in TABLES[family].items():
        yield tables.beside(caption, rows, setting)
    yield from drawn(setting, f"paper-{engine}")


def _in_numbers(setting: Setting, decided: Sequence[Decision], name: str) -> Iterator[PageBlock]:
    """The comparisons of a setting in full, two trained networks image by image, and norms of gradients."""
    yield from _present(tables.arithmetic(decided, f"{name}: the comparisons in numbers"))
    if pairs := image_by_image(setting, setting.family):
        yield tables.by_image(pairs, f"{name}: two trained networks, image by image (McNemar's exact test)")
    yield from _present(setting_tables.gradients(setting, f"{name}: {report_text.GRADIENTS}"))


def _not_run(families: Sequence[str]) -> Iterator[PageBlock]:
    """The paper's claims and tables of families of which nothing was trained in the paper's setting."""
    if families:
        yield Heading(2, "Not run yet")
        yield Paragraph("Nothing was trained in the paper's own setting of these: its figures stand alone.")
    for family in families:
        yield Heading(3, FAMILIES[family].title)
        yield tables.claims(decisions(None, family), "The paper's claims")
        for caption, rows in TABLES[family].items():
            yield tables.beside(caption, rows, None)


def _among_themselves(setting: Setting, number: int) -> Iterator[PageBlock]:
    """A setting that is not the paper's: its networks, what they decide within it, its figures."""
    first, papers = setting.rows[0], FAMILIES[setting.family].steps
    name = f"Setting {number}"
    yield Heading(
        3, f"{name}: {FAMILIES[setting.family].title} networks on {data_name(first.data)}, {first.total:,} steps"
    )
    share = f"The paper's training has {papers:,} steps; this is {100 * first.total / papers:.3g} % of them."
    yield Paragraph(f"{describe_setting(setting)} {share}")
    yield tables.networks(setting, f"{name}, last epoch")
    decided = [d for d in decisions(setting, setting.family) if d.verdict != "not run"]
    if decided:
        caption = f"The paper's comparisons within {name.lower()}, no verdict on the paper's"
        yield tables.claims(decided, caption, data_name(first.data))
    yield from _in_numbers(setting, decided, name)
    yield from drawn(setting, f"setting{number}")


def drawn(setting: Setting, prefix: str) -> Iterator[Figure]:
    """The paper's figures of the networks that a setting has, one of its other curves, and Figure 7."""
    curves = {name: [row.curve for row in setting.of(name) if row.curve] for name in setting.networks}
    curves = {name: found for name, found in curves.items() if found}
    shown: set[str] = set()
    for number, panels in FIGURES.items():
        found = {title: {n: curves[n] for n in names if n in curves} for title, names in panels.items()}
        found = {title: inside for title, inside in found.items() if len(inside) > 1}
        networks = {name for inside in found.values() for name in inside}
        if networks - shown:
            shown |= networks
            drawing = figures.error_curves(found)
            caption = f"Figure {number}: {' and '.join(found)} on {data_name(setting.rows[0].data)}. {CURVES}"
            yield Figure(f"{prefix}-figure{number}", caption, drawing)
    rest = {name: found for name, found in curves.items() if name not in shown}
    left = {"plain nets": _some(rest, plain=True), "ResNets": _some(rest, plain=False)}
    if rest:
        drawing = figures.error_curves({title: inside for title, inside in left.items() if inside})
        yield Figure(
            f"{prefix}-curves", f"{'The other' if shown else 'All'} networks of this setting. {CURVES}", drawing
        )
    responses = {name: row.responses for name in setting.networks for row in setting.of(name)[:1] if row.responses}
    if responses:
        drawing = figures.responses(responses)
        yield Figure(f"{prefix}-figure7", f"Figure 7: {RESPONSES}", drawing)


def _some(curves: figures.Curves, *, plain: bool) -> dict[str, Sequence[Sequence[CurveRow]]]:
    """The curves of the networks without shortcuts, or of those with."""
    return {name: found for name, found in curves.items() if (parse_network(name).shortcut == "none") == plain}
