"""A shard is a Parquet file of fixed columns; one that differs from its manifest is told."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from pipelines.preparation.listing import listed
from pipelines.preparation.shard_writer import Work, shard_problem, write_shard
from pipelines.shards.manifest import Encoding, Finished
from pipelines.storage import Folder
from tests.pipelines.preparation.sources_on_disk import jpeg, write


def test_only_the_last_row_group_of_a_split_is_short_and_columns_are_as_fixed(tmp_path: Path, folders: Path) -> None:
    manifest = write(folders, tmp_path / "out", row_group_size=3)
    rows = [rows for shard in manifest.of_split("train") for rows in shard.row_groups]
    assert rows == [3] * 6 + [2]
    schema = pq.read_schema(tmp_path / "out" / manifest.shards[0].file)
    assert [(f.name, f.type) for f in schema] == [("image", pa.binary()), ("label", pa.int32()), ("key", pa.string())]


@pytest.fixture
def written(tmp_path: Path) -> tuple[Folder, Finished, list[bytes]]:
    """A shard of five images, the third of which is none, in row groups of two."""
    images = [jpeg(i) for i in range(5)]
    images[2] = b"no image"
    rows = []
    for i, data in enumerate(images):
        (tmp_path / f"{i}.jpg").write_bytes(data)
        rows.append((f"a/{i}.jpg", i % 2, f"{i}.jpg", 0, len(data)))
    out = Folder(str(tmp_path / "out"))
    source = Folder(str(tmp_path))
    return out, write_shard(Work("folders", source, out, "s.parquet", "val", listed(rows), 2, Encoding())), images


def test_a_shard_holds_what_decodes_and_its_entry_says_all_of_it(
    written: tuple[Folder, Finished, list[bytes]], tmp_path: Path
) -> None:
    out, done, images = written
    kept = [0, 1, 3, 4]
    assert pq.read_table(tmp_path / "out" / "s.parquet").to_pydict() == {
        "image": [images[i] for i in kept],
        "label": [i % 2 for i in kept],
        "key": [f"a/{i}.jpg" for i in kept],
    }
    file = (tmp_path / "out" / "s.parquet").read_bytes()
    shard = done.shard
    assert (shard.split, shard.examples, shard.row_groups) == ("val", 4, (2, 2))
    assert (shard.bytes, shard.sha256) == (len(file), hashlib.sha256(file).hexdigest())
    assert [(r.split, r.key) for r in done.rejected] == [("val", "a/2.jpg")]
    digests = [bytes(8) if i == 2 else hashlib.sha256(data).digest()[:8] for i, data in enumerate(images)]
    assert base64.b64decode(done.digests) == b"".join(digests)
    assert Finished.model_validate(json.loads(out.read(".writing/s.parquet.json"))) == done


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"file": "none.parquet"}, "none.parquet is missing"),
        ({"sha256": "0" * 64}, r"s.parquet has \d+ bytes and sha256 \w+, the manifest \d+ and 0{64}"),
        ({"row_groups": (4,)}, r"s.parquet has row groups of \(2, 2\) rows, the manifest \(4,\)"),
        ({"examples": 5}, r"s.parquet has row groups of \(2, 2\) rows"),
    ],
)
def test_what_differs_from_the_manifest_is_told(
    written: tuple[Folder, Finished, list[bytes]], change: dict[str, Any], words: str | None
) -> None:
    out, done, _ = written
    problem = shard_problem(out, done.shard.model_copy(update=change), classes=2)
    assert problem is None if words is None else re.match(words, problem or "")
    assert shard_problem(out, done.shard, classes=1) == "s.parquet has labels 0 to 1, the manifest 1 classes"
