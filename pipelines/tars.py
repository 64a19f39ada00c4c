"""Images inside tar archives: the ILSVRC2012 archives as they are distributed, and WebDataset's. Never unpacked."""

from __future__ import annotations

import io
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from pyarrow import concat_tables

from pipelines.listing import (
    Asked,
    Listing,
    chosen_splits,
    classes_of,
    container_and_key,
    container_row_and_key,
    in_order,
    listed,
    read_class_list,
    some,
    text_file,
)
from pipelines.manifest import Split
from pipelines.numbered_parts import refuse_missing_parts, refuse_missing_tars
from pipelines.passing_over import Passing
from pipelines.storage import Folder, side_by_side
from resnet import image_kinds

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12"
TRUTH, META, SYNSETS = "ILSVRC2012_validation_ground_truth.txt", "meta.mat", "synsets.txt"
IMAGE_SUFFIXES = {*image_kinds.SUFFIXES, *image_kinds.REFUSED_SUFFIXES}  # the refused are rejected by name
CLASS_LISTS = ("classnames.txt", "classes.txt")
# Headers lie an image apart. A local disk reads them one by one; over a network one large read is cheaper than many.
READ_AT_ONCE = {True: 1024, False: 2**23}  # bytes, by Folder.is_local


class Member(NamedTuple):
    """A file inside a tar. offset: of its first byte in the outermost archive; text: its content, where asked for."""

    name: str
    offset: int
    size: int
    text: str


def members(
    source: Folder, path: str, begin: int = 0, end: int | None = None, texts: str | None = None
) -> Iterator[Member]:
    """The files of the tar at [begin, end) of a file, in order. Reads headers, and the content of names in `texts`.

    ValueError: no tar, cut off, or with members that are no plain files.
    """
    try:
        with (
            source.open(path) as raw,
            io.BufferedReader(raw, READ_AT_ONCE[source.is_local]) as file,  # pyright: ignore[reportArgumentType]
        ):
            file.seek(begin)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (member := archive.next()) is not None and (end is None or member.offset < end):
                    archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue]  # else it keeps a kilobyte for each of a million files
                    if member.isdir():
                        continue
                    if not member.isreg() or member.sparse is not None:
                        raise ValueError(f"{path} must hold plain files only, {member.name} is a link or sparse")
                    text = _content(archive, member) if texts and member.name.endswith(texts) else ""
                    yield Member(member.name.removeprefix("./"), member.offset_data, member.size, text)
    except tarfile.TarError as error:
        raise ValueError(f"{path} is no complete tar archive ({error}); was its download cut off?") from None


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    stream = archive.extractfile(member)
    assert stream is not None  # a plain file
    return stream.read(2**16).decode("utf-8", "replace")


# --- ILSVRC2012 ---


def ilsvrc2012(source: Folder, synsets: str | None) -> Listing:
    """ILSVRC2012_img_train.tar (a tar for each class), ILSVRC2012_img_val.tar and the development kit.

    Keys are WNID/FILE in both splits; sorted WordNet ids are the ids. The kit gives the truth of the validation images
    as ILSVRC2012_ID, and meta.mat the WordNet id of each; `synsets`, one a line in that order, may stand for meta.mat.
    """
    names = {entry.name for entry in source.entries()}
    for name in (TRAIN, VAL):
        if name not in names:
            raise ValueError(f"source.path {source.uri} must hold {name}, it is missing")
    truth = validation_wnids(source, names, synsets)
    tars = [m for m in members(source, TRAIN) if m.name.endswith(".tar")]
    if not tars:
        raise ValueError(f"{TRAIN} must hold a tar for each class, it holds none")
    wnids = sorted(m.name.removesuffix(".tar") for m in tars)
    unknown = sorted(set(truth) - set(wnids))
    if unknown:
        raise ValueError(f"{TRAIN} must hold a tar for each class, that of {some(unknown)} is missing")
    ids = {wnid: i for i, wnid in enumerate(wnids)}

    def of_class(tar: Member) -> Any:
        wnid = tar.name.removesuffix(".tar")
        inside = members(source, TRAIN, tar.offset, tar.offset + tar.size)
        return listed((f"{wnid}/{m.name}", ids[wnid], TRAIN, m.offset, m.size) for m in inside)

    train = in_order(side_by_side(source, of_class, tars))
    return Listing("ilsvrc2012", source, classes_of(wnids), {"train": train, "val": _validation(source, truth, ids)})


def _validation(source: Folder, truth: Sequence[str], ids: dict[str, int]) -> Any:
    """The validation images: the number in a file's name, counted from 1, is its line in the ground truth."""
    rows = []
    for m in members(source, VAL):
        number = re.search(r"_(\d+)\.\w+$", m.name)
        if not number or not 1 <= int(number[1]) <= len(truth):
            raise ValueError(f"{VAL}: {m.name} must be numbered 1 to {len(truth)}, as the ground truth is")
        wnid = truth[int(number[1]) - 1]
        rows.append((f"{wnid}/{m.name.rpartition('/')[2]}", ids[wnid], VAL, m.offset, m.size))
    if len(rows) != len(truth):
        raise ValueError(
            f"{VAL} must hold an image for each of {len(truth)} lines of ground truth, it holds {len(rows)}"
        )
    return in_order([listed(rows)])


