"""Images with the same bytes are counted inside splits, between them and between classes."""

import base64
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.preparation.listing import Listing, classes_of, listed
from pipelines.preparation.preparation_options import Preparation
from pipelines.preparation.prepare import prepare
from pipelines.preparation.shard_plan import plan
from pipelines.preparation.sources import Source
from pipelines.preparation.splits.duplicates import count_duplicates, digests_as_text, image_digest
from pipelines.shards.manifest import Finished, Shard, read_manifest
from pipelines.storage import Folder
from tests.pipelines.preparation.sources_on_disk import (
    CATS,
    cats_and_dogs,
    fill,
)


def test_duplicates_are_counted_and_told_by_kind(
    tmp_path: Path, seeds: Iterator[int], capsys: pytest.CaptureFixture[str]
) -> None:
    root = cats_and_dogs(tmp_path / "images", seeds, train=5, val=2)
    for name in CATS:
        for i in range(2):
            shutil.copy(root / "train" / name / f"train{i}.png", root / "val" / name / f"val{i}.png")
    shutil.copy(root / "train" / "cat" / "train3.png", root / "train" / "dog" / "really a cat.png")
    fill(root / "train" / "emu", 3, seeds)
    outcome = prepare(Preparation(source=Source(path=str(root)), out=str(tmp_path / "out"), workers=0))
    found = read_manifest(str(tmp_path / "out")).duplicates
    assert found is not None
    assert (found.in_train, found.within, found.other_class) == ({"val": 4}, {"train": 1}, 1)
    assert ("val/cat/val0.png" in str(found.pairs)) or ("cat/val0.png", "cat/train0.png") in found.pairs
    told = capsys.readouterr().err
    assert "warning: 4 of 4 images of val are in train too, e.g. " in told
    assert "warning: 1 images have a twin of the same bytes in another class" in told
    assert "warning: 1 classes have no image in val: emu" in told
    assert outcome["duplicates"] == {"within": {"train": 1}, "in_train": {"val": 4}, "other_class": 1}


Images = list[tuple[int, int]]  # content, label


@settings(max_examples=60, deadline=None)
@given(train=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1)), min_size=1, max_size=20),
       val=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1)), max_size=10))  # fmt: skip
def test_counts_are_those_of_a_plain_loop(train: Images, val: Images) -> None:
    """Content 0 stands for an image that does not decode, which is nobody's twin."""
    images: dict[Any, Images] = {"train": train, "val": val}
    tables: dict[Any, Any] = {
        split: listed((f"{split}{i}", label, "file", i, 1) for i, (_, label) in enumerate(mine))
        for split, mine in images.items()
    }
    listing = Listing("folders", Folder("x"), classes_of(["a", "b"]), tables)
    plans = plan(listing, 3, 10, seed=0)
    done = {}
    for p in plans:
        contents = [images[p.split][row][0] for row in p.rows]
        digests = b"".join(image_digest(bytes([c])) if c else bytes(8) for c in contents)
        shard = Shard(file=p.file, split=p.split, examples=len(p.rows), row_groups=(), bytes=0, sha256="")
        done[p.file] = Finished(shard=shard, digests=digests_as_text(digests))
    found = count_duplicates(listing, plans, done)
    assert found is not None
    within = {split: sum(c > 0 for c, _ in mine) - len({c for c, _ in mine if c}) for split, mine in images.items()}
    assert found.within == {split: count for split, count in within.items() if count}
    in_train = sum(c > 0 and c in {c for c, _ in train} for c, _ in val)
    assert found.in_train == ({"val": in_train} if in_train else {})
    contents = {f"{split}{i}": c for split, mine in images.items() for i, (c, _) in enumerate(mine)}
    assert all(contents[a] == contents[b] > 0 and a != b for a, b in found.pairs)
    again = sum(c > 0 for c in contents.values()) - len({c for c in contents.values() if c})
    assert len(found.pairs) == min(again, 20)


def test_a_folder_that_an_older_version_began_has_no_counts() -> None:
    listing = Listing("folders", Folder("x"), classes_of(["a"]), {"train": listed([("k", 0, "file", 0, 1)])})
    plans = plan(listing, 1, 1, seed=0)
    shard = Shard(file=plans[0].file, split="train", examples=1, row_groups=(1,), bytes=0, sha256="")
    assert count_duplicates(listing, plans, {plans[0].file: Finished(shard=shard)}) is None


def test_a_digest_is_the_beginning_of_the_sha256() -> None:
    assert image_digest(b"abc").hex() == "ba7816bf8f01cfea"
    text = digests_as_text(image_digest(b"abc") + bytes(8))
    assert np.frombuffer(base64.b64decode(text), np.uint64)[1] == 0
    assert hashlib.sha256(b"abc").digest().startswith(base64.b64decode(text)[:8])
