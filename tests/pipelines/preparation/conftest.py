"""Seeds, class folders and a bucket that the tests of this folder share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipelines.preparation.sources_on_disk import smooth_folders


@pytest.fixture
def seeds() -> Iterator[int]:
    """Numbers that no picture of the test has had."""
    return iter(range(10_000))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Ten training and four validation JPEGs of cat and of dog."""
    smooth_folders(tmp_path / "images")
    return tmp_path / "images"
