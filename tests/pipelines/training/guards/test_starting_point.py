"""--resume PATH: what does not fit is refused by its field, before anything is started."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.run import Run, standard
from pipelines.training.guards.starting_point import require_start, start_checkpoint
from resnet.image_class import ImageClass
from resnet.training.checkpoint import Checkpoint, EpochRow, Progress, save_checkpoint

DIGITS = tuple(ImageClass(id=i, wnid=f"n{i}", name=str(i)) for i in range(10))
EXAMPLES = 1437  # 22 steps an epoch of 64 images, 264 in all


def run(**changes: Any) -> Run:
    found = standard("cifar10-resnet8", data_is_given=False)
    recipe = found.recipe.model_copy(update=changes.pop("recipe", {}))
    return found.model_copy(update={"recipe": recipe} | changes)


@pytest.fixture
def begun(tmp_path: Path) -> str:
    """A checkpoint after two of twelve epochs, without weights: they are not looked at."""
    figures = dict.fromkeys(EpochRow.model_fields, 0.0)
    rows = tuple(EpochRow(**figures | {"epoch": i, "step": 22 * i + 22}) for i in range(2))  # pyright: ignore
    progress = Progress(step=44, total_steps=264, examples=360, classes=DIGITS, rows=rows)
    tensors = {"one": torch.zeros(1)}
    save_checkpoint(tmp_path / "step-00000044", Checkpoint(tensors, tensors, tensors, run().model_dump(), progress))
    return str(tmp_path / "step-00000044")


def test_a_run_begins_from_the_checkpoint_that_is_named(begun: str, tmp_path: Path) -> None:
    asked = run(resume=begun, storage=str(tmp_path / "new"))
    require_start(asked, DIGITS, EXAMPLES)
    found = start_checkpoint(asked)
    assert found is not None
    assert found.progress.step == 44
    assert start_checkpoint(run(storage=str(tmp_path / "new"))) is None


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"network": "cifar10-plain8"}, "a checkpoint of cifar10-plain8, got one of cifar10-resnet8-A"),
        ({"epochs": 2.0}, "a checkpoint before the end of this training, step 44, got one of step 44"),
        ({"epochs": None, "steps": 30}, "a checkpoint before the end of this training, step 30, got one of step 44"),
        ({"ema": 0.9}, r"a checkpoint of a training with recipe\.ema 0\.9, got one that has not averaged weights"),
        ({"precision": "float16"}, "a checkpoint of a training in float16, got one in auto"),
        (
            {"optim": standard("cifar10-resnet8").recipe.optim},
            r"a checkpoint of a training with 11 steps an epoch, by recipe\.optim\.batch_size .*, got one of 22",
        ),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(begun: str, recipe: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=rf"^resume must be {words}: {begun}$"):
        require_start(run(resume=begun, recipe=recipe), DIGITS, EXAMPLES)


def test_other_classes_are_refused_whatever_their_number(begun: str) -> None:
    asked = run(resume=begun)
    with pytest.raises(
        ValueError, match=r"resume must be a checkpoint of the 2 classes of data\.path, got one of 10 cl"
    ):
        require_start(asked, DIGITS[:2], EXAMPLES)
    other = (*DIGITS[:9], ImageClass(id=9, wnid="dog", name="dog"))
    with pytest.raises(ValueError, match=r"got one whose class 9 is n9, where the data have dog"):
        require_start(asked, other, EXAMPLES)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("/nowhere/step-00000001", "resume must be never, auto or a checkpoint, got /nowhere/step-00000001"),
        ("hf://user/model/step-00000001", "cannot open hf://user/model: "),
        ("s3://", "resume must be never, auto or a checkpoint, got s3://"),
    ],
)
def test_what_is_no_checkpoint_is_one_sentence(place: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        require_start(run(resume=place), DIGITS, EXAMPLES)
    assert "\n" not in str(caught.value)
