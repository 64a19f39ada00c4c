"""Images inside tars are read where they lie; ILSVRC2012's archives and development kit, whole and damaged."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from pipelines.preparation.formats.tar_archives import members
from pipelines.preparation.sources import Source, list_source
from pipelines.storage import Folder
from tests.pipelines.preparation.sources_on_disk import (
    jpeg,
    listing_of,
    read_back,
    refused,
    tar,
    tar_bytes,
)

# In the order of ILSVRC2012_ID, which is not the sorted one; real wnids, so that their names are known.
ILSVRC = ["n02119789", "n02100735", "n01440764"]


def write_ilsvrc(root: Path) -> dict[str, Any]:
    """The three official archives, tiny; validation image i is of the class with ILSVRC2012_ID truth[i]."""
    truth = [3, 1, 2, 2]
    train = {w: {f"{w}_{i}.JPEG": jpeg(1000 * k + i) for i in range(3)} for k, w in enumerate(ILSVRC)}
    val = [jpeg(7000 + i) for i in range(len(truth))]
    outer = {f"{w}.tar": tar_bytes(images) for w, images in train.items()}
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_bytes(outer))
    names = [f"ILSVRC2012_val_{i + 1:08d}.JPEG" for i in range(len(val))]
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_bytes(dict(zip(names, val, strict=True))))
    columns = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    synsets = np.empty((len(ILSVRC) + 1, 1), dtype=columns)
    for i, wnid in enumerate([*ILSVRC, "n00001740"]):  # the last is an inner node
        synsets[i, 0] = (float(i + 1), wnid, "words", float(i == len(ILSVRC)))
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    data = "ILSVRC2012_devkit_t12/data/"
    text = "\n".join(map(str, truth)) + "\n"
    kit = {f"{data}meta.mat": meta.getvalue(), f"{data}ILSVRC2012_validation_ground_truth.txt": text.encode()}
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        folder = tarfile.TarInfo(data)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
        for name, content in kit.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    order = sorted(ILSVRC)
    return {
        "train": {f"{w}/{n}": (order.index(w), d) for w, images in train.items() for n, d in images.items()},
        "val": {
            f"{ILSVRC[t - 1]}/{n}": (order.index(ILSVRC[t - 1]), d) for t, n, d in zip(truth, names, val, strict=True)
        },
    }


def unpack_devkit(root: Path) -> Path:
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz") as archive:
        archive.extractall(root, filter="data")
    (root / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    return root / "ILSVRC2012_devkit_t12" / "data"


def test_ilsvrc2012_is_read_inside_its_archives(tmp_path: Path) -> None:
    expected = write_ilsvrc(tmp_path)
    listing = list_source(Source(path=str(tmp_path)))
    assert listing.kind == "ilsvrc2012"
    assert read_back(listing) == expected
    assert [(c.wnid, c.name) for c in listing.classes] == [
        ("n01440764", "tench"),
        ("n02100735", "English setter"),
        ("n02119789", "kit fox"),
    ]


@pytest.mark.parametrize("form", ["unpacked", "synsets.txt", "source.classes"])
def test_ilsvrc2012_takes_the_truth_in_other_forms(tmp_path: Path, form: str) -> None:
    expected = write_ilsvrc(tmp_path)
    data, classes = unpack_devkit(tmp_path), None
    if form != "unpacked":
        (data / "meta.mat").unlink()
        (data / "ILSVRC2012_validation_ground_truth.txt").rename(tmp_path / "ILSVRC2012_validation_ground_truth.txt")
        data.rmdir()
        data.parent.rmdir()
        path = tmp_path / ("synsets.txt" if form == "synsets.txt" else "my list.txt")
        path.write_text("\n".join(f"{w} some, words" for w in ILSVRC))
        classes = None if form == "synsets.txt" else str(path)
    assert read_back(list_source(Source(path=str(tmp_path), classes=classes))) == expected


def test_a_list_of_synsets_sorted_by_wnid_is_refused(tmp_path: Path) -> None:
    write_ilsvrc(tmp_path)
    (tmp_path / "sorted.txt").write_text("\n".join(sorted(ILSVRC)))
    with pytest.raises(ValueError, match="order of ILSVRC2012_ID"):
        list_source(Source(path=str(tmp_path), classes=str(tmp_path / "sorted.txt")))


@pytest.mark.parametrize("name", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"])
def test_an_archive_that_is_cut_off_is_named(tmp_path: Path, name: str) -> None:
    write_ilsvrc(tmp_path)
    data = (tmp_path / name).read_bytes().rstrip(b"\0")
    (tmp_path / name).write_bytes(data[:-200])
    with pytest.raises(ValueError, match=rf"{name}.*cut off"):
        list_source(Source(path=str(tmp_path)))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ILSVRC2012_img_val.tar", "must hold ILSVRC2012_img_val.tar"),
        ("ILSVRC2012_devkit_t12.tar.gz", "must hold ILSVRC2012_devkit_t12.tar.gz or"),
    ],
)
def test_a_missing_archive_is_named(tmp_path: Path, name: str, sentence: str) -> None:
    write_ilsvrc(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=sentence):
        list_source(Source(path=str(tmp_path)))


@pytest.mark.parametrize("content", [b"", b"no gzip", b"\x1f\x8b\x08\x00cut", "cut"])
def test_a_damaged_development_kit_is_one_sentence(tmp_path: Path, content: Any) -> None:
    tar(tmp_path / "ILSVRC2012_img_train.tar", {})
    tar(tmp_path / "ILSVRC2012_img_val.tar", {})
    kit = tmp_path / "ILSVRC2012_devkit_t12.tar.gz"
    if content == "cut":
        with tarfile.open(kit, "w:gz") as archive:
            info = tarfile.TarInfo("meta.mat")
            info.size = 100_000
            archive.addfile(info, io.BytesIO(np.random.default_rng(0).bytes(info.size)))
        kit.write_bytes(kit.read_bytes()[:5000])
    else:
        kit.write_bytes(content)
    refused("ILSVRC2012_devkit_t12.tar.gz (is damaged|or)", listing_of, tmp_path)


@pytest.mark.parametrize(
    ("truth", "meta", "sentence"),
    [
        (b"1\nx\n", None, "ILSVRC2012_validation_ground_truth.txt must have a number on each line, line 2 is 'x'"),
        (b"\xff\xfe\xff", None, "ILSVRC2012_validation_ground_truth.txt must be text in UTF-8"),
        (b"1\n", b"no MATLAB file", "meta.mat of ILSVRC2012_devkit_t12 is damaged"),
    ],
)
def test_a_damaged_file_of_the_kit_is_named(tmp_path: Path, truth: bytes, meta: bytes | None, sentence: str) -> None:
    tar(tmp_path / "ILSVRC2012_img_train.tar", {})
    tar(tmp_path / "ILSVRC2012_img_val.tar", {})
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_bytes(truth)
    (tmp_path / "synsets.txt").write_text("n02102040\nn01440764\n")
    if meta is not None:
        (tmp_path / "meta.mat").write_bytes(meta)
    refused(sentence, listing_of, tmp_path)


def test_members_of_a_tar_inside_a_tar_lie_at_their_offsets_of_the_whole_file(tmp_path: Path) -> None:
    inner = {"./cat/1.jpg": b"one", "cat/1.cls": b"7\n", "empty": b""}
    tar(tmp_path / "outer.tar", {"first.tar": tar_bytes(inner), "second.tar": tar_bytes({"x": b"not of the first"})})
    folder, data = Folder(str(tmp_path)), (tmp_path / "outer.tar").read_bytes()
    first, _ = members(folder, "outer.tar")
    found = list(members(folder, "outer.tar", first.offset, first.offset + first.size, texts=".cls"))
    assert [(m.name, m.text) for m in found] == [("cat/1.jpg", ""), ("cat/1.cls", "7\n"), ("empty", "")]
    assert [data[m.offset : m.offset + m.size] for m in found] == [b"one", b"7\n", b""]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_members_that_are_no_plain_files_are_named(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("cat/link.jpg")
        link.type, link.linkname = kind, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(ValueError, match=r"a\.tar must hold plain files only, cat/link\.jpg is a link or sparse"):
        list(members(Folder(str(tmp_path)), "a.tar"))
