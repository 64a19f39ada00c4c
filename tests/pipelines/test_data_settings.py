"""What a run says of its data is refused where it would have no effect."""

from pathlib import Path

import pytest

from pipelines.data_settings import Data


def test_the_folder_of_a_cache_is_on_a_disk_and_has_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Data(cache_size=1, cache_path="near").cache_path == str(tmp_path / "near")
    with pytest.raises(ValueError, match="cache_path has no effect without cache_size, got /mnt/nvme"):
        Data(cache_path="/mnt/nvme")
    with pytest.raises(ValueError, match="cache_path must be a folder on each node's own disk, got s3://bucket/x"):
        Data(cache_size=1, cache_path="s3://bucket/x")
    with pytest.raises(ValueError, match="cache_size must be greater than 0, got 0"):
        Data(cache_size=0)


def test_data_of_before_keep_their_window() -> None:
    assert Data().window is None
    assert Data.model_validate({"path": None, "window": 16, "decode": "auto"}).window == 16
