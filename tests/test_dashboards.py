"""Grafana's boards ask for metrics that the code exports, and are boards that Grafana can import."""

import json
import re
from pathlib import Path

import pytest

from pipelines.progress.training_metrics import GAUGES, SWEEP_GAUGES
from serve.metrics import Metrics

BOARDS = sorted((Path(__file__).resolve().parent.parent / "deploy" / "dashboards").glob("*.json"))


def exported() -> set[str]:
    """The names of all samples: of the trainings as Ray exports them, of the endpoint as it does itself."""
    endpoint = Metrics({"model": "m", "version": "1", "replica": "r"})
    endpoint.requests.labels("/v1/predict", "200").inc()
    endpoint.latency.labels("/v1/predict").observe(0.1)
    names = {sample.name for family in endpoint.families() for sample in family.samples}
    return names | {f"ray_{name}" for name in (*GAUGES, *SWEEP_GAUGES)}


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_a_board_asks_for_what_is_exported(path: Path) -> None:
    board = json.loads(path.read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked = {name for text in expressions for name in re.findall(r"\b(?:ray_)?resnet_\w+", text)}
    assert asked, "a board without a metric shows nothing"
    assert asked <= exported()


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_a_board_can_be_imported(path: Path) -> None:
    """What Grafana's import needs: a uid, a title, panels with an id of their own that do not overlap."""
    board = json.loads(path.read_text())
    assert board["uid"]
    assert board["title"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    cells = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24, "a row has 24 columns"
    named = {name for panel in board["panels"] for name in re.findall(r"\$\{?(\w+)", json.dumps(panel))}
    known = {variable["name"] for variable in board["templating"]["list"]} | {"__rate_interval", "__all"}
    assert named <= known


def test_every_figure_of_a_training_is_on_its_board() -> None:
    text = (BOARDS[0].parent / "training.json").read_text()
    assert [name for name in (*GAUGES, *SWEEP_GAUGES) if f"ray_{name}" not in text] == []


def test_there_are_boards() -> None:
    assert {path.stem for path in BOARDS} == {"training", "endpoint"}
