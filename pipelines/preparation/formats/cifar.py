"""Images that come as arrays of pixels, and are stored as PNG: CIFAR-10 and -100, and scikit-learn's digits.

PNG is lossless and 27 % smaller than the pixels of CIFAR-10 (2.27 KB an image, read by Pillow in 0.08 ms). Lossless
WebP is 22 % smaller still, but takes 1.3 to 2 times as long to read, in every epoch.
"""

from __future__ import annotations

import codecs
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.preparation.listing import Listing, classes_of, in_order, listed, text_file
from pipelines.shards.manifest import SplitName
from pipelines.storage import Folder

SIDE = 32
PIXELS = 3 * SIDE * SIDE


class Cifar(NamedTuple):
    """The files of one form. labels: bytes before the pixels of a binary record, the last is the label."""

    kind: str
    folder: str
    splits: dict[SplitName, tuple[str, ...]]
    names: str
    labels: int | None = None
    label_key: bytes = b""
    names_key: bytes = b""


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
FORMS = (
    Cifar(
        kind="cifar10",
        folder="cifar-10-batches-bin",
        splits={"train": tuple(f"{name}.bin" for name in _BATCHES), "val": ("test_batch.bin",)},
        names="batches.meta.txt",
        labels=1,
    ),
    Cifar(
        kind="cifar10",
        folder="cifar-10-batches-py",
        splits={"train": _BATCHES, "val": ("test_batch",)},
        names="batches.meta",
        label_key=b"labels",
        names_key=b"label_names",
    ),
    Cifar(
        kind="cifar100",
        folder="cifar-100-binary",
        splits={"train": ("train.bin",), "val": ("test.bin",)},
        names="fine_label_names.txt",
        labels=2,
    ),
    Cifar(
        kind="cifar100",
        folder="cifar-100-python",
        splits={"train": ("train",), "val": ("test",)},
        names="meta",
        label_key=b"fine_labels",
        names_key=b"fine_label_names",
    ),
)


def cifar_form(kind: str, names: set[str]) -> Cifar | None:
    """The form of CIFAR-10 or -100 that a folder with these names in it holds."""
    return next((f for f in FORMS if f.kind == kind and {f.names, f.splits["train"][0]} <= names), None)


def cifar(source: Folder, form: Cifar) -> Listing:
    """CIFAR-10 or -100, binary or python form: the same keys, FILE/NUMBER such as data_batch_1/00042, and labels."""
    present = {entry.name for entry in source.entries()}
    missing = sorted({name for files in form.splits.values() for name in files} - present)
    if missing:
        raise ValueError(f"source.path {source.uri} must hold {missing[0]}, it is missing")
    if form.labels is not None:
        names = text_file(source.read(form.names), form.names).split()
    else:
        names = [name.decode() for name in _unpickled(source, form.names)[form.names_key]]
    tables: dict[SplitName, pa.Table] = {
        s: in_order([_records(source, f) for f in fs]) for s, fs in form.splits.items()
    }
    return Listing(form.kind, source, classes_of(names), tables)


def _records(source: Folder, file: str) -> pa.Table:
    stem, labels = file.removesuffix(".bin"), _load(source, file)[1]
    return listed((f"{stem}/{i:05d}", int(label), file, i, PIXELS) for i, label in enumerate(labels))


def _load(source: Folder, file: str) -> tuple[np.ndarray, np.ndarray]:
    """(n, 32, 32, 3) uint8 images and (n,) labels of one file of CIFAR."""
    form = next(f for f in FORMS if any(file in files for files in f.splits.values()))
    if form.labels is not None:
        data = np.frombuffer(source.read(file), np.uint8)
        if not len(data) or len(data) % (form.labels + PIXELS):
            raise ValueError(f"{file} must be whole records of {form.labels + PIXELS} bytes, it has {len(data)} bytes")
        records = data.reshape(-1, form.labels + PIXELS)
        labels, pixels = records[:, form.labels - 1], records[:, form.labels :]
    else:
        batch = _unpickled(source, file)
        labels, pixels = np.asarray(batch.get(form.label_key)), batch.get(b"data")
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXELS):
            raise ValueError(f"{file} must hold an array of uint8 with {PIXELS} columns and a label for each row")
    return pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1), labels


def read_cifar(source: Folder, rows: pa.Table) -> Iterator[bytes]:
    """The images of rows as PNG, in order. Each file is read whole, one after the other (31 MB; CIFAR-100: 154 MB)."""
    paths, offsets = np.asarray(rows["path"].to_pylist(), dtype=object), rows["offset"].to_numpy()
    images: dict[int, bytes] = {}
    for path in sorted(set(paths.tolist())):
        pixels = _load(source, path)[0]
        images |= {int(i): png(pixels[offsets[i]]) for i in np.flatnonzero(paths == path)}
    for i in range(len(paths)):
        yield images.pop(i)


def png(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 -> PNG."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG")
    return stream.getvalue()


# --- The python form is pickled: only what it needs is let through ---


def _empty_array(subtype: type, shape: tuple[int, ...], code: bytes) -> np.ndarray:
    """The beginning of a pickled array; its state follows."""
    if subtype is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("an array that does not begin empty")
    return np.ndarray((0,), np.dtype("b"))


def _latin1(text: str, encoding: str) -> bytes:
    """The call by which Python 3 writes bytes into a pickle for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in {encoding}")
    return codecs.latin_1_encode(text)[0]


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}


class _CifarUnpickler(pickle.Unpickler):
    """Numbers, strings, lists, dicts and arrays; every other name is refused before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = _ALLOWED.get((module, name))
        if allowed is None:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return allowed


def _unpickled(source: Folder, file: str) -> dict[bytes, Any]:
    """A batch of the python form, with bytes for keys. Nothing in the file can run code. ValueError: no such batch."""
    try:
        batch = _CifarUnpickler(io.BytesIO(source.read(file)), encoding="bytes").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        raise ValueError(f"{file} is no batch of CIFAR's python form: {error}") from None
    if not isinstance(batch, dict):
        raise ValueError(f"{file} is no batch of CIFAR's python form: it holds a {type(batch).__name__}")
    return {k.encode() if isinstance(k, str) else k: v for k, v in batch.items()}


# --- Digits ---
