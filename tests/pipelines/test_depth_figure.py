from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipelines.depth_figure import draw, panels
from pipelines.result_settings import settings
from resnet.recipe import recipe


def trained(row, networks, **changes):
    return [
        row(network, seed, top1_error=error + 0.2 * seed, train_error=error / 2, **changes)
        for network, error in networks.items()
        for seed in (0, 1)
    ]


def names(found):
    return {setting.rows[0].setting: f"setting {i}" for i, setting in enumerate(found, start=1)}


def test_three_depths_of_a_kind_make_a_picture(row):
    short = recipe("cifar10-resnet20").model_copy(update={"steps": 640})
    resnets = {"cifar10-resnet8": 14.0, "cifar10-resnet14": 12.0, "cifar10-resnet20": 11.0}
    rows = []
    for network, error in (resnets | {"cifar10-plain20": 13.0, "cifar10-plain56": 20.0}).items():
        rows += trained(row, {network: error}, recipe=short.model_copy(update={"network": recipe(network).network}),
                        steps=640, total=640)  # fmt: skip
    found = settings(rows)
    shown = panels(found, names(found))["cifar10"]
    assert [panel.label for panel in shown] == ["test error (%)", "training error (%)"]
    papers, ours = shown[0].lines
    assert (papers.label, ours.label) == ("ResNets, the paper's", "ResNets, setting 1")
    assert papers.points[110] == [6.61], "the mean of five runs, not the best"
    assert ours.points == {8: [14.0, 14.2], 14: [12.0, 12.2], 20: [11.0, 11.2]}
    assert [line.label for line in shown[1].lines] == ["ResNets, setting 1"], "the paper prints no training errors"


def test_two_depths_are_no_line(row):
    found = settings(trained(row, {"cifar10-resnet20": 8.8, "cifar10-resnet56": 7.0, "cifar10-plain20": 9.0}))
    assert panels(found, names(found)) == {}


def test_bars_are_the_95_percent_interval_of_the_mean(row):
    found = settings(trained(row, {f"cifar10-resnet{d}": e for d, e in ((20, 8.8), (32, 7.5), (44, 7.2))}))
    ax = draw(panels(found, names(found))["cifar10"]).axes[0]
    ours: Any = next(bars for bars in ax.containers if bars.get_label() == "ResNets, setting 1")
    ((low, high), *_) = [segment[:, 1] for segment in ours.lines[2][0].get_segments()]
    expected = stats.t.interval(0.95, 1, 8.9, stats.sem([8.8, 9.0]))
    assert (low, high) == pytest.approx(expected)
    assert np.all(np.isin(ax.get_xticks(), [20, 32, 44, 110, 1202]))
