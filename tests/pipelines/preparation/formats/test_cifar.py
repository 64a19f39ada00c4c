"""CIFAR's four forms are read exactly, and nothing in a pickle can run."""

import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.preparation.sources import Source, list_source, read_images
from tests.pipelines.preparation.sources_on_disk import read_back


def pickled_by_python_2(names: dict[str, Any]) -> bytes:
    """A dict as Python 2 pickled it, protocol 2: str are bytes, arrays by numpy.core.multiarray._reconstruct."""

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    def item(value: Any) -> bytes:
        if isinstance(value, np.ndarray):
            shape = b"".join(b"M" + struct.pack("<H", n) for n in value.shape)
            return (
                b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
                + shape
                + b"\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
                + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
                + struct.pack("<I", value.nbytes)
                + value.tobytes()
                + b"tb"
            )
        if isinstance(value, list):
            return b"](" + b"".join(map(item, value)) + b"e"
        return b"K" + bytes([value]) if isinstance(value, int) else text(value)

    return b"\x80\x02}(" + b"".join(text(k) + item(v) for k, v in names.items()) + b"u."


def write_cifar(root: Path, form: str) -> dict[str, Any]:
    """All four forms hold the same 3 x 5 + 3 images, and give the same keys and labels within a kind."""
    hundred, binary = "100" in form, "bin" in form
    names = {"train": ["train"] if hundred else [f"data_batch_{i}" for i in range(1, 6)]}
    names["val"] = ["test"] if hundred else ["test_batch"]
    (root / form).mkdir()
    expected: dict[str, Any] = {}
    for split, files in names.items():
        expected[split] = {}
        for f, name in enumerate(files):
            pixels = np.random.default_rng((f, split == "val")).integers(0, 256, (3, 3072), dtype=np.uint8)
            labels = [0, 1, 2]
            for i in range(3):
                expected[split][f"{name}/{i:05d}"] = (i, pixels[i].reshape(3, 32, 32).transpose(1, 2, 0))
            path = root / form / (f"{name}.bin" if binary else name)
            if binary:
                head = np.asarray([[9, x] if hundred else [x] for x in labels], np.uint8)
                path.write_bytes(np.hstack([head, pixels]).tobytes())
            else:
                key = {"coarse_labels": [9, 9, 9], "fine_labels": labels} if hundred else {"labels": labels}
                path.write_bytes(
                    pickled_by_python_2({"batch_label": "x", **key, "data": pixels, "filenames": ["a.png"]})
                )
    classes = ["airplane", "automobile", "bird"]
    if binary:
        (root / form / ("fine_label_names.txt" if hundred else "batches.meta.txt")).write_text(
            "\n".join(classes) + "\n\n"
        )
    else:
        key = {"fine_label_names": classes} if hundred else {"label_names": classes, "num_vis": 3}
        (root / form / ("meta" if hundred else "batches.meta")).write_bytes(pickled_by_python_2(key))
    return expected


@pytest.mark.parametrize(
    "form", ["cifar-10-batches-bin", "cifar-10-batches-py", "cifar-100-binary", "cifar-100-python"]
)
@pytest.mark.parametrize("above", [False, True])
def test_cifar_is_read_exactly_as_png(tmp_path: Path, form: str, above: bool) -> None:
    expected = write_cifar(tmp_path, form)
    listing = list_source(Source(path=str(tmp_path if above else tmp_path / form)))
    assert listing.kind == ("cifar100" if "100" in form else "cifar10")
    assert [c.name for c in listing.classes] == ["airplane", "automobile", "bird"]
    found = read_back(listing)
    for split, images in expected.items():
        assert found[split].keys() == images.keys()
        for key, (label, pixels) in images.items():
            assert found[split][key][0] == label
            image = Image.open(io.BytesIO(found[split][key][1]))
            assert image.format == "PNG"
            np.testing.assert_array_equal(np.asarray(image), pixels)


def test_real_cifar10_has_its_labels_and_pixels(real_images: Path) -> None:
    listing = list_source(Source(path=str(real_images)))
    assert {split: table.num_rows for split, table in listing.splits.items()} == {"train": 50_000, "val": 10_000}
    assert [c.name for c in listing.classes][:3] == ["airplane", "automobile", "bird"]
    assert set(np.bincount(listing.splits["train"]["label"].to_numpy())) == {5000}
    raw = np.fromfile(real_images / "cifar-10-batches-bin" / "data_batch_3.bin", np.uint8).reshape(-1, 3073)[42]
    place = listing.splits["train"]["key"].to_pylist().index("data_batch_3/00042")
    row = listing.splits["train"].slice(place, 1)
    (image,) = read_images("cifar10", listing.source, row)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(image))).transpose(2, 0, 1).ravel(), raw[1:])


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch owned",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({b"data": Evil(), b"labels": [0]}, protocol=2),
        pickle.dumps(Path("x")),
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00bz2\x86R.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nJ\xff\xff\xff\x7f\x85U\x01b\x87R.",
        b"not a pickle at all",
        b"",
        pickle.dumps([1, 2]),
        pickle.dumps({"labels": [0], "data": [[1, 2]]}),
    ],
)
def test_nothing_in_a_pickled_batch_can_run(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path, "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="data_batch_2"):
        list_source(Source(path=str(tmp_path)))
    assert not (tmp_path / "owned").exists()


def test_a_pickle_of_python_3_is_read_too(tmp_path: Path) -> None:
    expected = write_cifar(tmp_path, "cifar-10-batches-py")
    path = tmp_path / "cifar-10-batches-py" / "data_batch_1"
    pixels = [image.transpose(2, 0, 1).ravel() for key, (_, image) in expected["train"].items() if "batch_1/" in key]
    for protocol in (2, 4):
        batch = {"labels": [0, 1, 2], "data": np.stack(pixels), "filenames": [b"x"]}
        path.write_bytes(pickle.dumps(batch, protocol=protocol))
        assert set(read_back(list_source(Source(path=str(tmp_path))))["train"]) == set(expected["train"])


def test_cifar_with_half_a_record_or_without_a_file_is_named(tmp_path: Path) -> None:
    write_cifar(tmp_path, "cifar-10-batches-bin")
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_4.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"data_batch_4.bin must be whole records of 3073 bytes"):
        list_source(Source(path=str(tmp_path)))
    path.unlink()
    with pytest.raises(ValueError, match=r"must hold data_batch_4.bin"):
        list_source(Source(path=str(tmp_path)))
