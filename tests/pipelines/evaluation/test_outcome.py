"""A test is written down whole, shown in a table, and put into the row of the training that it is of."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from pipelines.evaluation.outcome import (
    Details,
    EvaluationOutcome,
    add_evaluation,
    evaluation_table,
    write_evaluation,
    write_predictions,
)
from pipelines.evaluation.scoring_tasks import Scored
from resnet.evaluation.error_summary import Ranked, Response
from resnet.paper.result_rows import read_results

NAMES = ("cat", "dog", "emu")


@pytest.fixture(scope="module")
def ranked() -> Ranked:
    """200 images of three classes, of which the third is mostly taken for the second."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 3
    logits = rng.normal(0, 1, (200, 3))
    logits[np.arange(200), np.where(labels == 2, 1, labels)] += 3
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Ranked.of(scores, labels)


def outcome(ranked: Ranked, **fields: Any) -> EvaluationOutcome:
    summary = ranked.summary()
    known: dict[str, Any] = {
        "protocol": "single",
        "mirror": False,
        "top1_error": summary.top1_error,
        "top5_error": summary.top5_error,
        "loss": summary.loss,
        "ece": summary.ece,
        "examples": 200,
        "seconds": 2.0,
        "images_per_second": 100.0,
        "precision": "float32",
        "workers": 1,
        "checkpoints": ("runs/a/step-00000100",),
        "data": "/shards",
        "split": "val",
    }
    return EvaluationOutcome(**known | fields)


@pytest.fixture
def details(ranked: Ranked) -> Details:
    responses = tuple(Response(layer=f"l{i}", std=0.5 + i / 4) for i in range(3))
    return Details(outcome=outcome(ranked), summary=ranked.summary(), names=NAMES, responses=responses)


def test_everything_is_in_one_file_beside_its_figures(details: Details, tmp_path: Path) -> None:
    write_evaluation(tmp_path / "deep" / "out", details)
    written = tmp_path / "deep" / "out"
    assert Details.model_validate_json((written / "evaluation.json").read_text()) == details
    assert {p.name for p in written.iterdir()} == {
        "evaluation.json", "reliability.png", "reliability.svg", "responses.png", "responses.svg",
    }  # fmt: skip
    write_evaluation(tmp_path / "plain", details.model_copy(update={"responses": ()}))
    assert not list((tmp_path / "plain").glob("responses*"))


def test_predictions_are_a_row_an_image_with_the_outcome_in_the_file(
    details: Details, ranked: Ranked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = np.array([f"k{i}" for i in range(200)], object)
    monkeypatch.chdir(tmp_path)
    for uri in (f"{tmp_path}/new/folder/p.parquet", "p.parquet"):
        write_predictions(uri, details, Scored(ranked, "float32", keys, None))
        table = parquet.read_table(tmp_path / uri)
        assert table["key"].to_pylist() == keys.tolist()
        np.testing.assert_array_equal(table["top"].to_pylist(), ranked.top)
        np.testing.assert_array_equal(table["score"].to_pylist(), ranked.scores)
        kept = json.loads(table.schema.metadata[b"evaluation"])
        assert EvaluationOutcome(**kept) == details.outcome


def test_the_table_names_the_hardest_classes_and_what_they_are_taken_for(details: Details) -> None:
    text = evaluation_table(details, worst=2)
    assert f"top-1 error {details.outcome.top1_error:.2f} %" in text
    assert "single, float32, 200 val images of /shards" in text
    hardest = sorted(details.summary.classes, key=lambda row: -(row.top1_error or 0))
    emu, second = hardest[:2]
    assert NAMES[emu.label] == "emu"
    lines = [line.split() for line in text.splitlines()]
    assert ["emu", "66", f"{emu.top1_error:.2f}", "%", "dog", f"({emu.confused})"] in lines
    shown = [line[0] for line in lines if line and line[0] in NAMES]
    assert shown == ["emu", NAMES[second.label]], "two were asked for, the hardest first"
    assert "responses of 3 layers: std 0.500 to 1.000, mean 0.750" in text
    assert "and mirror images" in evaluation_table(
        details.model_copy(update={"outcome": details.outcome.model_copy(update={"mirror": True})})
    )


def test_the_row_of_a_training_gains_a_test_of_each_protocol(untrained: Any, ranked: Ranked, tmp_path: Path) -> None:
    checkpoint = str(next(untrained(7).glob("step-*")))
    results = str(tmp_path / "results")
    responses = (Response(layer="conv1", std=0.5),)
    add_evaluation(results, checkpoint, outcome(ranked, top1_error=30.0), responses)
    add_evaluation(results, checkpoint, outcome(ranked, top1_error=20.0, mirror=True), ())
    path = add_evaluation(results, f"{checkpoint}/", outcome(ranked, top1_error=25.0), ())
    (row,) = read_results(results)
    assert path.parent == Path(results)
    assert {(e.protocol, e.mirror): e.top1_error for e in row.evaluations} == {
        ("single", False): 25.0,
        ("single", True): 20.0,
    }, "the same test again takes the place of the first"
    assert row.responses == responses, "kept where none are measured"


def test_a_checkpoint_that_is_not_the_last_of_its_training_is_refused(
    untrained: Any, ranked: Ranked, tmp_path: Path
) -> None:
    checkpoint = next(untrained(7).glob("step-*"))
    with pytest.raises(ValueError, match=f"results takes the last checkpoint of a training, {checkpoint.name}, got "):
        add_evaluation(str(tmp_path), str(checkpoint.with_name("step-00000001")), outcome(ranked), ())
