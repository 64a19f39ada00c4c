"""Rows of results from the folders of runs and from MLflow."""

import json
import shutil

import pytest

from jobs import write_report
from pipelines.evaluation.outcome import EvaluationOutcome, add_evaluation
from pipelines.reports.collected_rows import row_of_run, rows_from_mlflow, rows_under
from pipelines.run import Run
from pipelines.tracking import mlflow_runs
from resnet.evaluation.error_summary import Response
from resnet.paper.result_rows import read_results
from resnet.training.checkpoint import load_checkpoint


def evaluation(checkpoint, **fields):
    known = {"protocol": "10-crop", "mirror": False, "top1_error": 12.0, "top5_error": 1.0, "loss": 0.5, "ece": 0.1}
    known |= {"examples": 360, "seconds": 1.0, "images_per_second": 360.0, "precision": "float32", "workers": 1}
    return EvaluationOutcome(**(known | {"checkpoints": (checkpoint,), "data": "d", "split": "val"} | fields))


def test_a_row_is_what_the_run_folder_says(untrained):
    folder = untrained()
    row = row_of_run(str(folder))
    checkpoint = load_checkpoint(next(folder.glob("step-*")))
    assert row.recipe == checkpoint.recipe
    assert (row.seed, row.steps, row.top1_error, row.train_error) == (0, 264, 88.5, 90.0)
    assert (row.data.name, row.data.train, row.data.val) == ("digits", 1437, 360)
    assert row.curve[0][:4] == (264, 0.1, 2.3, 90.0)
    assert not row.is_papers_setting


def test_the_runs_of_a_folder_are_found(untrained):
    root = untrained(0).parent
    untrained(1)
    assert {row.seed for row in rows_under(str(root))} >= {0, 1}
    assert rows_under(str(untrained(0))) == (row_of_run(str(untrained(0))),)


def test_a_row_says_which_weights_its_training_began_with(untrained, tmp_path):
    """By the name of the file without the machine's folders, and by its hash; random weights have neither."""
    assert (row_of_run(str(untrained())).init, row_of_run(str(untrained())).init_sha256) == (None, None)
    folder = tmp_path / "tuned"
    shutil.copytree(untrained(), folder)
    outcome = json.loads((folder / "outcome.json").read_text())
    begun = {"init": "/home/me/weights/resnet18.pth", "init_sha256": "ab" * 32}
    (folder / "outcome.json").write_text(json.dumps(outcome | begun))
    row = row_of_run(str(folder))
    assert (row.init, row.init_sha256) == ("weights/resnet18.pth", "ab" * 32)
    assert row.aspects["init"] == "ab" * 32, "never in a table with trainings that began with others"


def test_trials_of_a_search_and_folds_are_no_results(untrained, tmp_path):
    shutil.copytree(untrained(), tmp_path / "runs" / "search-cifar10-resnet8-A" / "cifar10-resnet8-A@t000.s0")
    shutil.copytree(untrained(), tmp_path / "runs" / "folds-cells" / "cells.fold-1.s0")
    assert rows_under(str(tmp_path / "runs")) == ()
    shutil.copytree(untrained(), tmp_path / "runs" / "table6" / untrained().name)
    assert [row.name for row in rows_under(str(tmp_path / "runs"))] == ["cifar10-resnet8-A.s0"]


def test_an_unfinished_run_is_no_row(untrained, tmp_path):
    with pytest.raises(ValueError, match=r"must hold asked\.json"):
        row_of_run(str(tmp_path))
    (tmp_path / "asked.json").write_text((untrained() / "asked.json").read_text())
    with pytest.raises(ValueError, match="no finished training"):
        row_of_run(str(tmp_path))


def test_evaluations_gather_in_the_row_of_their_training(untrained, tmp_path):
    checkpoint = str(next(untrained().glob("step-*")))
    responses = (Response(layer="conv1", std=1.0),)
    first = add_evaluation(str(tmp_path), checkpoint, evaluation(checkpoint), responses)
    second = add_evaluation(str(tmp_path), checkpoint, evaluation(checkpoint, protocol="multi-scale"), ())
    assert first == second
    add_evaluation(str(tmp_path), checkpoint, evaluation(checkpoint, top1_error=11.0), ())
    (row,) = read_results(tmp_path)
    assert row.responses == responses
    assert row.errors("10-crop") == (11.0, 1.0)
    assert row.errors("multi-scale") == (12.0, 1.0)
    assert row.errors("single") == (88.5, 45.0)
    with pytest.raises(
        ValueError, match=r"takes the last checkpoint of a training, step-00000264, got .*step-00000001"
    ):
        add_evaluation(str(tmp_path), checkpoint.replace("264", "001"), evaluation(checkpoint), ())


def test_mlflow_gives_the_rows_that_the_folders_give(untrained, tmp_path, store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)  # in the one of all tests the same run may be twice, and one row
    folder = untrained(3)
    checkpoint = load_checkpoint(next(folder.glob("step-*")))
    run = Run.model_validate(checkpoint.run)
    outcome = json.loads((folder / "outcome.json").read_text())
    asked = json.loads((folder / "asked.json").read_text())
    api = mlflow_runs.client()
    run_id = mlflow_runs.start(api, run, {"data": outcome["data"], "data_sha256": asked["data_sha256"]})
    mlflow_runs.log_rows(api, run_id, checkpoint.progress.rows)
    unfinished = {row.seed for row in rows_from_mlflow()}
    assert 3 not in unfinished
    api.log_dict(run_id, run.model_dump(mode="json"), "run.json")
    api.log_dict(run_id, outcome, "outcome.json")
    api.set_tag(run_id, "checkpoint", outcome["checkpoint"])
    api.set_terminated(run_id, "FINISHED")
    (found,) = [row for row in rows_from_mlflow() if row.seed == 3]
    assert len(found.commit) == 40
    assert found.model_copy(update={"commit": "unknown", "hardware": "unknown"}) == row_of_run(str(folder))
    written = write_report.job(["--out", str(tmp_path / "out"), "--export", str(tmp_path / "results")])
    assert written["trainings"] == len(rows_from_mlflow())
    assert found in read_results(tmp_path / "results")
    again = write_report.job(["--out", str(tmp_path / "again"), "--results", str(tmp_path / "results")])
    assert again["trainings"] == written["trainings"]
    assert (tmp_path / "again" / "report.md").read_text() == (tmp_path / "out" / "report.md").read_text()
