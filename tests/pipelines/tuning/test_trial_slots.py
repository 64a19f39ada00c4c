"""Trainings share the CPUs and GPUs that there are."""

from pathlib import Path

import pytest

from pipelines.run import standard
from pipelines.training.run_data import open_source
from pipelines.tuning.trial_slots import EarlyStopping, fit_in, progress_row, require_errors, require_no_name
from resnet.networks.cost import count


def test_trials_share_the_cpus_and_gpus_that_there_are() -> None:
    asked = standard("cifar10-resnet20", data_is_given=False).scaling
    scaling, concurrent = fit_in(asked, 2, 8, None, 2, 0)
    assert (concurrent, scaling.workers, scaling.threads, scaling.gpu) == (2, 1, 1, False)
    assert 2 * ((scaling.cpus_per_worker or 0) + (scaling.data_cpus or 0)) <= 2
    scaling, concurrent = fit_in(asked, 2, 8, 3, 2, 0)
    assert concurrent == 3, "parts of CPUs"
    assert 3 * ((scaling.cpus_per_worker or 0) + (scaling.data_cpus or 0)) <= 2
    scaling, concurrent = fit_in(asked, 2, 8, None, 16, 4)
    assert (concurrent, scaling.gpu, scaling.gpus_per_worker) == (4, True, None)
    scaling, concurrent = fit_in(asked, 2, 8, 6, 16, 2)
    assert (concurrent, scaling.gpu, scaling.gpus_per_worker) == (6, True, 0.33)


def test_the_first_rung_is_a_step_at_least() -> None:
    assert [EarlyStopping(grace=grace).grace_steps(22) for grace in (0.001, 0.5, 1.0, 2.5)] == [1, 11, 22, 55]
    with pytest.raises(ValueError, match="reduction must be greater than 1, got 1"):
        EarlyStopping(reduction=1)


def test_what_a_sweep_cannot_do_with_a_run_is_one_sentence() -> None:
    run = standard("cifar10-resnet8", data_is_given=False)
    rarely = run.model_copy(update={"evaluate_every": 3})
    require_errors(rarely, "none")
    require_errors(run, "asha")
    with pytest.raises(ValueError, match="evaluate_every must be 1 with scheduler asha, got 3"):
        require_errors(rarely, "asha")
    require_no_name(run)
    with pytest.raises(ValueError, match="run_name is for one training, a sweep names its own, got mine"):
        require_no_name(run.model_copy(update={"run_name": "mine"}))


def test_a_trainings_row_counts_its_work_by_its_network(tmp_path: Path) -> None:
    run = standard("cifar10-resnet8", data_is_given=False).model_copy(update={"storage": str(tmp_path)})
    row = progress_row(run, open_source(run))
    assert (row.run, row.standing) == (run.name, "waiting")
    assert row.work == count("cifar10-resnet8-A").multiply_adds
    assert row.images == run.recipe.total_steps(1437) * run.recipe.optim.batch_size
