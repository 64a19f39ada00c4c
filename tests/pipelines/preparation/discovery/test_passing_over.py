"""What lies beside images is passed over by its name, counted and named."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.preparation.discovery.passing_over import NAMED, Passing, passed_over_as, text_of
from tests.pipelines.preparation.sources_on_disk import (
    cats_and_dogs,
    fill,
    keys,
    listing_of,
    passed,
    refused,
    write,
)


def test_system_and_hidden_folders_are_no_classes_and_are_listed(tmp_path: Path, seeds: Iterator[int]) -> None:
    root = cats_and_dogs(tmp_path / "images", seeds)
    for name in ("__MACOSX", "@eaDir", "lost+found", ".ipynb_checkpoints", "$RECYCLE.BIN", "System Volume Information"):
        fill(root / "train" / name, 1, seeds)
        fill(root / "train" / "cat" / name, 1, seeds)
    (root / "train" / "cat" / "._train0.png").write_bytes(b"a Mac's resource fork")
    (root / "train" / "cat" / "THUMBS.DB").write_bytes(b"x")
    listing = listing_of(root)
    assert [c.name for c in listing.classes] == ["cat", "dog"]
    assert len(keys(listing)) == 8
    assert passed(listing) == {"system files and folders": 11, "hidden files and folders": 3}
    assert "train/__MACOSX" in listing.passed_over[0].names


def test_tables_beside_images_are_passed_over_at_the_listing(tmp_path: Path, seeds: Iterator[int]) -> None:
    root = cats_and_dogs(tmp_path / "images", seeds)
    for name in ("labels.csv", "meta.JSON", "notes.txt"):
        (root / "train" / "cat" / name).write_text("x")
    (root / "train" / "classes.csv").write_text("x")
    manifest = write(root, tmp_path / "out")
    assert (manifest.rejected, manifest.examples("train")) == ((), 8)
    assert passed(manifest) == {"files named .csv": 2, "files named .json": 1, "files named .txt": 1}


def test_a_class_of_tables_only_is_named_with_what_was_passed_over(tmp_path: Path, seeds: Iterator[int]) -> None:
    """A class folder that holds an archive instead of images (datasets: 'empty' splits of zipped folders)."""
    root = cats_and_dogs(tmp_path / "images", seeds)
    (root / "train" / "emu").mkdir()
    (root / "train" / "emu" / "emu.zip").write_bytes(b"PK")
    refused(r"emu has none; --allow-empty .* passed over: 1 files named .zip \(train/emu/emu.zip\)", listing_of, root)


@pytest.mark.parametrize(
    ("name", "is_folder", "what"),
    [
        ("photo.jpg", False, None),
        ("photo", False, None),
        ("photo.unknown", False, None),
        ("photo.tar.jpg", False, None),
        ("data.tar", True, None),
        ("labels.CSV", False, "files named .csv"),
        ("archive.tar.gz", False, "files named .gz"),
        (".DS_Store", False, "hidden files and folders"),
        (".git", True, "hidden files and folders"),
        ("Thumbs.db", False, "system files and folders"),
        ("Thumbs.db", True, "hidden files and folders"),
        ("__MACOSX", True, "system files and folders"),
        ("__MACOSX", False, None),
    ],
)
def test_a_name_tells_what_is_passed_over(name: str, is_folder: bool, what: str | None) -> None:
    assert passed_over_as(name, is_folder) == what


def test_kinds_are_counted_with_their_first_names_the_most_frequent_first() -> None:
    passing, other = Passing(), Passing()
    assert (passing.told(), text_of(passing.told())) == ((), "")
    for i in range(NAMED + 5):
        passing.over("files named .txt", f"{i:02d}.txt")
    other.all_over("hidden files and folders", [".a", ".b"], 40)
    passing.add(other.told())
    told = passing.told()
    assert [(p.what, p.count, len(p.names)) for p in told] == [
        ("hidden files and folders", 40, 2),
        ("files named .txt", NAMED + 5, NAMED),
    ]
    assert text_of(told) == (
        f"; passed over: 40 hidden files and folders (.a, ...), {NAMED + 5} files named .txt (00.txt, ...)"
    )
