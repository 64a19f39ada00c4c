"""jpeg_region.c is compiled once a machine, and only a library that nobody else can replace is loaded."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from resnet.images import native_library


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose cache holds the library of engine c."""
    if shutil.which(os.environ.get("CC") or "cc") is None:
        pytest.skip("no C compiler here")
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESNET_HOME", str(home))
        assert native_library.loaded_library("c") is not None
    return home


@pytest.fixture
def home(compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, where the temporary folder is this test's own too: no path is loaded in this process yet."""
    copy = Path(shutil.copytree(compiled, tmp_path / "home"))
    (copy / "cache").chmod(0o700)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("RESNET_HOME", str(copy))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return copy


def test_what_was_compiled_needs_no_compiler_and_leaves_one_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nowhere/cc")
    library = native_library.loaded_library("c")
    assert library is not None
    assert library.resize is not None
    (file,) = (home / "cache").iterdir()
    assert file.match("region-c-" + "[0-9a-f]" * 16 + ".so")


@pytest.mark.parametrize("compiler", ["/nowhere/cc", "fails"])
def test_without_a_compiler_that_works_there_is_none_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str
) -> None:
    if compiler == "fails":
        compiler = str(tmp_path / "cc")
        Path(compiler).write_text("#!/bin/sh\nexit 1\n")
        Path(compiler).chmod(0o755)
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("RESNET_HOME", str(tmp_path / "home"))
    assert native_library.loaded_library("c") is None
    assert list((tmp_path / "home" / "cache").iterdir()) == []


def test_a_folder_that_others_can_write_is_not_trusted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nowhere/cc")
    (home / "cache").chmod(0o777)
    assert native_library.loaded_library("c") is None


def test_a_damaged_library_is_made_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = (home / "cache").iterdir()
    file.unlink()
    file.write_bytes(b"not a library")
    with monkeypatch.context() as patch:
        patch.setenv("CC", "/nowhere/cc")
        assert native_library.loaded_library("c") is None
    assert native_library.loaded_library("c") is not None
    assert file.stat().st_size > 1000
