from typing import get_type_hints

from pipelines.any_run import AnyRun
from pipelines.dense.dense_run import DenseData, DetectorRun
from pipelines.run import Run, standard


def test_runs_of_all_tasks_are_such():
    """A protocol is held by no class at run time: each of its names is a field or a property of both."""
    names = {name for name in vars(AnyRun) if not name.startswith("_")}
    assert {"name", "folder", "scaling", "promote"} <= names
    runs: list[AnyRun] = [standard("cifar10-resnet20", data_is_given=False), DetectorRun(data=DenseData(path="x"))]
    for run in runs:
        for name in names:
            assert getattr(run, name) is not None or name == "model_name"
    assert get_type_hints(Run)["model_name"] == get_type_hints(DetectorRun)["model_name"]
