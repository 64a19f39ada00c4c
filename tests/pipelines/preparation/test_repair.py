"""Damaged shards of a finished folder are found, and written again alone."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.preparation import repair
from pipelines.preparation.prepare import verify
from pipelines.shards.manifest import Finished, read_manifest
from pipelines.storage import Folder
from tests.pipelines.preparation.sources_on_disk import (
    cats_and_dogs,
    refused,
    write,
)


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped"])
def test_a_damaged_shard_is_written_again_alone_by_the_same_command(
    tmp_path: Path, seeds: Iterator[int], damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = cats_and_dogs(tmp_path / "images", seeds), tmp_path / "out"
    manifest = write(root, out, row_group_size=2)
    shard = out / manifest.shards[1].file
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir() if p != shard}
    shard.unlink()
    if damage != "gone":
        shard.write_bytes(data if damage == "flipped" else data[:-9])
    assert write(root, out, row_group_size=2) == manifest
    assert verify(str(out)) == []
    assert {p.name: p.stat().st_mtime_ns for p in out.iterdir() if p != shard} == before
    assert f"is damaged: {shard.name} of {len(manifest.shards)} shards is written again" in capsys.readouterr().err


def test_a_shard_whose_images_are_others_now_cannot_be_repaired(tmp_path: Path, folders: Path) -> None:
    """The list of the source is the same, by names and sizes; what lies in it is not."""
    manifest = write(folders, tmp_path / "out")
    shard = manifest.of_split("val")[0].file
    (tmp_path / "out" / shard).unlink()
    file = folders / "val" / "cat" / "val0001.jpg"
    file.write_bytes(bytes(file.stat().st_size))
    refused(
        f"out .*out cannot be repaired: {shard} has other images now .*; delete the folder and write it again",
        write,
        folders,
        tmp_path / "out",
    )


def test_bytes_that_only_changed_their_form_give_a_new_manifest(tmp_path: Path, folders: Path) -> None:
    """As another version of Arrow or of an encoder writes them."""
    manifest = write(folders, tmp_path / "out")
    first = manifest.shards[0]
    done = {shard.file: Finished(shard=shard) for shard in manifest.shards}
    done[first.file] = Finished(shard=first.model_copy(update={"sha256": "0" * 64, "bytes": 1}))
    mended = repair.mended(Folder(str(tmp_path / "out")), manifest, done, [first.file])
    assert [shard.sha256 for shard in mended.shards] == ["0" * 64, *(s.sha256 for s in manifest.shards[1:])]
    assert read_manifest(str(tmp_path / "out")) == mended


def test_few_shards_on_a_disk_are_always_compared_and_many_by_their_age(
    tmp_path: Path, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write(folders, tmp_path / "out", row_group_size=4)
    out, file = Folder(str(tmp_path / "out")), manifest.shards[2].file
    path = tmp_path / "out" / file
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert repair.damaged(out, manifest, read_all=False) == [file]
    monkeypatch.setattr(repair, "READ_ALL", 0)
    assert repair.damaged(out, manifest, read_all=False) == [file], "it is newer than the manifest"
    os.utime(path, (0, 0))
    assert repair.damaged(out, manifest, read_all=False) == []
    assert repair.damaged(out, manifest, read_all=True) == [file]
    assert set(repair.kept(manifest, [file])) == {shard.file for shard in manifest.shards} - {file}
