"""The search of lr and weight decay: what is proposed, what is remembered, what a member of a population takes over."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines import command_line
from pipelines.run import Run
from pipelines.training.run_data import open_source
from pipelines.tuning.recipe_search import _found as found  # pyright: ignore[reportPrivateUsage]
from pipelines.tuning.recipe_search import base_run, open_study, search_table
from pipelines.tuning.search_space import Search, Tried
from pipelines.tuning.trial_slots import judges

ROOT = Path(__file__).resolve().parent.parent.parent.parent


def parse(run: Run, words: Sequence[str]) -> Run:
    return command_line.parse_arguments(Run, run, words, None)


def test_settings_are_judged_by_held_out_training_images_unless_said_otherwise(tmp_path: Path) -> None:
    base = base_run("cifar10-resnet8", ["--storage", str(tmp_path)], parse)
    source = open_source(base)
    assert (source.train.examples, source.val.examples) == (1437 - 143, 143)
    assert judges(source).startswith("143 training images that are held out")
    source = open_source(base_run("cifar10-resnet8", ["--storage", str(tmp_path), "--data.holdout", "0"], parse))
    assert (source.train.examples, source.val.examples) == (1437, 360)
    assert "by which results are reported as well" in judges(source)


def test_the_table_has_the_best_first_and_the_command_on_all_images(tmp_path: Path) -> None:
    words = ["--storage", str(tmp_path), "--data.holdout", "143", "--recipe.epochs", "4"]
    base = base_run("cifar10-resnet8", words, parse)
    tried = (
        Tried(number=0, lr=0.5, weight_decay=1e-4, state="stopped", epochs=1, error=70),
        Tried(number=1, lr=0.1, weight_decay=2e-4, state="finished", epochs=4, error=20),
    )
    result = found(Search(), base, words, open_source(base), tried, 1.0)
    assert result.command is not None
    assert "holdout" not in result.command
    assert result.command.endswith("--recipe.optim.lr 0.1 --recipe.optim.weight-decay 0.0002")
    lines = search_table(result).splitlines()
    assert lines[3].split()[:5] == ["1", "0.1", "0.0002", "4", "20.00"]
    assert "5 epochs trained, 38 % fewer than the 8 of all settings to the end" in lines


def test_held_out_images_are_val_and_no_image_is_in_both(tmp_path: Path) -> None:
    source = open_source(base_run("cifar10-resnet8", ["--storage", str(tmp_path)], parse))
    assert (source.train.name, source.val.name) == ("train", "val")
    keys = [
        key
        for split in (source.train, source.val)
        for group in range(len(split.rows))
        for key in split.read(group, ("key",))["key"]
    ]
    assert len(keys) == len(set(keys)) == 1437


@pytest.mark.parametrize(
    "content", [b"\x80\x04cos\nsystem\n", b"SQLite format 3\x00" + b"\xff" * 4096, b"no database" * 100]
)
def test_a_study_that_is_damaged_or_foreign_is_one_sentence(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNET_HOME", str(tmp_path))
    (tmp_path / "optuna.db").write_bytes(content)
    base = base_run("cifar10-resnet8", ["--storage", str(tmp_path / "search")], parse)
    with pytest.raises(ValueError, match="must be Optuna's studies; move it away to begin anew") as refused:
        open_study(Search(), base, open_source(base))
    assert "\n" not in str(refused.value)
    assert (tmp_path / "optuna.db").read_bytes() == content
