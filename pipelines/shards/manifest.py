"""manifest.json of a folder of shards: what is in it, how it was made, and from what."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from pipelines.storage import Folder
from resnet.frozen import Frozen, sentence
from resnet.image_class import ImageClass
from resnet.images.grey_range import GreyRange

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
LEDGER = ".writing"  # folder inside the output: what a preparation has finished; gone when the manifest is there

FOLD = "fold-"  # with a number: the folder of one fold of a cross-validation, which holds shards like any other

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val")  # every set has these
ALL_SPLITS: tuple[SplitName, ...] = (*SPLITS, "test")  # test is there where it was asked for; no decision looks at it
Targets = Literal["boxes", "masks"]
LATER = ("passed_over", "duplicates", "only_in_train", "splitting", "targets")  # fields that came after 2026-11-27


class Shard(Frozen):
    """A Parquet file. row_groups: rows of each row group, in order; sha256: of the file."""

    file: str
    split: SplitName
    examples: int
    row_groups: tuple[int, ...]
    bytes: int
    sha256: str


class Rejected(Frozen):
    """An image that cannot be decoded and is in no shard."""

    split: SplitName
    key: str
    reason: str


class Unusual(Frozen):
    """Images that decode, but are no plain RGB image in the format that their name says. keys: the first of them."""

    what: str
    count: int
    keys: tuple[str, ...]


class PassedOver(Frozen):
    """Files and folders of the source that are not in the list of images. names: the first of them."""

    what: str
    count: int
    names: tuple[str, ...]


class Duplicates(Frozen):
    """Images with the same bytes in the source, by sha256. pairs: the first of them, (a key, the key of its twin).

    within: copies in a split, by split; in_train: images of val and test that are in train too, by split;
    other_class: images whose twin has another label.
    """

    within: dict[SplitName, int]
    in_train: dict[SplitName, int]
    other_class: int
    pairs: tuple[tuple[str, str], ...] = ()


class Splitting(Frozen):
    """Record of how val and test were drawn from train. group: what is never on both sides; None: an image.

    fold: which of so many folds is val, from 1; None: val is a share.
    """

    val_share: float | None = None
    test_share: float | None = None
    seed: int = 0
    group: str | None = None
    folds: int | None = None
    fold: int | None = None


class Encoding(Frozen):
    """The options of storing images. Without shorter_side: the source's bytes as they are; of a DICOM a PNG of 8 bits.

    Else an image whose shorter side has more pixels is scaled down to it and becomes a JPEG of this quality with 4:2:0
    chroma; all others keep their bytes. grey_range: levels (low, high) of grey images of more than 8 bits that become
    0 and 255; such images are stored as PNG of 8 bits. Without it they keep their bytes, and lose the lower eight bits.
    """

    shorter_side: Annotated[int | None, Field(ge=16)] = None
    quality: Annotated[int | None, Field(ge=1, le=100)] = None
    grey_range: tuple[int, int] | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.shorter_side is None) != (self.quality is None):
            raise ValueError(
                f"shorter_side and quality must be given together, got {self.shorter_side} and {self.quality}"
            )
        if self.grey_range is not None:
            GreyRange(*self.grey_range)  # its own sentence
        return self

    @model_serializer(mode="wrap")
    def _without_an_absent_range(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A manifest without a range is written as before there was one: its fingerprint stays."""
        fields = serialize(self)
        return {name: value for name, value in fields.items() if name != "grey_range" or value is not None}


class Origin(Frozen):
    """The source. fingerprint: sha256 over the list of its images (key, label, place, size) and their order here."""

    kind: str
    path: str
    images: int
    fingerprint: str


