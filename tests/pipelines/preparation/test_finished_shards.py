"""A folder belongs to one preparation: what is finished is kept, and another one's is refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipelines.preparation.finished_shards import finish, resume_preparation
from pipelines.preparation.prepare import verify
from pipelines.shards.manifest import Encoding, Finished, Manifest, Origin, Rejected, Shard, Unusual, read_manifest
from pipelines.storage import Folder
from tests.pipelines.preparation.sources_on_disk import digests, write


def test_a_shard_or_an_entry_that_a_power_cut_left_short_is_written_again(tmp_path: Path, folders: Path) -> None:
    whole = write(folders, tmp_path / "out", row_group_size=4)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="max_rejected"):  # leaves a folder in which all but the manifest is there
        write(folders, tmp_path / "begun", row_group_size=4, max_rejected=-1)
    begun = tmp_path / "begun"
    first, second = (shard.file for shard in whole.shards[:2])
    (begun / first).write_bytes(b"")
    (begun / ".writing" / f"{second}.json").write_bytes(b'{"shard": {"fi')
    assert digests(write(folders, begun, row_group_size=4)) == digests(read_manifest(str(out)))
    assert verify(str(begun)) == []


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path, folders: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"out must be empty or hold shards, .* holds thesis.tex"):
        write(folders, out)
    assert os.listdir(out) == ["thesis.tex"]
    with pytest.raises(ValueError, match="is a file"):
        write(folders, out / "thesis.tex")
    (out / "thesis.tex").rename(out / "manifest.json")
    with pytest.raises(ValueError, match="is no manifest of image shards"):
        write(folders, out)


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"encoding": Encoding(shorter_side=16, quality=90)}, "with encoding.shorter_side None, now it is 16"),
        ({"row_group_size": 5}, "with row_group_size 2, now it is 5"),
        ({"seed": 1}, "with shuffle_seed 0, now it is 1"),
        ({"shard_bytes": 1}, "from other images, or in another order"),
    ],
)
def test_other_options_over_what_is_there_are_refused(
    tmp_path: Path, folders: Path, finished: bool, change: dict[str, Any], sentence: str
) -> None:
    out = tmp_path / "out"
    write(folders, out, row_group_size=2)
    if not finished:
        (out / ".writing").mkdir()
        begun = json.loads((out / "manifest.json").read_text()) | {"shards": []}
        (out / ".writing" / "plan.json").write_text(json.dumps(begun))
        (out / "manifest.json").unlink()
    with pytest.raises(ValueError, match=sentence):
        write(folders, out, **{"row_group_size": 2, **change})


def test_a_changed_source_is_refused(tmp_path: Path, folders: Path) -> None:
    write(folders, tmp_path / "out")
    path = folders / "train" / "dog" / "train0001.jpg"
    path.rename(path.with_name("renamed.jpg"))
    with pytest.raises(ValueError, match="from other images"):
        write(folders, tmp_path / "out")
    path.with_name("renamed.jpg").unlink()
    with pytest.raises(ValueError, match=r"source.images 28, now it is 27"):
        write(folders, tmp_path / "out")


def test_too_many_rejected_images_are_an_error_that_names_the_first(tmp_path: Path, folders: Path) -> None:
    for i in range(5):
        (folders / "train" / "cat" / f"bad{i}.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"at least 0.1515 for the 5 of 33 images .*: cat/bad\d.jpg \(.*and 2 more"):
        write(folders, tmp_path / "out")
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.parquet")}
    manifest = write(folders, tmp_path / "out", max_rejected=0.2)
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.parquet")} == before, "nothing is redone"
    assert (len(manifest.rejected), manifest.examples("train")) == (5, 20)


def wanted(**fields: Any) -> Manifest:
    """The manifest that is to be, of 100 images."""
    origin = Origin(kind="folders", path="/images", images=100, fingerprint="f")
    whole: dict[str, Any] = {"classes": (), "shards": (), "row_group_size": 8, "shuffle_seed": 0}
    return Manifest(**whole | {"encoding": Encoding(), "source": origin} | fields)


def finished(file: str, **fields: Any) -> Finished:
    shard = Shard(file=file, split="train", examples=3, row_groups=(3,), bytes=5, sha256=file)
    return Finished(shard=shard, **fields)


def test_what_was_seen_in_all_shards_is_told_together(tmp_path: Path) -> None:
    """The most frequent kind first, with at most twenty names; and the ledger is gone."""
    (tmp_path / ".writing").mkdir()
    (tmp_path / "a.parquet.0123abcd.part").write_bytes(b"of a killed task")
    grey = [Unusual(what="grey", count=15, keys=tuple(f"{name}{i}" for i in range(15))) for name in "ab"]
    done = [
        finished("a", unusual=(grey[0], Unusual(what="animated", count=40, keys=("c",))), reencoded=2),
        finished("b", unusual=(grey[1],), reencoded=3, rejected=(Rejected(split="train", key="x", reason="torn"),)),
    ]
    found = finish(Folder(str(tmp_path)), wanted(), done, 0.01)
    assert [(u.what, u.count, len(u.keys)) for u in found.unusual] == [("animated", 40, 1), ("grey", 30, 20)]
    assert (found.reencoded, [r.key for r in found.rejected]) == (5, ["x"])
    assert os.listdir(tmp_path) == ["manifest.json"]


def test_a_preparation_goes_on_with_entries_whose_shard_is_whole(tmp_path: Path) -> None:
    out = Folder(str(tmp_path))
    assert resume_preparation(out, wanted()) == {}, "the first start notes its plan"
    assert resume_preparation(out, wanted()) == {}
    for file, size in (("whole.parquet", 5), ("short.parquet", 4)):
        (tmp_path / file).write_bytes(bytes(size))
    for file in ("whole.parquet", "short.parquet", "gone.parquet"):
        (tmp_path / ".writing" / f"{file}.json").write_text(finished(file).model_dump_json())
    assert resume_preparation(out, wanted()) == {"whole.parquet": finished("whole.parquet")}
    with pytest.raises(ValueError, match="was written with row_group_size 8, now it is 9; choose another out"):
        resume_preparation(out, wanted(row_group_size=9))
