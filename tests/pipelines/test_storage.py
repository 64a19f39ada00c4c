"""Folders by URI are alike on a disk and elsewhere; a file appears whole or not at all."""

import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from pipelines.storage import Entry, Folder, filesystem, is_hidden, side_by_side


def test_a_relative_path_means_the_same_in_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    travelled = pickle.dumps(Folder("images"))
    monkeypatch.chdir("/")
    assert pickle.loads(travelled).path("x") == str(tmp_path / "images" / "x")


@pytest.fixture(params=["disk", "file", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """An empty folder by a path, by file:// and by a scheme that fsspec alone knows, which stands for a bucket."""
    uris = {"disk": str(tmp_path), "file": tmp_path.as_uri(), "memory": f"memory://{tmp_path}"}
    return Folder(uris[request.param])


def fill(folder: Folder, names: dict[str, bytes]) -> None:
    for name, data in names.items():
        with folder.writing(name) as file:
            file.write(data)


FILES = {"b.txt": b"two", "a/1.txt": b"one", "a/deep/2.txt": b"", ".hidden": b"x", "Thumbs.db": b"x"}


def test_files_come_back_and_folders_list_what_they_hold(folder: Folder) -> None:
    assert (folder.entries(), folder.entries("none"), folder.files()) == ([], [], [])
    fill(folder, FILES)
    assert {name: folder.read(name) for name in FILES} == FILES
    assert folder.entries() == [Entry("a", True, 0), Entry("b.txt", False, 3)]
    assert [e.name for e in folder.entries(hidden=True)] == [".hidden", "Thumbs.db", "a", "b.txt"]
    assert folder.entries("a") == [Entry("1.txt", False, 3), Entry("deep", True, 0)]
    assert folder.files() == sorted(FILES)
    with folder.open("a/1.txt") as file:
        assert file.read_at(2, 1) == b"ne"
    kinds = [folder.kind(name) for name in ("b.txt", "a", "none")]
    assert kinds == [fs.FileType.File, fs.FileType.Directory, fs.FileType.NotFound]
    assert (folder.is_file, Folder(f"{folder.uri}/b.txt").is_file) == (False, True)


def test_a_file_is_replaced_and_a_folder_removed_with_all_it_holds(folder: Folder) -> None:
    fill(folder, FILES)
    fill(folder, {"b.txt": b"three"})
    assert folder.read("b.txt") == b"three"
    for name in ("a", "b.txt", "none"):
        folder.remove(name)
    assert folder.files() == [".hidden", "Thumbs.db"]
    with pytest.raises(FileNotFoundError):
        folder.read("b.txt")


def test_what_fails_half_way_leaves_the_file_of_before_and_nothing_else(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    fill(folder, {"x": b"before"})
    seen = []

    def fails() -> None:
        with folder.writing("x") as file:
            file.write(b"half")
            seen.extend(os.listdir(tmp_path))
            raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        fails()
    assert os.listdir(tmp_path) == ["x"]
    assert folder.read("x") == b"before"
    assert sorted(name.rpartition(".")[2] for name in seen) == ["part", "x"], "it lay beside"


def test_a_folder_holds_itself_and_what_lies_in_it_on_its_own_file_system(tmp_path: Path) -> None:
    outer, inner, near = (Folder(f"{tmp_path}/{name}") for name in ("a", "a/b", "ab"))
    assert outer.holds(outer)
    assert outer.holds(inner)
    assert outer.holds(Folder(f"{tmp_path.as_uri()}/a/b/"))
    assert not inner.holds(outer)
    assert not outer.holds(near)
    assert not outer.holds(Folder(f"memory://{tmp_path}/a/b"))


def test_records_show_places_without_credentials_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Folder("x/").shown == Folder(f"{tmp_path.as_uri()}/x").shown == f"{tmp_path}/x"
    bucket = Folder("s3://me@bucket/a?region=us-east-1&endpoint_override=localhost:9")
    assert bucket.shown == "s3://bucket/a"
    assert pickle.loads(pickle.dumps(bucket)).uri == bucket.uri, "a task needs the options"


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("s3://name:secret@images/out?region=us-east-1", "s3://images/out must be given without its password"),
        ("nosuchscheme://x", "cannot open nosuchscheme://x: Protocol not known: nosuchscheme"),
    ],
)
def test_a_uri_that_cannot_be_opened_is_one_sentence_without_its_password(uri: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}") as caught:
        filesystem(uri)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_links_are_followed_and_those_that_lead_nowhere_have_no_size(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"12345")
    for link, target in (("to file", "file"), ("to folder", "folder"), ("nowhere", "gone"), ("round", "round")):
        (tmp_path / link).symlink_to(target)
    found = {entry.name: (entry.is_folder, entry.size) for entry in Folder(str(tmp_path)).entries()}
    assert found == {
        "file": (False, 5), "folder": (True, 0), "to file": (False, 5), "to folder": (True, 0),
        "nowhere": (False, 0), "round": (False, 0),
    }  # fmt: skip
    assert [is_hidden(name) for name in (".x", "Thumbs.db", "desktop.ini", "x.db")] == [True, True, True, False]


@pytest.mark.parametrize(("uri", "several"), [("memory://x", True), ("/", False)])
def test_threads_wait_for_a_network_and_results_are_in_order(uri: str, several: bool) -> None:
    together = threading.Barrier(4 if several else 1, timeout=20)

    def task(item: int) -> tuple[int, Any]:
        together.wait()
        return item, threading.get_ident()

    found = side_by_side(Folder(uri), task, range(4))
    assert [item for item, _ in found] == [0, 1, 2, 3]
    assert (len({thread for _, thread in found}) > 1) == several
