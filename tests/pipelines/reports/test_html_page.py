"""A page of parts becomes one HTML file that needs no other, or Markdown; what it shows is escaped."""

import re

from pipelines.reports import figures
from pipelines.reports.html_page import Figure, Heading, Paragraph, Table, to_html, to_markdown


def test_a_page_escapes_what_it_shows():
    parts = [
        Heading(1, "a < b"),
        Table("c & d", "lr", ("x", "y|z"), [("<script>", "p|q"), ("holds", "1"), ("alike", "")]),
    ]
    text = to_html(parts)
    assert '<span class="verdict alike">alike</span>' in text
    assert "<script>" not in text
    assert '<span class="verdict holds">holds</span>' in text
    assert "| <script> | p\\|q |" in to_markdown(parts, "figures")


PARTS = [
    Heading(1, "Results & more"),
    Heading(2, "First part"),
    Paragraph("Words with < and &."),
    Table("A table", "lr", ("name", "error"), [("a", "1.0"), ("one<br>two", "holds")]),
    Heading(2, "Second"),
]


def test_headings_are_reached_from_the_top_and_cells_stand_as_they_are_aligned():
    text = to_html(PARTS)
    assert "<title>Results &amp; more</title>" in text
    assert text.index("<nav>") < text.index("<main>")
    assert re.findall(r'<a href="#([^"]+)">([^<]+)</a>', text) == [("first-part", "First part"), ("second", "Second")]
    assert re.findall(r'<h2 id="([^"]+)">', text) == ["first-part", "second"]
    assert "<p>Words with &lt; and &amp;.</p>" in text
    assert "<th>name</th><th class=r>error</th>" in text
    assert "<td><div>one</div><div>two</div></td>" in text
    assert '<td class=r><span class="verdict holds">holds</span></td>' in text
    assert "<title>Results</title>" in to_html(PARTS[1:]), "without a first heading"


def test_the_same_parts_as_markdown():
    assert to_markdown(PARTS[1:4], "figures") == (
        "## First part\n\n"
        "Words with < and &.\n\n"
        "**A table**\n\n"
        "| name | error |\n| :-- | --: |\n| a | 1.0 |\n| one<br>two | holds |\n"
    )


def test_a_figure_is_inside_the_page_and_beside_the_markdown(row):
    drawing = figures.error_curves({"t": {"cifar10-plain20": [row("cifar10-plain20").curve]}})
    figure = Figure("paper-figure1", "Figure 1: errors", drawing)
    text = to_html([figure])
    assert '<figure><svg role="img" aria-label="paper-figure1"' in text
    assert "<figcaption>Figure 1: errors</figcaption></figure>" in text
    assert to_markdown([figure], "../figures") == (
        "![Figure 1: errors](../figures/paper-figure1.png)\n\n*Figure 1: errors*\n"
    )
