"""A run's folder holds one run: another recipe, data or start is refused by the field that differs."""

from pathlib import Path

import pytest

from pipelines.run import standard
from pipelines.shards.manifest import read_manifest
from pipelines.training.rank_data import RankData
from pipelines.training.run_data import RunData, WorkerData
from pipelines.training.run_folder import RunFolder
from pipelines.training.worker_loop import train
from tests.pipelines.training.digits_run import CPU, same, small, trained

pytestmark = pytest.mark.usefixtures("one_rank")


def test_never_refuses_where_checkpoints_are(data: tuple[RunData, WorkerData], tmp_path: Path) -> None:
    run = small(tmp_path, resume="never")
    RunFolder(run, "data").claim()
    assert RunFolder(run, "data").claim() is None, "nothing was trained yet"
    train(RankData(run, data[1], 0, 1, CPU))
    with pytest.raises(ValueError, match=r"resume must be auto where .* holds step-00000024, got never"):
        RunFolder(run, "data").claim()


def test_a_run_begins_only_from_its_own_network_and_only_from_one_place(
    data: tuple[RunData, WorkerData], tmp_path: Path
) -> None:
    run = small(tmp_path / "first")
    expected, sha = trained(run, data), data[0].sha256
    start = f"{run.storage_path}/{run.name}/step-00000022"
    with pytest.raises(ValueError, match="resume must be a checkpoint of cifar10-plain8, got one of cifar10-resnet8-A"):
        RunFolder(small(tmp_path / "other", {"network": "cifar10-plain8"}, resume=start), sha).claim()
    again = small(tmp_path / "again", resume=start)
    assert same(trained(again, data), expected), "the rest of the same run"
    assert RunFolder(again, sha).claim() is None
    assert RunFolder(again.model_copy(update={"resume": "auto"}), sha).claim() is None
    with pytest.raises(ValueError, match=r"resume must be .*step-00000022 as in the run that .*, got .*step-00000024"):
        RunFolder(again.model_copy(update={"resume": start.replace("22", "24")}), sha).claim()


def test_a_run_that_noted_the_fingerprint_of_before_goes_on(digits: str, tmp_path: Path) -> None:
    manifest = read_manifest(digits)
    run = standard("cifar10-resnet8", data_is_given=False).model_copy(update={"storage": str(tmp_path)})
    assert RunFolder(run, manifest.fingerprint_before()).claim() is None
    assert RunFolder(run, manifest.fingerprint(), manifest.fingerprint_before()).claim() is None
    with pytest.raises(ValueError, match="data_sha256 must be"):
        RunFolder(run, manifest.fingerprint(100), manifest.fingerprint_before(100)).claim()
