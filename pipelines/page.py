"""A page of headings, paragraphs, tables and figures, as one self-contained HTML file or as Markdown."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from pipelines import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

VERDICTS = {"holds", "alike", "fails", "not decided", "not run"}


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's title."""

    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Table:
    """align: one letter a column, l or r; caption: what stands above it."""

    caption: str
    align: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """name: of its files, without suffix."""

    name: str
    caption: str
    drawing: Drawing


Part = Heading | Paragraph | Table | Figure


def to_markdown(parts: Sequence[Part], pictures: str) -> str:
    """GitHub's Markdown. pictures: the figures' folder, as a link from the file."""
    return "\n\n".join(_markdown(part, pictures) for part in parts) + "\n"


def _markdown(part: Part, pictures: str) -> str:
    if isinstance(part, Heading):
        return f"{'#' * part.level} {part.text}"
    if isinstance(part, Paragraph):
        return part.text
    if isinstance(part, Figure):
        return f"![{part.caption}]({pictures}/{part.name}.png)\n\n*{part.caption}*"
    rule = ["--:" if letter == "r" else ":--" for letter in part.align]
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (part.header, rule, *part.rows)]
    return f"**{part.caption}**\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def to_html(parts: Sequence[Part]) -> str:
    """One HTML file that needs no other: light or dark as the reader's system is, black on white in print."""
    title = next((part.text for part in parts if isinstance(part, Heading) and part.level == 1), "Results")
    css = (resources.files("pipelines") / "page.css").read_text()
    body = "\n".join(_html(part) for part in parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{css}</style>\n</head>\n"
        f"<body>\n<nav>{_contents(parts)}</nav>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _contents(parts: Sequence[Part]) -> str:
    """Links to the headings of the second level."""
    found = [part.text for part in parts if isinstance(part, Heading) and part.level == 2]
    return "".join(f'<a href="#{_anchor(text)}">{html.escape(text)}</a>' for text in found)


def _anchor(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower())


def _html(part: Part) -> str:
    if isinstance(part, Heading):
        return f'<h{part.level} id="{_anchor(part.text)}">{html.escape(part.text)}</h{part.level}>'
    if isinstance(part, Paragraph):
        return f"<p>{html.escape(part.text)}</p>"
    if isinstance(part, Figure):
        caption = html.escape(part.caption)
        return f"<figure>{figures.inline_svg(part.drawing, part.name)}<figcaption>{caption}</figcaption></figure>"
    header = _row(part.header, part.align, "th", html.escape)
    rows = "\n".join(_row(row, part.align, "td", _cell) for row in part.rows)
    return (
        f'<div class="table"><table><caption>{html.escape(part.caption)}</caption>\n'
        f"<thead>{header}</thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _row(cells: Sequence[str], align: str, tag: str, text: Callable[[str], str]) -> str:
    inside = (
        f"<{tag}{' class=r' if letter == 'r' else ''}>{text(cell)}</{tag}>"
        for cell, letter in zip(cells, align, strict=True)
    )
    return f"<tr>{''.join(inside)}</tr>"


def _cell(text: str) -> str:
    if text in VERDICTS:  # CSS makes it a mark where it is decided, and pale words where it is not run
        return f'<span class="verdict {text.replace(" ", "-")}">{text}</span>'
    lines = text.split("<br>")
    if len(lines) == 1:
        return html.escape(text)
    return "".join(f"<div>{html.escape(line)}</div>" for line in lines)
