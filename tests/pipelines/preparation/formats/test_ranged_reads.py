"""Byte ranges and whole files are read in the rows' order, whatever is read ahead."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.preparation.formats import ranged_reads
from pipelines.preparation.listing import listed
from pipelines.storage import Folder


@pytest.fixture
def archive(tmp_path: Path) -> tuple[Folder, pa.Table, list[bytes]]:
    """300 ranges of two files, of 0 to 40 bytes, in a shuffled order; and what they hold."""
    rng = np.random.default_rng(0)
    rows, expected = [], []
    for name in ("a.bin", "b.bin"):
        (tmp_path / name).write_bytes(data := rng.bytes(5000))
        for i in range(150):
            offset, size = int(rng.integers(4900)), int(rng.integers(41))
            rows.append((f"{name}/{i}", 0, name, offset, size))
            expected.append(data[offset : offset + size])
    order = rng.permutation(len(rows))
    return Folder(str(tmp_path)), listed(rows).take(pa.array(order)), [expected[i] for i in order]


@pytest.mark.parametrize("ahead", [(2**24, 64), (100, 64), (1, 3), (10**6, 1)])
def test_ranges_come_in_the_order_of_the_rows(
    archive: tuple[Folder, pa.Table, list[bytes]], ahead: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rows, expected = archive
    monkeypatch.setattr(ranged_reads, "AHEAD", ahead)
    assert list(ranged_reads.read_ranges(folder, rows)) == expected


def test_what_is_read_ahead_is_bounded_by_bytes_and_by_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranged_reads, "AHEAD", (100, 3))
    rows = listed((f"{i}", 0, "x", 0, size) for i, size in enumerate([40, 40, 40, 500, 1, 1, 1, 1, 99, 1, 1]))
    parts = [part["size"].to_pylist() for part in ranged_reads._parts(rows)]
    assert parts == [[40, 40], [40], [500], [1, 1, 1], [1, 99], [1, 1]]


def test_whole_files_come_in_the_order_of_the_rows(tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / f"{i}.jpg").write_bytes(bytes([i]) * i)
    rows = listed((f"{i}", 0, f"{i}.jpg", 0, i) for i in reversed(range(20)))
    assert list(ranged_reads.read_files(Folder(str(tmp_path)), rows)) == [bytes([i]) * i for i in reversed(range(20))]
    assert list(ranged_reads.read_files(Folder(str(tmp_path)), rows.slice(0, 0))) == []


def test_a_file_that_changed_since_it_was_listed_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"12345")
    folder = Folder(str(tmp_path))
    for read, size in ((ranged_reads.read_files, 4), (ranged_reads.read_files, 6), (ranged_reads.read_ranges, 6)):
        rows = listed([("a", 0, "a.jpg", 0, size)])
        with pytest.raises(ValueError, match=f"a.jpg changed while it was read: {size} bytes were listed, 5 are there"):
            list(read(folder, rows))
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.jpg"):
        list(ranged_reads.read_ranges(folder, listed([("a", 0, "a.jpg", 0, 5)])))
