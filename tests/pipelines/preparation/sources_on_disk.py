"""Sources that the tests of this folder write and read back: class folders, tars, Parquet files, small pictures."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet as pq

from pipelines.preparation.listing import Listing
from pipelines.preparation.prepare import write_shards
from pipelines.preparation.sources import Source, list_source, read_images
from pipelines.preparation.splits.drawn_splits import Drawing
from pipelines.shards.manifest import Manifest
from pipelines.storage import filesystem

CATS = ("cat", "dog")

# --- Pictures ---


def picture(seed: int) -> bytes:
    """A small PNG; other seeds, other bytes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "PNG")


def jpeg(seed: int, width: int = 20, height: int = 16) -> bytes:
    """A small JPEG of noise; other seeds, other bytes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels))


def smooth(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    """Smooth noise, so that JPEG and resizing keep its pixels."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


# --- Folders and archives ---


def fill(folder: Path, count: int, seeds: Iterator[int], name: str = "{}.png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / name.format(i)).write_bytes(picture(next(seeds)))


def cats_and_dogs(root: Path, seeds: Iterator[int], train: int = 4, val: int = 2) -> Path:
    """train/ and val/ with class folders cat and dog, so many PNGs each."""
    for split, count in (("train", train), ("val", val)):
        for name in CATS:
            fill(root / split / name, count, seeds, split + "{}.png")
    return root


def smooth_folders(root: Path, train: int = 10, val: int = 4, **size: int) -> dict[str, dict[str, tuple[int, bytes]]]:
    """Class folders cat and dog of JPEGs; returns split -> {key: (label, bytes)}."""
    expected: dict[str, dict[str, tuple[int, bytes]]] = {}
    for split, count in (("train", train), ("val", val)):
        expected[split] = {}
        for label, name in enumerate(CATS):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                data = encoded(smooth(1000 * label + i + (split == "val") * 5000, **size), quality=90)
                (root / split / name / f"{split}{i:04d}.jpg").write_bytes(data)
                expected[split][f"{name}/{split}{i:04d}.jpg"] = (label, data)
    return expected


def deep_folders(root: Path, kind: str = "PNG") -> dict[str, np.ndarray]:
    """Grey images of levels 1000 to 2999 in files of 16 bits, of classes a and b; returns their levels by key."""
    rng, found = np.random.default_rng(0), {}
    for split, count in (("train", 8), ("val", 3)):
        for label in ("a", "b"):
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                levels = rng.integers(1000, 3000, (40, 40)).astype(np.uint16)
                name = f"{label}/{split}{i}.{kind.lower()}"
                (root / split / name).write_bytes(encoded(Image.fromarray(levels), kind))
                found[name] = levels
    return found


def tar_bytes(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(members))


def table(folder: Path, name: str, columns: dict[str, Any], metadata: dict[str, str] | None = None) -> None:
    """A Parquet file with row groups of two rows."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), folder / name, row_group_size=2)


def structs(seeds: Iterator[int], names: list[str]) -> list[dict[str, Any]]:
    """A column of images as the datasets library has it."""
    return [{"bytes": picture(next(seeds)), "path": name} for name in names]


# --- What is made of them ---


def listing_of(root: Path | str, drawing: Drawing | None = None, **source: Any) -> Listing:
    return list_source(Source(path=str(root), **source), drawing)


def keys(listing: Listing, split: Any = "train") -> list[str]:
    return listing.splits[split]["key"].to_pylist()


def labels(listing: Listing, split: Any = "train") -> dict[str, str]:
    """Name of the class by key."""
    rows = listing.splits[split]
    names = [listing.classes[i].name for i in rows["label"].to_pylist()]
    return dict(zip(rows["key"].to_pylist(), names, strict=True))


def passed(listing: Listing | Manifest) -> dict[str, int]:
    """What was passed over: count by kind."""
    return {p.what: p.count for p in listing.passed_over}


def read_back(listing: Listing) -> dict[str, Any]:
    """split -> {key: (label, bytes)} of a whole listing, read in a shuffled order."""
    found: dict[str, Any] = {}
    for split, listed in listing.splits.items():
        rows = listed.take(pa.array(np.random.default_rng(0).permutation(listed.num_rows)))
        images = list(read_images(listing.kind, listing.source, rows))
        assert len(images) == listed.num_rows
        found[split] = dict(
            zip(rows["key"].to_pylist(), zip(rows["label"].to_pylist(), images, strict=True), strict=True)
        )
        assert len(found[split]) == listed.num_rows, "a key twice"
    return found


def write(source: Path | str, out: Path | str, **options: Any) -> Manifest:
    """Shards, written in this process."""
    return write_shards(Source(path=str(source)), str(out), **{"workers": 0, **options})


def rows_of(out: Path | str, manifest: Manifest) -> dict[str, list[tuple[str, int, bytes]]]:
    """split -> (key, label, bytes) of every row, in order."""
    system, root = filesystem(str(out))
    found: dict[str, list[tuple[str, int, bytes]]] = {"train": [], "val": []}
    for shard in manifest.shards:
        file = pq.ParquetFile(f"{root}/{shard.file}", filesystem=system, page_checksum_verification=True)
        assert tuple(file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)) == shard.row_groups
        columns = file.read().to_pydict()
        found[shard.split] += zip(columns["key"], columns["label"], columns["image"], strict=True)
    return found


def digests(manifest: Manifest) -> list[tuple[str, str]]:
    return [(shard.file, shard.sha256) for shard in manifest.shards]


def refused(sentence: str, call: Any, *arguments: Any, **options: Any) -> None:
    """The call fails with this sentence, and no more than one."""
    with pytest.raises(ValueError, match=sentence) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value), "one sentence"
