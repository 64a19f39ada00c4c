"""The choice among epochs is a pure function of their rows."""

from typing import Any

import pytest

from resnet.recipes.recipe_settings import Selection
from resnet.training.checkpoint import EpochRow
from resnet.training.finetuning.epoch_choice import chosen, class_error, ends_early, figure


def rows(*errors: float | None, **others: list[float]) -> list[EpochRow]:
    """Epochs of ten steps with these top-1 errors. others: further figures by name."""
    more: list[dict[str, Any]] = [{name: values[i] for name, values in others.items()} for i in range(len(errors))]
    return [
        EpochRow(epoch=i, step=10 * (i + 1), lr=0.1, train_loss=1, train_error=1, top1_error=e, seconds=1,
                 images_per_second=1, **more[i])
        for i, e in enumerate(errors)
    ]  # fmt: skip


def test_the_first_of_the_best_epochs_is_chosen_and_the_last_without_a_metric() -> None:
    told = rows(5.0, 3.0, 3.0, 4.0, val_loss=[2.0, 1.0, 0.9, 1.5], class_error=[1.0, 7.0, 8.0, 9.0])
    assert chosen(told, Selection(by="top1_error")).epoch == 1
    assert chosen(told, Selection(by="val_loss")).epoch == 2
    assert chosen(told, Selection(by="class_error")).epoch == 0
    assert chosen(told, Selection()).epoch == 3
    assert chosen(rows(None, 4.0, None), Selection(by="top1_error")).epoch == 1
    assert chosen(rows(None), Selection(by="top1_error")).epoch == 0
    assert figure(rows(2.0)[0], "val_loss") is None


def test_patience_counts_evaluations_since_the_best_one() -> None:
    asked = Selection(by="top1_error", patience=2)
    assert not ends_early([], asked)
    assert not ends_early(rows(5.0, 6.0), asked)
    assert ends_early(rows(5.0, 6.0, 5.0), asked), "an equal one is no better one"
    assert not ends_early(rows(5.0, 6.0, 4.9), asked)
    assert not ends_early(rows(5.0, None, None, 6.0), asked), "epochs without an evaluation do not count"
    assert ends_early(rows(5.0, None, 6.0, None, 6.0), asked)
    assert not ends_early(rows(5.0, 6.0, 7.0), Selection(by="top1_error"))


def test_a_mean_of_classes_weighs_a_small_class_as_a_large_one() -> None:
    """1 of 4 wrong in the first, all of 1 in the second, none in the third: (25 + 100) / 2."""
    assert class_error([1, 1, 0, 4, 1, 0]) == pytest.approx(62.5)


def test_a_patience_without_a_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="patience needs by, what must get better, got 3 with by last"):
        Selection(patience=3)
