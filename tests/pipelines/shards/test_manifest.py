"""A manifest that is foreign, newer or edited is refused with its own sentence; fingerprints tell data apart."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.shards.manifest import Encoding, Manifest, Origin, Shard, parse_manifest, read_manifest
from resnet.image_class import ImageClass


@pytest.fixture
def manifest() -> Manifest:
    """Three shards of two classes."""
    shards = (
        Shard(file="train-00000-of-00002.parquet", split="train", examples=6, row_groups=(4, 2), bytes=9, sha256="a"),
        Shard(file="train-00001-of-00002.parquet", split="train", examples=4, row_groups=(4,), bytes=7, sha256="b"),
        Shard(file="val-00000-of-00001.parquet", split="val", examples=3, row_groups=(3,), bytes=5, sha256="c"),
    )
    classes = tuple(ImageClass(id=i, wnid=name, name=name) for i, name in enumerate(("cat", "dog")))
    origin = Origin(kind="folders", path="/images", images=13, fingerprint="f")
    whole: dict[str, Any] = {"row_group_size": 4, "shuffle_seed": 0, "encoding": Encoding(), "source": origin}
    return Manifest(classes=classes, shards=shards, **whole)


def test_a_manifest_survives_json_and_counts_by_split(manifest: Manifest) -> None:
    assert parse_manifest(manifest.model_dump_json().encode(), "x") == manifest
    assert [manifest.examples(split) for split in ("train", "val", "test")] == [10, 3, 0]
    assert [shard.sha256 for shard in manifest.of_split("train")] == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: m["shards"].append(m["shards"][0]), "each shard must be listed once, train-00000-of-00002.parquet"),
        (
            lambda m: m["shards"].append(m["shards"][0] | {"file": "copy.parquet"}),
            "each shard must be listed once, train-00000-of-00002.parquet and copy.parquet have the same content",
        ),
        (lambda m: m["shards"][0].update(file="../../../../etc/passwd"), "'../../../../etc/passwd' leads out of it"),
        (lambda m: m["shards"][0].update(file="/etc/passwd"), "'/etc/passwd' is an absolute path"),
        (lambda m: m["shards"][0].update(file="s3://other/x.parquet"), "'s3://other/x.parquet' is an absolute path"),
        (lambda m: m["shards"][0].update(file=".."), "'..' leads out of it"),
        (lambda m: m["shards"][0].update(file="a\\b.parquet"), "leads out of it"),
        (
            lambda m: m["shards"][0].update(examples=99),
            "examples of train-00000-of-00002.parquet must be the sum of its row groups, 6, got 99",
        ),
        (lambda m: m["shards"][0].update(examples=2, row_groups=[4, -2]), "must be the sum of its row groups"),
        (lambda m: m["shards"].pop(0), "all 2 shards of train must be listed, it lists 1"),
        (
            lambda m: m["shards"][0].update(split="val"),
            "split of train-00000-of-00002.parquet must be train, got val",
        ),
        (lambda m: m["classes"].reverse(), "ids of classes must be 0, 1, ... in order, class 0 has 1"),
        (lambda m: m.pop("encoding"), "encoding of Manifest is missing"),
        (lambda m: m.update(colour=1), "colour is no field of Manifest"),
    ],
)
def test_an_edited_manifest_is_refused_with_its_own_sentence(manifest: Manifest, change: Any, sentence: str) -> None:
    fields = json.loads(manifest.model_dump_json())
    change(fields)
    with pytest.raises(ValueError, match=rf"^x/manifest\.json: .*{re.escape(sentence)}[^\n]*$"):
        parse_manifest(json.dumps(fields).encode(), "x")


def test_a_shard_that_is_a_link_out_of_the_folder_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text(manifest.model_dump_json())
    shard = tmp_path / "out" / manifest.shards[0].file
    (tmp_path / "out" / "inside.parquet").touch()
    shard.symlink_to("inside.parquet")
    assert read_manifest(str(tmp_path / "out")) == manifest, "a link inside the folder leads nowhere else"
    shard.unlink()
    shard.symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(ValueError, match="is a link that leads out of it"):
        read_manifest(str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[1, 2]", "is no manifest"),
        (b"{", "is no manifest"),
        (b'{"format_version": 2}', "has format_version 2, this program reads 1"),
        (b'{"format_version": 1, "shards": []}', "manifest.json: "),
    ],
)
def test_a_foreign_or_newer_manifest_is_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"holds no shards: it has no manifest.json; jobs/write_shards.py"):
        read_manifest(str(tmp_path))
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as error:
        read_manifest(str(tmp_path))
    assert "\n" not in str(error.value)


def test_an_encoding_that_is_none_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="shorter_side and quality must be given together"):
        Encoding(quality=90)
    with pytest.raises(ValueError, match="0 <= low < high <= 65535, got 5, 5"):
        Encoding(grey_range=(5, 5))


def test_fields_that_came_later_are_left_out_where_they_say_nothing(manifest: Manifest) -> None:
    """Manifests of before, and the fingerprints that runs noted of them, stay what they were."""
    fields = json.loads(manifest.model_dump_json())
    assert not {"passed_over", "duplicates", "only_in_train", "splitting"} & set(fields)
    assert "grey_range" not in fields["encoding"]
    later = manifest.model_copy(update={"only_in_train": ("emu",)})
    assert json.loads(later.model_dump_json())["only_in_train"] == ["emu"]
    assert later.fingerprint_before() == manifest.fingerprint_before()


def test_data_are_told_apart_by_content_not_by_place(manifest: Manifest) -> None:
    moved = manifest.model_copy(update={"source": manifest.source.model_copy(update={"path": "/elsewhere"})})
    assert manifest.fingerprint() == moved.fingerprint()
    assert manifest.fingerprint_before() != moved.fingerprint_before()
    assert len({manifest.fingerprint(), manifest.fingerprint(100), manifest.fingerprint(200)}) == 3
    swapped = manifest.model_copy(update={"shards": manifest.shards[::-1]})
    renamed = manifest.model_copy(update={"classes": manifest.classes[::-1]})
    assert len({manifest.fingerprint(), swapped.fingerprint(), renamed.fingerprint()}) == 3


def test_a_copy_of_the_shards_is_the_same_data(digits: str, tmp_path: Path) -> None:
    copy = shutil.copytree(digits, tmp_path / "copy")
    assert read_manifest(str(copy)).fingerprint() == read_manifest(digits).fingerprint()
