"""The board says what Tune does with each trial, and a failure is its last sentence."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.progress import postings
from pipelines.progress.sweep_table import Board, Row
from pipelines.run import standard
from pipelines.tuning.search_space import setting
from pipelines.tuning.tune_runner import BoardCallback, name_of, reason

RUN = setting(standard("cifar10-resnet8", data_is_given=False), 3, 0.1, 1e-4)
TRIAL: Any = SimpleNamespace(config={"run": RUN.model_dump_json()})


def test_a_trial_has_the_name_of_its_run() -> None:
    assert name_of(TRIAL) == RUN.name == "cifar10-resnet8-A@t003.s0"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("one sentence"), "one sentence"),
        (RuntimeError(f"ray::x()\n  File y\nRuntimeError: {RUN.name} failed: loss is nan\n\n"), "loss is nan"),
        (RuntimeError("Traceback\nValueError: lr must be positive"), "lr must be positive"),
        (RuntimeError(""), "RuntimeError('')"),
    ],
)
def test_an_error_of_another_process_is_its_last_line(error: BaseException, said: str) -> None:
    assert reason(RUN.name, error) == said


@pytest.mark.usefixtures("ray_local")
def test_the_board_follows_a_trial_to_its_end() -> None:
    board = Board("search", {RUN.name: Row(RUN.name, 1.0, 1000.0)}, 1, write=lambda _: None)
    told, standing = BoardCallback(board), board.rows[RUN.name]
    assert told.__getstate__() == {}, "Tune keeps a pickle of it, which nobody reads"
    told.on_trial_start(0, [], TRIAL)
    assert standing.standing == "starting"
    standing.standing = "running"
    told.on_trial_start(0, [], TRIAL)
    assert standing.standing == "running", "started again, it runs already"
    told.on_trial_complete(0, [], TRIAL)
    assert standing.standing == "finished"
    board.stand(RUN.name, "stopped", "after step 20")
    told.on_trial_complete(0, [], TRIAL)
    assert standing.standing == "stopped", "by the scheduler, which is no end"
    postings.fail(RUN.name, "the data are gone")
    told.on_trial_error(0, [], TRIAL)
    assert (standing.standing, standing.note) == ("failed", "the data are gone")
    postings.forget(RUN.name)
