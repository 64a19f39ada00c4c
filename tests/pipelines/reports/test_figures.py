"""Figures draw what they say, alike each time, under the paper's names."""

import re
from typing import Any, cast
from xml.etree import ElementTree

import numpy as np

from pipelines.reports import figures
from resnet.evaluation.error_summary import Ranked, Response
from resnet.paper.result_rows import CurveRow


def test_a_figure_is_the_same_file_each_time(row, tmp_path):
    for folder in ("a", "b"):
        drawing = figures.error_curves({"t": {"cifar10-plain20": [row("cifar10-plain20").curve]}})
        figures.save_figure(drawing, tmp_path / folder, "f")
    for name in ("f.png", "f.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_names_are_the_papers():
    names = (
        "cifar10-plain56",
        "cifar10-resnet110-A",
        "imagenet-resnet34-B",
        "imagenet-resnet50-B",
        "imagenet-resnet50-B-v1.5",
    )
    assert [figures.short_name(name) for name in names] == [
        "plain-56", "ResNet-110", "ResNet-34 B", "ResNet-50", "ResNet-50 v1.5",
    ]  # fmt: skip
    assert figures.short_name("step-00000264") == "step-00000264"
    assert figures.short_name("cifar10-resnet110-A@lr 0.1 from the start") == "ResNet-110 (lr 0.1 from the start)"


def curve(*errors, train=50.0):
    """Epochs of a hundred steps."""
    return tuple(CurveRow(100 * (i + 1), 0.1, 2.0, train, error) for i, error in enumerate(errors))


def test_curves_are_means_over_seeds_within_a_band_over_the_epochs_that_all_have():
    seeds = [curve(60.0, 50.0, 40.0), curve(62.0, None)]
    (axes,) = figures.error_curves({"title": {"cifar10-plain20": seeds}}).axes
    train, test = axes.lines
    np.testing.assert_allclose(np.asarray(test.get_xydata()), [[100, 61], [200, 56]], err_msg="None: as before")
    np.testing.assert_allclose(np.asarray(train.get_ydata()), [50, 50])
    (band,) = axes.collections
    heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
    assert (heights.min(), heights.max()) == (50, 62)
    assert axes.get_title() == "title"


def test_names_at_the_ends_of_lines_do_not_overlap():
    networks = {f"cifar10-resnet{depth}-A": [curve(50.0, 40.0 + depth / 1000)] for depth in (20, 32, 44, 56)}
    (axes,) = figures.error_curves({"t": networks}).axes
    ends: list[Any] = list(axes.texts)
    heights = [text.xy[1] for text in ends]
    assert [text.get_text() for text in axes.texts] == ["ResNet-20", "ResNet-32", "ResNet-44", "ResNet-56"]
    low, high = axes.get_ylim()
    assert min(np.diff(heights)) >= 0.07 * (high - low)


def test_plain_nets_are_dashed_and_as_deep_ones_share_a_colour():
    found = {
        name: [Response(layer=f"l{i}", std=std) for i, std in enumerate(stds)]
        for name, stds in {
            "cifar10-plain20": (3.0, 1.0, 2.0),
            "cifar10-resnet20-A": (1.0, 1.5, 0.5),
            "cifar10-resnet56-A": (1.0, 1.0, 1.0, 1.0),
        }.items()
    }
    ordered, by_size = figures.responses(found).axes
    plain, residual, deep = ordered.lines
    assert [line.get_linestyle() for line in ordered.lines] == ["--", "-", "-"]
    assert plain.get_color() == residual.get_color() != deep.get_color()
    assert np.asarray(plain.get_ydata()).tolist() == [3.0, 1.0, 2.0]
    assert np.asarray(by_size.lines[0].get_ydata()).tolist() == [3.0, 2.0, 1.0]


def test_a_reliability_diagram_has_a_point_for_each_bin_that_holds_images():
    rng = np.random.default_rng(0)
    best = rng.uniform(0.5, 1, 400)
    summary = Ranked.of(np.stack([best, 1 - best], 1), rng.integers(0, 2, 400)).summary()
    points, bars = figures.reliability_diagram(summary).axes
    filled = [b for b in summary.bins if b.examples]
    assert np.asarray(points.lines[1].get_xydata()).tolist() == [[b.confidence, b.accuracy] for b in filled]
    heights = [bar.get_height() for bar in cast(Any, bars.patches)]
    assert heights == [b.examples for b in summary.bins]
    assert sum(heights) == 400


def test_in_a_page_a_figure_takes_its_colours_and_has_ids_of_its_own(row):
    drawn = {"one": figures.error_curves({"t": {"cifar10-plain20": [row("cifar10-plain20").curve]}})}
    drawn["two"] = drawn["one"]
    one, two = (figures.inline_svg(figure, name) for name, figure in drawn.items())
    assert one.startswith('<svg role="img" aria-label="one" ')
    assert ElementTree.fromstring(one).tag.endswith("svg")
    assert "var(--ink)" in one
    assert "var(--series-1)" in one
    assert not {figures.INK, figures.GRID, figures.SERIES[0]} & set(re.findall("#[0-9a-f]{6}", one))
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', one)) <= ids[0]
    assert not re.search(r'<svg [^>]*width="', one), "the page says how wide it is"
