"""Too little room is told before the work, and a disk that fills up with path and amount."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.preparation import free_space
from pipelines.storage import Folder
from tests.pipelines.preparation.sources_on_disk import (
    cats_and_dogs,
    refused,
    write,
)


def test_too_little_space_is_told_before_the_work(
    tmp_path: Path, seeds: Iterator[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = cats_and_dogs(tmp_path / "images", seeds)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1234))
    refused(rf"out {tmp_path}/out needs about \d.\d kB .*, 1.2 kB are free on its disk", write, root, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.parquet"))


@pytest.mark.parametrize(
    ("number", "why"), [(errno.ENOSPC, "its disk is full"), (errno.EDQUOT, "its quota is used up")]
)
def test_a_disk_that_fills_up_is_told_with_path_and_amount(
    tmp_path: Path, seeds: Iterator[int], monkeypatch: pytest.MonkeyPatch, number: int, why: str
) -> None:
    root = cats_and_dogs(tmp_path / "images", seeds)
    real = os.fsync

    def full(file: int) -> None:
        if os.readlink(f"/proc/self/fd/{file}").endswith(".part") and "parquet." in os.readlink(
            f"/proc/self/fd/{file}"
        ):
            raise OSError(number, os.strerror(number))
        real(file)

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("needs /proc to tell which file is written")
    monkeypatch.setattr(os, "fsync", full)
    refused(
        rf"out {tmp_path}/out cannot take train-.* of about .*: {why}, .* are free; the same",
        write,
        root,
        tmp_path / "out",
    )


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0.0 kB"), (1234, "1.2 kB"), (999_999, "1000.0 kB"), (10**6, "1.0 MB"), (1.55e9, "1.6 GB"), (3e12, "3.0 TB")],
)
def test_amounts_are_of_a_unit_that_people_read(size: float, shown: str) -> None:
    assert free_space.amount(int(size)) == shown


def test_a_folder_that_is_not_there_yet_has_the_room_of_the_one_above(tmp_path: Path) -> None:
    assert free_space.free(Folder(f"{tmp_path}/a/b/c")) == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.01)
    assert free_space.free(Folder("memory://a/b")) is None, "nobody knows"
    free_space.refuse_too_little(Folder("memory://a/b"), 10**18)
    with pytest.raises(ValueError, match=r"needs about 1000000\.0 TB"):
        free_space.refuse_too_little(Folder(str(tmp_path)), 10**18)


def test_other_errors_of_the_disk_are_left_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), free_space.told_when_full(Folder(str(tmp_path)), "x", 5):
        raise PermissionError(errno.EACCES, "no")
    with (
        pytest.raises(ValueError, match=r"cannot take x: its disk is full, .* are free"),
        free_space.told_when_full(Folder(str(tmp_path)), "x", 0),
    ):
        raise OSError(errno.ENOSPC, "full")
