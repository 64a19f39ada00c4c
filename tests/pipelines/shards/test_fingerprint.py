"""What tells equal data from other data."""

import shutil
from pathlib import Path

import pytest

from pipelines.preparation.prepare import write_shards
from pipelines.preparation.sources import Source
from pipelines.run import standard
from pipelines.shards.manifest import Manifest, read_manifest
from pipelines.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Manifest]:
    """The digits, prepared twice from two places."""
    first = tmp_path_factory.mktemp("first")
    rows = Path(__file__).parents[3] / "tests"  # any folder will do as a name for a record
    manifest = write_shards(Source(kind="digits"), str(first / "out"), workers=0)
    moved = manifest.model_copy(update={"source": manifest.source.model_copy(update={"path": str(rows)})})
    return manifest, moved


def test_data_are_told_apart_by_content_not_by_place(manifests: tuple[Manifest, Manifest]) -> None:
    here, there = manifests
    assert here.fingerprint() == there.fingerprint()
    assert here.fingerprint_before() != there.fingerprint_before()
    assert len({here.fingerprint(), here.fingerprint(100), here.fingerprint(200)}) == 3
    swapped = here.model_copy(update={"shards": here.shards[::-1]})
    renamed = here.model_copy(update={"classes": here.classes[::-1]})
    assert len({here.fingerprint(), swapped.fingerprint(), renamed.fingerprint()}) == 3


def test_a_copy_of_the_shards_is_the_same_data(digits: str, tmp_path: Path) -> None:
    copy = shutil.copytree(digits, tmp_path / "copy")
    assert read_manifest(str(copy)).fingerprint() == read_manifest(digits).fingerprint()


def test_a_run_that_noted_the_fingerprint_of_before_goes_on(digits: str, tmp_path: Path) -> None:
    manifest = read_manifest(digits)
    run = standard("cifar10-resnet8", data_is_given=False).model_copy(update={"storage": str(tmp_path)})
    assert RunFolder(run, manifest.fingerprint_before()).claim() is None
    assert RunFolder(run, manifest.fingerprint(), manifest.fingerprint_before()).claim() is None
    with pytest.raises(ValueError, match="data_sha256 must be"):
        RunFolder(run, manifest.fingerprint(100), manifest.fingerprint_before(100)).claim()