class Manifest(Frozen):
    """The whole. row_group_size: rows of a row group, but the last of a split and of a shard with rejected images."""

    format_version: int = FORMAT_VERSION
    classes: tuple[ImageClass, ...]
    shards: tuple[Shard, ...]
    row_group_size: int
    shuffle_seed: int
    encoding: Encoding
    reencoded: int = 0
    source: Origin
    rejected: tuple[Rejected, ...] = ()
    unusual: tuple[Unusual, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    duplicates: Duplicates | None = None  # None: they were not counted
    only_in_train: tuple[str, ...] = ()  # classes without an image in val
    splitting: Splitting | None = None  # None: the source's own splits
    targets: Targets | None = None  # content of column `target`; None: there is none, an image has a label

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields that older manifests do not have are left out where they say nothing: old ones stay what they were."""
        return {name: value for name, value in serialize(self).items() if value or name not in LATER}

    def of_split(self, split: SplitName) -> tuple[Shard, ...]:
        """The shards of train, val or test, in order."""
        return tuple(shard for shard in self.shards if shard.split == split)

    def examples(self, split: SplitName) -> int:
        """Images of a split."""
        return sum(shard.examples for shard in self.of_split(split))

    def fingerprint(self, holdout: int = 0) -> str:
        """Tells equal data from other data: the classes and the shards' content in order, wherever they lie.

        holdout: training images that are val; other data too, for their errors are no test's.
        """
        classes = [image_class.model_dump() for image_class in self.classes]
        shards = [[shard.split, shard.sha256, shard.row_groups] for shard in self.shards]
        return _sha256(json.dumps([classes, shards]), holdout)

    def fingerprint_before(self, holdout: int = 0) -> str:
        """The hash that runs before 2026-11-24 noted instead: of the whole manifest, the source's path included."""
        before = self.model_copy(update={name: type(self).model_fields[name].default for name in LATER})
        return _sha256(before.model_dump_json(), holdout)


def _sha256(told: str, holdout: int) -> str:
    return hashlib.sha256(f"{told} holdout {holdout}".encode() if holdout else told.encode()).hexdigest()


class Finished(Frozen):
    """The ledger's entry of a finished shard. digests: see duplicates; empty in ledgers of older versions."""

    shard: Shard
    rejected: tuple[Rejected, ...] = ()
    unusual: tuple[Unusual, ...] = ()
    reencoded: int = 0
    digests: str = ""


def read_manifest(uri: str) -> Manifest:
    """The manifest of the shards at a folder or URI. ValueError: absent, not ours, or of a newer format."""
    folder = Folder(uri)
    try:
        data = folder.read(MANIFEST)
    except FileNotFoundError:
        begun = "; a preparation was begun there, run it again to finish it" if folder.entries(LEDGER) else ""
        raise ValueError(
            f"{uri} holds no shards: it has no {MANIFEST}{begun or '; jobs/write_shards.py makes them'}"
        ) from None
    except OSError as error:
        raise ValueError(f"cannot read {uri}/{MANIFEST}: {error}") from None
    manifest = parse_manifest(data, uri)
    _refuse_links(manifest, folder, f"{uri}/{MANIFEST}")
    return manifest


def parse_manifest(data: bytes, uri: str) -> Manifest:
    """A manifest from its bytes. ValueError names the folder."""
    try:
        fields: Any = json.loads(data)
        version = fields["format_version"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{uri}/{MANIFEST} is no manifest of image shards") from None
    if version != FORMAT_VERSION:
        raise ValueError(f"{uri}/{MANIFEST} has format_version {version!r}, this program reads {FORMAT_VERSION}")
    try:
        manifest = Manifest.model_validate(fields)
    except ValidationError as error:
        raise ValueError(f"{uri}/{MANIFEST}: {sentence(error)}") from None
    _refuse_edited(manifest, f"{uri}/{MANIFEST}")
    return manifest


# --- What a manifest must be true to, whoever edited it ---------------------------------------------------------------

NUMBERED = re.compile(r"(?P<split>train|val|test)-(?P<number>\d{5,})-of-(?P<total>\d{5,})\.parquet")


def _refuse_edited(manifest: Manifest, where: str) -> None:
    """ValueError: the manifest cannot be as it was written. where: its path, for the sentence."""
    for shard in manifest.shards:
        if os.path.isabs(shard.file) or ":" in shard.file:
            raise ValueError(f"{where}: shards must be files of its folder, {shard.file!r} is an absolute path")
        if not shard.file or {"/", "\\", "\0"} & set(shard.file) or shard.file in (".", ".."):
            raise ValueError(f"{where}: shards must be files of its folder, {shard.file!r} leads out of it")
        if sum(shard.row_groups) != shard.examples or min(shard.row_groups, default=0) < 0:
            raise ValueError(
                f"{where}: examples of {shard.file} must be the sum of its row groups, "
                f"{sum(shard.row_groups)}, got {shard.examples}"
            )
    twice = [file for file, count in Counter(shard.file for shard in manifest.shards).items() if count > 1]
    if twice:
        raise ValueError(f"{where}: each shard must be listed once, {twice[0]} is listed twice")
    same = [sha for sha, n in Counter(s.sha256 for s in manifest.shards if s.examples).items() if n > 1]
    if same:
        files = [shard.file for shard in manifest.shards if shard.sha256 == same[0]]
        raise ValueError(f"{where}: each shard must be listed once, {files[0]} and {files[1]} have the same content")
    _refuse_missing(manifest, where)
    wrong = next((i for i, c in enumerate(manifest.classes) if c.id != i), None)
    if wrong is not None:
        raise ValueError(
            f"{where}: ids of classes must be 0, 1, ... in order, class {wrong} has {manifest.classes[wrong].id}"
        )


def _refuse_missing(manifest: Manifest, where: str) -> None:
    """ValueError: the names of the shards say that one is missing, or that one is of another split."""
    listed: Counter[tuple[str, int]] = Counter()
    for shard in manifest.shards:
        if match := NUMBERED.fullmatch(shard.file):
            if match["split"] != shard.split:
                raise ValueError(f"{where}: split of {shard.file} must be {match['split']}, got {shard.split}")
            listed[match["split"], int(match["total"])] += 1
    for (split, total), count in listed.items():
        if count != total:
            raise ValueError(f"{where}: all {total} shards of {split} must be listed, it lists {count}")


def _refuse_links(manifest: Manifest, folder: Folder, where: str) -> None:
    """ValueError: a shard is a symbolic link that leads out of its folder."""
    if not folder.is_local:
        return
    root = os.path.realpath(folder.path())
    for shard in manifest.shards:
        path = folder.path(shard.file)
        if os.path.islink(path) and os.path.dirname(os.path.realpath(path)) != root:
            raise ValueError(
                f"{where}: shards must be files of its folder, {shard.file} is a link that leads out of it"
            )
