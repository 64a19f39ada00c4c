"""A small untrained network and photographs that the tests of this folder share."""

from pathlib import Path

import pytest

from tests.serve.conftest import draw, write_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("prediction") / "best", "cifar10-resnet8-A", 32, 10)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five images in two folders, and a text."""
    folder = tmp_path / "photos"
    for number in range(5):
        place = folder / ("a" if number < 3 else "b/c")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.jpg").write_bytes(draw(number))
    (folder / "notes.txt").write_text("no image")
    return folder
