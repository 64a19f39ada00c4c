"""A member of a population takes over another's checkpoint with its history."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines import command_line
from pipelines.run import Run
from pipelines.tuning.population import LIVES, member_run, require_own
from pipelines.tuning.recipe_search import base_run
from pipelines.tuning.search_space import setting
from resnet.training.checkpoint import load_checkpoint


def parse(run: Run, words: Sequence[str]) -> Run:
    return command_line.parse_arguments(Run, run, words, None)


def test_a_life_begins_with_the_weights_and_the_history_that_it_takes_over(untrained: Any, tmp_path: Path) -> None:
    base = base_run("cifar10-resnet8", ["--storage", str(tmp_path / "search")], parse)
    first = member_run(base, 0, {"lr": 0.1, "weight_decay": 1e-4}, None)
    folder = Path(first.storage_path) / first.name
    assert json.loads((folder / LIVES).read_text()) == [[0, 0.1, 1e-4]]
    assert not list(folder.glob("step-*"))
    donor = tmp_path / "donor"
    shutil.copytree(next(untrained().glob("step-*")), donor)
    shutil.copy(folder / LIVES, donor)
    other = member_run(base, 1, {"lr": 0.12, "weight_decay": 8e-5}, donor)
    place = Path(other.storage_path) / other.name
    assert json.loads((place / LIVES).read_text()) == [[0, 0.1, 1e-4], [264, 0.12, 8e-5]]
    taken = load_checkpoint(place / "step-00000264")
    assert taken.progress.step == 264
    assert other.recipe.optim.lr == 0.12
    assert other.name == setting(base, 1, 0.12, 8e-5).name
    assert member_run(base, 1, {"lr": 0.12, "weight_decay": 8e-5}, donor) == other, "a restart is no new life"


def test_a_population_that_others_could_have_written_is_not_read(tmp_path: Path) -> None:
    """Tune's record are pickles: whoever writes one runs code in the next search of that place."""
    place = tmp_path / "tune"
    (place / "population").mkdir(parents=True)
    state = place / "population" / "tuner.pkl"
    state.write_bytes(b"\x80\x04.")
    (place / "population" / "latest").symlink_to(state)
    require_own(place)
    state.chmod(0o666)
    with pytest.raises(ValueError, match="storage must hold a population that only you can write") as refused:
        require_own(place)
    assert "\n" not in str(refused.value)
    state.chmod(0o664)  # a group of one's own is many systems' default
    require_own(place)
    if os.getuid() == 0:
        os.chown(state, 12345, 12345)
        with pytest.raises(ValueError, match="which another user owns or may write"):
            require_own(place)
