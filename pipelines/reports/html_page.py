"""A page of headings, paragraphs, tables and figures, as one self-contained HTML file or as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, ClassVar

from pipelines.reports import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

VERDICTS = {"holds", "alike", "fails", "not decided", "not run"}


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's title."""

    kind: ClassVar[str] = "heading"
    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Table:
    """align: one letter a column, l or r; caption: what stands above it."""

    kind: ClassVar[str] = "table"
    caption: str
    align: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """name: of its files, without suffix."""

    kind: ClassVar[str] = "figure"
    name: str
    caption: str
    drawing: Drawing


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side, in HTML only. pictures: each a data URI, and the lines below it."""

    kind: ClassVar[str] = "gallery"
    caption: str
    pictures: Sequence[tuple[str, Sequence[str]]]


PageBlock = Heading | Paragraph | Table | Figure | Gallery


def to_markdown(parts: Sequence[PageBlock], pictures: str) -> str:
    """GitHub's Markdown. pictures: the figures' folder, as a link from the file."""
    return "\n\n".join(_markdown(part, pictures) for part in parts) + "\n"


def _markdown(part: PageBlock, pictures: str) -> str:
    if isinstance(part, Heading):
        return f"{'#' * part.level} {part.text}"
    if isinstance(part, Paragraph):
        return part.text
    if isinstance(part, Gallery):
        return "\n".join(f"- {', '.join(lines)}" for _, lines in part.pictures)
    if isinstance(part, Figure):
        return f"![{part.caption}]({pictures}/{part.name}.png)\n\n*{part.caption}*"
    rule = ["--:" if letter == "r" else ":--" for letter in part.align]
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (part.header, rule, *part.rows)]
    return f"**{part.caption}**\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def to_html(parts: Sequence[PageBlock]) -> str:
    """One HTML file that needs no other: light or dark as the reader's system is, black on white in print."""
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    pages = Environment(loader=PackageLoader("pipelines", "reports"), autoescape=True, keep_trailing_newline=True)
    pages.filters["anchor"] = _anchor
    pages.filters["svg"] = lambda part: Markup(figures.inline_svg(part.drawing, part.name))  # drawn here, not given
    css = (resources.files("pipelines.reports") / "html_page.css").read_text()
    title = next((part.text for part in parts if isinstance(part, Heading) and part.level == 1), "Results")
    page = pages.get_template("html_page.html.j2")
    return page.render(parts=parts, title=title, css=Markup(css), verdicts=VERDICTS)


def _anchor(text: str) -> str:
    """The id of a heading, for links to it."""
    return "".join(c if c.isalnum() else "-" for c in text.lower())