def validation_wnids(source: Folder, names: set[str], synsets: str | None) -> list[str]:
    """WordNet id of validation images 1, 2, ..."""
    kit = development_kit(source, names)
    if TRUTH not in kit:
        raise ValueError(f"source.path {source.uri} must hold {DEVKIT}.tar.gz or {TRUTH}, both are missing")
    if synsets is not None:
        by_id = _by_line(synsets)
    elif META in kit:
        by_id = _by_meta(kit[META])
    elif SYNSETS in kit:
        by_id = _by_line(text_file(kit[SYNSETS], SYNSETS))
    else:
        raise ValueError(f"{TRUTH} needs {DEVKIT}.tar.gz, {META} or {SYNSETS} beside it, all are missing")
    lines = text_file(kit[TRUTH], TRUTH).split()
    odd = next((i for i, line in enumerate(lines, start=1) if not line.isdecimal()), None)
    if odd is not None:
        raise ValueError(f"{TRUTH} must have a number on each line, line {odd} is {lines[odd - 1][:40]!r}")
    numbers = [int(line) for line in lines]
    wrong = next((n for n in numbers if n not in by_id), None)
    if wrong is not None:
        raise ValueError(f"{TRUTH} names class {wrong}, which the list of {len(by_id)} synsets does not have")
    return [by_id[n] for n in numbers]


def development_kit(source: Folder, names: set[str]) -> dict[str, bytes]:
    """The kit's files that matter, by name: from its archive, from its folder, or lying beside the images."""
    wanted = (TRUTH, META, SYNSETS)
    if f"{DEVKIT}.tar.gz" in names:
        try:
            with tarfile.open(fileobj=io.BytesIO(source.read(f"{DEVKIT}.tar.gz")), mode="r:gz") as archive:
                files = {m.name.rpartition("/")[2]: archive.extractfile(m) for m in archive if m.isreg()}
                return {name: file.read() for name in wanted if (file := files.get(name)) is not None}
        except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
            raise ValueError(f"{DEVKIT}.tar.gz is damaged ({error}); download it again") from None
    folder = f"{DEVKIT}/data/" if DEVKIT in names else ""
    present = {entry.name for entry in source.entries(folder.rstrip("/"))}
    return {name: source.read(folder + name) for name in wanted if name in present}


def _by_meta(data: bytes) -> dict[int, str]:
    """WordNet id by ILSVRC2012_ID, from the struct array `synsets` of meta.mat, which has inner nodes too."""
    from scipy.io import loadmat

    try:
        table = loadmat(io.BytesIO(data), squeeze_me=True)["synsets"]
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in table}
    except Exception as error:  # scipy raises nearly any class on bytes that are no such file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{META} of {DEVKIT} is damaged ({reason}); download the kit again") from None


def _by_line(text: str) -> dict[int, str]:
    """WordNet id by ILSVRC2012_ID, which is the number of the line. ILSVRC2012_ID 1 is n02119789, so no sorted list."""
    wnids = read_class_list(text)[0]
    if len(wnids) > 2 and wnids == sorted(wnids):
        raise ValueError(
            "the list of synsets must be in the order of ILSVRC2012_ID, as the ground truth counts; "
            "it is sorted by WordNet id"
        )
    return dict(enumerate(wnids, start=1))


# --- WebDataset ---


def webdataset(source: Folder, tars: Sequence[str], asked: Asked) -> Listing:
    """Tars of KEY.jpg (or .png, ...) beside KEY.cls or KEY.json with its label, or of CLASS/FILE, or a tar a class.

    A tar's name or folder tells its split. Keys are the images' names in the tars, with the tar's name before them
    where they repeat. Labels are numbers or names. Names of numbered classes come from `asked.classes`, classnames.txt
    or classes.txt; else from WordNet ids in the keys.
    """
    from pipelines.label_names import with_ids
    from pipelines.webdataset_labels import Samples

    names = {entry.name for entry in source.entries()}
    class_list = asked.classes or next(
        (text_file(source.read(name), name) for name in CLASS_LISTS if name in names), None
    )
    passing = Passing()
    refuse_missing_parts(tars, asked.allow_missing)
    tables: dict[Split, Any] = {
        split: concat_tables(side_by_side(source, lambda tar: Samples(source, tar, asked, passing).table(), mine))
        for split, mine in chosen_splits(tars, asked, passing).items()
    }
    refuse_missing_tars(source, names, tars, {s: t.num_rows for s, t in tables.items()}, asked.allow_missing)
    listing = with_ids("webdataset", source, tables, class_list)
    return replace(listing, passed_over=passing.told()).with_distinct_keys(container_and_key, container_row_and_key)
