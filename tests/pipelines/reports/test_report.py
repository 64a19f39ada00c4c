import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from pipelines.reports import report
from pipelines.reports.html_page import Figure, Heading, Paragraph, Table
from resnet.evaluation.error_summary import Response
from resnet.paper import published
from resnet.paper.claims import CLAIMS
from resnet.paper.result_rows import CurveRow
from resnet.recipes.named import recipe

LINKS = ("src", "xlink:href", "href")


class Reader(HTMLParser):
    """Text of a page, and what it would load from elsewhere."""

    def __init__(self):
        super().__init__()
        self.text, self.loads, self.ids, self.open = [], [], [], []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.loads += [value for name, value in attrs if name in LINKS and not str(value).startswith("#")]
        self.ids += [found["id"]] if "id" in found else []
        if tag not in ("meta", "br", "path", "use", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def rows(row):
    """Full schedule on CIFAR-10 of four networks, and a shortened one of two; the shortened errors are all above 70."""
    found = []
    for place, network in enumerate(("cifar10-plain20", "cifar10-plain56", "cifar10-resnet20", "cifar10-resnet56")):
        for seed in (0, 1):
            responses = tuple(Response(layer=f"l{i}", std=1 + place + 0.1 * i + seed) for i in range(3))
            found.append(row(network, seed, top1_error=9.11 + place + 0.3 * seed, responses=responses))
            short = recipe(network).model_copy(update={"steps": 640})
            curve = (CurveRow(320, 0.1, 2.0, 95.0, 93.0), CurveRow(640, 0.1, 2.0, 90.0, 81.0))
            fields = {"recipe": short, "steps": 640, "total": 640, "curve": curve, "train_error": 90.0}
            found.append(row(network, seed, top1_error=81.23 + place + seed, **fields))
    return found


@pytest.fixture(scope="module")
def parts(rows):
    return list(report.report(rows))


def test_the_page_is_whole_and_needs_no_other_file(rows, tmp_path):
    page = report.write_report(rows, tmp_path / "out", tmp_path / "docs" / "results.md")
    text = page.read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.loads == []
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    references = set(re.findall(r'(?:xlink:href="#|url\(#|href="#)([^")]+)', text))
    assert references <= set(reader.ids)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    words = " ".join(reader.text)
    for claim in ("The 1202-layer ResNet trains to an error below 0.1 %.", "B is slightly better than A."):
        assert claim in words
    for name in re.findall(r"\((figures/[^)]+)\)", (tmp_path / "out" / "report.md").read_text()):
        with Image.open(tmp_path / "out" / name) as image:
            assert image.width > 600
        ElementTree.parse((tmp_path / "out" / name).with_suffix(".svg"))
    links = re.findall(r"\]\(([^)]+)\)", (tmp_path / "docs" / "results.md").read_text())
    assert links
    assert all((tmp_path / "docs" / link).exists() for link in links)


def test_a_shortened_schedule_never_stands_beside_the_papers_figures(parts):
    headings = [(place, part.text) for place, part in enumerate(parts) if isinstance(part, Heading)]
    others = next(place for place, text in headings if text == "Other settings")
    before = [part for part in parts[:others] if isinstance(part, Table)]
    assert not any(cell.startswith(("81.", "82.", "83.", "84.", "85.")) for t in before for r in t.rows for cell in r)
    (ours,) = [t for t in before if t.caption.startswith("Table 6")]
    assert [(r[0], r[1], r[3]) for r in ours.rows if r[1] not in ("", "-")] == [
        ("ResNet-20", "2", "11.26 ± 0.21"),
        ("ResNet-56", "2", "12.26 ± 0.21"),
    ]
    short = [part for part in parts[others:] if isinstance(part, Table) and part.caption.startswith("Setting 1")]
    assert [r[3] for r in short[0].rows] == ["81.73 ± 0.71", "82.73 ± 0.71", "83.73 ± 0.71", "84.73 ± 0.71"]
    assert "paper" not in " ".join(short[0].header)
    texts = [part.text for part in parts if isinstance(part, Paragraph)]
    assert any("640 steps" in text and "1 % of them" in text for text in texts)


def test_the_first_table_counts_what_was_decided_where(parts):
    first = next(part for part in parts if isinstance(part, Table))
    assert first.header[:4] == ("setting", "made by", "networks", "seeds")
    assert first.header[4:] == ("holds", "alike", "fails", "not decided", "not run")
    assert [row[:4] for row in first.rows] == [
        ("the paper's, CIFAR-10", "Ray", "4", "2"),
        ("1: CIFAR-10, 640 steps", "Ray", "4", "2"),
    ]
    captions = ("The paper's claims", "The paper's comparisons within setting 1")
    for counts, caption in zip(first.rows, captions, strict=True):
        claims = next(part for part in parts if isinstance(part, Table) and part.caption.startswith(caption))
        verdicts = [cells[2] for cells in claims.rows]
        assert counts[4:8] == tuple(str(verdicts.count(v)) for v in ("holds", "alike", "fails", "not decided"))


def test_without_rows_everything_is_not_run():
    parts = list(report.report([]))
    rows = [r for part in parts if isinstance(part, Table) and "The paper's claims" in part.caption for r in part.rows]
    assert len(rows) == len(CLAIMS)
    assert [r[0].partition("<br>")[0] for r in rows if r[2] != "not run"] == [
        "The 152-layer ResNet costs fewer multiply-adds than VGG-16 and VGG-19."
    ]
    said = " ".join(r[0] for r in rows)
    assert "Cannot be run: the labels of ImageNet's test set are not public." in said
    assert "Not here: this project classifies" in said


def test_every_table_of_the_paper_is_there_with_every_row(parts):
    captions = {part.caption: part for part in parts if isinstance(part, Table)}
    for number, table in zip(
        "23456", (published.TABLE2, published.TABLE3, published.TABLE4, published.TABLE5, published.TABLE6), strict=True
    ):
        (found,) = [t for caption, t in captions.items() if caption.startswith(f"Table {number}")]
        assert [r[0] for r in found.rows] == [r.method for r in table]
        assert [float(r[2].split()[0]) for r in found.rows if r[2] != "-"] == [
            r.top1_error for r in table if r.top1_error is not None
        ]


def test_what_a_reviewer_asks_for_is_there(parts):
    headings = [part.text for part in parts if isinstance(part, Heading)]
    for text in ("How claims are judged", "Differences from the paper", "Costs", "What was easy, what was hard"):
        assert text in headings
    captions = [part.caption for part in parts if isinstance(part, Table)]
    assert "Compute used" in captions
    assert "Hyper-parameters that differ from the recipe" in captions
    first = [part.text for part in parts[:4] if isinstance(part, Paragraph)]
    assert any("Not judged at all: detection" in text for text in first)
    assert any("16 of 16 lack precision" in text for text in first)


def test_a_table_gives_the_arithmetic_of_each_comparison(parts):
    table = next(
        part for part in parts if isinstance(part, Table) and "the paper's setting: the" in part.caption.lower()
    )
    (found,) = [r for r in table.rows if r[0] == "plain-56 - plain-20, top-1 error"]
    left, right = (10.11, 10.41), (9.11, 9.41)
    assert found[1:3] == ("2", f"{np.mean(left) - np.mean(right):+.2f}")
    welch = stats.ttest_ind(left, right, equal_var=False).confidence_interval()
    assert found[4] == f"[{welch.low:+.2f}, {welch.high:+.2f}]"
    assert found[5] == "2.5 %"


def test_figures_draw_what_they_say(parts):
    drawn = {part.name: part.drawing for part in parts if isinstance(part, Figure)}
    assert set(drawn) == {
        "paper-ray-figure1", "paper-ray-figure6", "paper-ray-figure7", "setting1-figure1", "setting1-figure6",
    }  # fmt: skip
    axes = drawn["setting1-figure6"].axes
    assert [ax.get_title() for ax in axes] == ["plain nets", "ResNets"]
    dashed, bold = axes[0].lines[0], axes[0].lines[1]
    assert (dashed.get_linestyle(), bold.get_linestyle()) == ("--", "-")
    assert dashed.get_linewidth() < bold.get_linewidth()
    np.testing.assert_allclose(np.asarray(bold.get_xydata()), [[320, 93], [640, 81]])
    np.testing.assert_allclose(np.asarray(dashed.get_xydata()), [[320, 95], [640, 90]])
    assert axes[0].get_ylim() == axes[1].get_ylim()
    ordered, sorted_ = drawn["paper-ray-figure7"].axes
    assert all(np.all(np.diff(np.asarray(line.get_ydata())) <= 0) for line in sorted_.lines)
    np.testing.assert_allclose(np.asarray(ordered.lines[0].get_ydata()), [1.0, 1.1, 1.2])


def test_a_report_leaves_no_figure_of_an_earlier_one(rows, tmp_path):
    report.write_report(rows, tmp_path)
    first = {path.name for path in (tmp_path / "figures").iterdir()}
    (tmp_path / "figures" / "own.png").touch()
    report.write_report(rows[:1], tmp_path)
    now = {path.name for path in (tmp_path / "figures").iterdir()}
    assert first - now
    assert "own.png" in now
    shown = (tmp_path / "report.md").read_text()
    assert all(name in shown for name in now - {"own.png"} if name.endswith(".png"))
