"""Trials behind their rung's best are stopped, and rungs are remembered."""

import pickle
from types import SimpleNamespace

import pytest

from pipelines.run import standard
from pipelines.tuning.search_space import setting
from pipelines.tuning.successive_halving import Halving
from pipelines.tuning.trial_slots import EarlyStopping
from resnet.recipes.named import recipe
from resnet.training.checkpoint import EpochRow


def test_asha_goes_by_rungs_remembers_them_and_never_stops_what_is_done() -> None:
    def rows(*errors: float) -> list[EpochRow]:
        return [
            EpochRow(epoch=i, step=10 * (i + 1), lr=0.1, train_loss=1, train_error=1, val_loss=1, top1_error=e,
                     top5_error=1, seconds=1, images_per_second=1) for i, e in enumerate(errors)
        ]  # fmt: skip

    planned = [setting(standard("cifar10-resnet8", data_is_given=False), i, 0.1, 1e-4) for i in range(4)]
    tried = [SimpleNamespace(config={"run": run.model_dump_json()}) for run in planned]
    stops: list[str] = []
    known = {"earlier": rows(20, 15, 9), "another": rows(60, 50)}
    halving = Halving(90, 10, 3, known, lambda run, _: stops.append(run))

    def report(place: int, step: int, error: float) -> str:
        return halving.on_trial_result(None, tried[place], {"step": step, "top1_error": error})

    assert report(0, 10, 55) == "STOP", "better than 60, but not among the best third of 20 and 60"
    assert report(1, 10, 10) == "CONTINUE"
    assert report(1, 20, 99) == "CONTINUE", "no rung here"
    assert report(1, 30, 8) == "CONTINUE"
    assert report(2, 10, 11) == "CONTINUE"
    assert report(2, 30, 50) == "STOP"
    assert report(3, 90, 90) == "CONTINUE", "its training has ended"
    assert stops == [planned[0].name, planned[2].name]


@pytest.mark.parametrize(("grace", "first"), [(1.0, 390), (0.5, 195), (0.0001, 1), (3.0, 1170), (None, 38_400)])
def test_the_first_rung_is_after_so_many_epochs(grace: float | None, first: int) -> None:
    """50,000 images are 390 batches of 128 an epoch. Without a grace it is after 38,400 of the paper's 64,000 steps,
    behind its first lower lr at 32,000; a run alone on its rung is among the best third of one."""
    paper, stops = recipe("cifar10-resnet20"), []
    known = {"better": [epoch_row(first, 10.0)], "best": [epoch_row(first, 5.0)]}
    asked = EarlyStopping(grace=grace, reduction=3)
    halving = Halving.of(asked, paper, 50_000, known, lambda run, _: stops.append(run))
    run = standard("cifar10-resnet8", data_is_given=False)
    trial = SimpleNamespace(config={"run": run.model_dump_json()})
    before = halving.on_trial_result(None, trial, {"step": first - 1, "top1_error": 90.0}) if first > 1 else "CONTINUE"
    assert before == "CONTINUE"
    assert halving.on_trial_result(None, trial, {"step": first, "top1_error": 90.0}) == "STOP"
    assert stops == [run.name]


def test_tunes_pickle_of_the_scheduler_holds_nothing() -> None:
    halving = Halving(90, 10, 3, {}, lambda *_: None)
    assert halving.__getstate__() == {}
    assert len(pickle.dumps(halving.__getstate__())) < 20


def epoch_row(step: int, error: float) -> EpochRow:
    return EpochRow(epoch=0, step=step, lr=0.1, train_loss=1, train_error=1, val_loss=1, top1_error=error, top5_error=1,
                    seconds=1, images_per_second=1)  # fmt: skip
