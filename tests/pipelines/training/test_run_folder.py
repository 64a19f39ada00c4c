"""A run's folder holds one run: another recipe, data or start is refused by the field that differs."""

from pathlib import Path

import pytest

from pipelines.run import standard
from pipelines.shards.manifest import read_manifest
from pipelines.training.run_data import RunData, WorkerData
from pipelines.training.run_folder import ASKED, RunFolder
from tests.pipelines.training.digits_run import same, small, trained

pytestmark = pytest.mark.usefixtures("one_rank")


def test_a_folder_is_made_for_a_run_by_its_first_step(data: tuple[RunData, WorkerData], tmp_path: Path) -> None:
    run, sha = small(tmp_path, resume="never"), data[0].sha256
    assert RunFolder(run, sha).check() is None
    assert not Path(run.folder).exists(), "a look leaves nothing behind"
    trained(run, data)
    with pytest.raises(ValueError, match=r"resume must be auto where .* holds step-00000024, got never"):
        RunFolder(run, sha).check()
    other = small(tmp_path, {"optim": run.recipe.optim.model_copy(update={"lr": 0.3})})
    with pytest.raises(ValueError, match=r"recipe\.optim\.lr must be 0\.1 as in the run that .* holds, got 0\.3"):
        RunFolder(other, sha).check()


def test_a_run_begins_only_from_one_place(data: tuple[RunData, WorkerData], tmp_path: Path) -> None:
    run = small(tmp_path / "first")
    expected, sha = trained(run, data), data[0].sha256
    start = f"{run.storage_path}/{run.name}/step-00000022"
    again = small(tmp_path / "again", resume=start)
    assert same(trained(again, data), expected), "the rest of the same run"
    assert RunFolder(again, sha).check() is None
    auto = RunFolder(again.model_copy(update={"resume": "auto"}), sha)
    assert auto.check() is None
    assert auto.start_of() == start
    with pytest.raises(ValueError, match=r"resume must be .*step-00000022 as in the run that .*, got .*step-00000024"):
        RunFolder(again.model_copy(update={"resume": start.replace("22", "24")}), sha).check()


def test_a_run_that_noted_the_fingerprint_of_before_goes_on(digits: str, tmp_path: Path) -> None:
    manifest = read_manifest(digits)
    run = standard("cifar10-resnet8", data_is_given=False).model_copy(update={"storage": str(tmp_path)})
    RunFolder(run, manifest.fingerprint_before()).begin()
    assert RunFolder(run, manifest.fingerprint(), manifest.fingerprint_before()).check() is None
    with pytest.raises(ValueError, match="data_sha256 must be"):
        RunFolder(run, manifest.fingerprint(100), manifest.fingerprint_before(100)).check()


def test_the_order_of_the_examples_is_that_of_the_run(data: tuple[RunData, WorkerData], tmp_path: Path) -> None:
    def folder(window: int | None) -> RunFolder:
        run = small(tmp_path)
        return RunFolder(
            run.model_copy(update={"data": run.data.model_copy(update={"window": window})}), data[0].sha256
        )

    folder(None).begin()
    assert folder(16).check() is None, "what is usual with 64 images a batch"
    with pytest.raises(ValueError, match=r"data\.window must be 16 as in the run that .* holds, got 4"):
        folder(4).check()


def test_a_run_that_did_not_note_its_window_goes_on_with_the_one_of_its_checkpoints(
    data: tuple[RunData, WorkerData], tmp_path: Path
) -> None:
    run = small(tmp_path)
    run = run.model_copy(update={"data": run.data.model_copy(update={"window": 4})})
    trained(run, data)
    place = RunFolder(run, data[0].sha256)
    place.begin()
    asked = place.read(ASKED) or {}
    del asked["data"]
    place.write(ASKED, asked)
    assert place.check() is None
    usual = run.model_copy(update={"data": run.data.model_copy(update={"window": None})})
    with pytest.raises(ValueError, match=r"data\.window must be 4 as in the run that .* holds, got 16"):
        RunFolder(usual, data[0].sha256).check()
