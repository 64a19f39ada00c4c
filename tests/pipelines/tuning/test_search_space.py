"""The settings that a search varies, and how a trial that goes on keeps its number."""

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from pipelines.run import standard
from pipelines.tuning.search_space import CONTINUES, Search, attempts, run_number, setting


def test_a_grid_is_even_on_a_logarithmic_scale_and_has_its_ends() -> None:
    asked = Search(sampler="grid", points=3, lr=(0.01, 1.0), weight_decay=(1e-5, 1e-3))
    grid = asked.grid()
    assert asked.count == len(grid) == 9
    lrs, decays = (sorted({point[name] for point in grid}) for name in ("lr", "weight_decay"))
    np.testing.assert_allclose(lrs, [0.01, 0.1, 1.0])
    np.testing.assert_allclose(decays, [1e-5, 1e-4, 1e-3])
    assert Search(trials=7).count == 7


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"lr": (1.0, 0.1)}, "lr must be two positive numbers, the smaller first, got 1 0.1"),
        ({"weight_decay": (0.0, 0.1)}, "weight_decay must be two positive numbers, the smaller first, got 0 0.1"),
        ({"lr": (0.1, 0.1)}, "lr must be two positive numbers"),
        ({"scheduler": "pbt", "sampler": "random"}, "sampler has no effect with scheduler pbt, got random"),
        ({"points": 1}, "points must be greater than or equal to 2, got 1"),
    ],
)
def test_a_space_that_is_none_is_one_sentence(fields: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Search(**fields)


def test_a_trials_run_differs_in_its_two_settings_and_its_name() -> None:
    base = standard("cifar10-resnet8", data_is_given=False)
    run = setting(base, 7, 0.25, 3e-4)
    assert run.name == "cifar10-resnet8-A@t007.s0"
    assert (run.recipe.optim.lr, run.recipe.optim.weight_decay) == (0.25, 3e-4)
    back = setting(run, 7, base.recipe.optim.lr, base.recipe.optim.weight_decay)
    assert back.recipe.model_copy(update={"variant": base.recipe.variant}) == base.recipe


def test_of_a_run_that_several_trials_went_on_with_the_last_counts() -> None:
    study = optuna.create_study()
    for continues, error in ((None, 30.0), (None, None), (1, 20.0), (1, None)):
        trial = study.ask()
        if continues is not None:
            trial.set_user_attr(CONTINUES, continues)
        study.tell(trial, error, state=None if error is not None else TrialState.FAIL)
    assert [run_number(trial) for trial in study.trials] == [0, 1, 1, 1]
    assert [(trial.number, trial.value) for trial in attempts(study)] == [(0, 30.0), (3, None)]
