import pytest

from pipelines.dense.dense_data import open_dense
from pipelines.dense.dense_fit import ASKED, _asked, _finished, _write, fit_dense
from pipelines.storage import Folder
from pipelines.tracking import mlflow_runs
from tests.pipelines.dense.small_sets import small_run


@pytest.mark.slow
def test_a_detector_by_ray_train_is_tracked_registered_and_finished_once(ray_local, boxed, tmp_path):
    run = small_run(boxed, tmp_path, steps=3, model_name="boxes-of-a-test")
    outcome = fit_dense(run, show=False)
    assert outcome.model_version == "1"
    assert outcome.mean_ap is not None
    api = mlflow_runs.client()
    version = api.get_model_version_by_alias("boxes-of-a-test", "champion")
    assert version.tags["task"] == "detection"
    assert float(version.tags["mean_ap"]) == pytest.approx(outcome.mean_ap, abs=1e-3)
    assert [m.step for m in api.get_metric_history(outcome.mlflow_run, "mean_ap")] == [3]
    assert fit_dense(run, show=False) == outcome  # nothing is trained twice
    other = run.recipe.model_copy(update={"flip": False})
    with pytest.raises(ValueError, match=r"recipe.flip must be True as in the run that .* holds, got False"):
        fit_dense(run.model_copy(update={"recipe": other}), show=False)


def test_a_name_of_another_task_is_refused_before_anything_starts(masked, tmp_path):
    mlflow_runs.client().create_registered_model("classes", tags={"task": "classification"})
    with pytest.raises(ValueError, match="must be another for segmentation, classes holds versions of class"):
        fit_dense(small_run(masked, tmp_path, model_name="classes"), show=False)
    assert not any(tmp_path.iterdir())


def test_a_run_of_before_a_field_was_added_is_the_same_run(boxed, tmp_path):
    """The field has its default there; another value is another run."""
    run = small_run(boxed, tmp_path, steps=3)
    asked = _asked(run, open_dense(run))
    del asked["recipe"]["turns"], asked["data"]
    _write(Folder(run.folder), ASKED, asked)
    assert _finished(run, open_dense(run)) is None, "it is not finished, and goes on"
    turned = run.model_copy(update={"recipe": run.recipe.model_copy(update={"turns": True})})
    with pytest.raises(ValueError, match=r"recipe.turns must be False as in the run that .* holds, got True"):
        _finished(turned, open_dense(run))
    wider = run.model_copy(update={"data": run.data.model_copy(update={"window": 4})})
    with pytest.raises(ValueError, match=r"data.window must be 16 as in the run that .* holds, got 4"):
        _finished(wider, open_dense(run))
