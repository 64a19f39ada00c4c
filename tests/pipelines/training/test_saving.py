"""The state is saved when steps, minutes or a request say so, and never with a loss that is no number."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.models.checkpoint_store import CheckpointStore
from pipelines.progress import postings
from pipelines.progress.postings import StatusPoster
from pipelines.training.learner import Learner
from pipelines.training.rank_data import RankData
from pipelines.training.run_data import RunData, WorkerData
from pipelines.training.saving import Saver
from pipelines.training.training_state import TrainingState
from resnet.training.finite_loss import NotFinite
from tests.pipelines.training.digits_run import CPU, small

pytestmark = pytest.mark.usefixtures("one_rank")


class Made:
    """A saver of a run that nothing was trained of."""

    def __init__(
        self, data: tuple[RunData, WorkerData], tmp_path: Path, plan: dict[str, Any], asked: Any = None
    ) -> None:
        self.run = small(tmp_path, checkpoints=plan | {"keep": 9}).model_copy(update={"run_name": tmp_path.name})
        task = RankData(self.run, data[1], 0, 1, CPU)
        self.state = TrainingState(CPU, None, 0)
        self.store = CheckpointStore.of(self.run)
        self.line = StatusPoster(self.run.name)
        self.saver = Saver(task, Learner(task, None), self.store, self.state, self.line, asked)

    def at(self, step: int) -> list[str]:
        """Checkpoints after the ranks agreed at a step."""
        self.state.step = step
        self.saver.agree(self.state)
        assert self.saver.writer is not None
        self.saver.writer.flush()
        return [name.removeprefix("step-").lstrip("0") for name in self.store.names()]

    def status(self) -> Any:
        from pipelines.progress.status import Status

        figures = dict.fromkeys(("epoch", "epochs", "loss", "error", "images_per_second", "seconds_left"), 1.0)
        return Status(run=self.run.name, phase="training", step=1, total=24, **figures)


def test_so_many_steps_after_the_last_save_comes_the_next(data: tuple[RunData, WorkerData], tmp_path: Path) -> None:
    made = Made(data, tmp_path, {"every_steps": 10, "every_minutes": None})
    assert [made.at(step) for step in (9, 10, 19, 20)] == [[], ["10"], ["10"], ["20"]], "the newest is enough"
    saved = made.store.read("step-00000020").progress
    assert (saved.step, saved.total_steps, saved.examples) == (20, 24, 360)
    made.saver.close()


def test_minutes_and_a_request_save_too(data: tuple[RunData, WorkerData], tmp_path: Path) -> None:
    made = Made(data, tmp_path, {"every_steps": None, "every_minutes": 30.0})
    assert made.at(1) == []
    made.saver.saved_at -= 30 * 60
    assert made.at(2) == ["2"]
    assert made.at(3) == ["2"]
    postings.ask_to_save(made.run.name)
    made.line.post(made.status())
    made.line.close()
    assert made.at(4) == ["4"]
    assert made.at(5) == ["4"], "once a request"


def test_a_node_that_is_taken_away_is_asked_for_now_and_then_and_saved_once(
    data: tuple[RunData, WorkerData], tmp_path: Path
) -> None:
    asked: list[int] = []
    made = Made(data, tmp_path, {"every_steps": None, "every_minutes": None}, lambda: bool(asked.append(1)) or True)
    assert (made.at(1), len(asked)) == ([], 0), "the first seconds nobody asks"
    for step in (2, 3):
        made.saver.looked_at -= 60
        assert made.at(step) == ["2"]
    assert len(asked) == 2


def test_weights_of_a_loss_that_is_no_number_are_never_saved(data: tuple[RunData, WorkerData], tmp_path: Path) -> None:
    made = Made(data, tmp_path, {"every_steps": 1, "every_minutes": None})
    made.at(1)
    made.state.add(torch.tensor([float("nan"), 0.0, 8.0], dtype=torch.float64))
    began = time.monotonic()
    with pytest.raises(NotFinite, match=r"not finite at step 1 \(lr 0, epoch 0, images \[.*last good .*step-00000001"):
        made.at(2)
    assert made.store.names() == ["step-00000001"]
    assert time.monotonic() - began < 30
