"""An index of embeddings in a folder: the nearest images of a vector, by cosine distance.

    index.json       which model's embeddings these are, how many, how wide
    vectors.usearch  HNSW graph in float16 (usearch), mapped into memory: replicas on a machine share its pages
    items.sqlite     key and thumbnail of each image

index.json is written last: a folder without it is none. Vectors are of length 1, so that the inner product is the
cosine; why usearch and float16 is in docs/decisions/retrieval.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from resnet.frozen import Frozen, sentence

if TYPE_CHECKING:
    from torch import Tensor

CARD, VECTORS, ITEMS = "index.json", "vectors.usearch", "items.sqlite"
CONNECTIVITY, EFFORT_ADD, EFFORT = 16, 128, 128  # recall@10 above 0.999 of exact search on 100,000 vectors
Row = tuple[str, bytes, np.ndarray]  # key, thumbnail, embedding


class IndexCard(Frozen):
    """The content of an index. weights_sha256: of the network whose embeddings these are."""

    format: int = 1
    model: str
    version: str
    network: str
    weights_sha256: str
    width: int
    images: int


@dataclass(frozen=True)
class Neighbour:
    """An image of the index. distance: 1 - cosine, from 0 to 2; thumbnail: JPEG."""

    key: str
    distance: float
    thumbnail: bytes


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """The digest of a network's weights, whatever file they are in."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1, (N, C) float32; one of zeros stays so."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)


def _library() -> Any:
    try:
        from usearch import index
    except ImportError:
        raise ValueError(
            "an index needs the package usearch, which is not installed: the extra `uses` has it"
        ) from None
    return index


def write_index(
    folder: Path, card: IndexCard, batches: Iterable[Sequence[Row]], threads: int = 0, effort: int = EFFORT_ADD
) -> IndexCard:
    """Write an index of all rows, and return its card with their number. threads: 0 for all cores."""
    graph = _library().Index(
        ndim=card.width, metric="cos", dtype="f16", connectivity=CONNECTIVITY, expansion_add=effort
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)
    (folder / ITEMS).unlink(missing_ok=True)
    count = 0
    with contextlib.closing(sqlite3.connect(folder / ITEMS)) as items:
        items.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, key TEXT NOT NULL, thumbnail BLOB NOT NULL)")
        for rows in batches:
            numbers = np.arange(count, count + len(rows))
            graph.add(numbers, unit(np.stack([row[2] for row in rows])), threads=threads)
            values = [(int(i), key, thumbnail) for i, (key, thumbnail, _) in zip(numbers, rows, strict=True)]
            items.executemany("INSERT INTO items VALUES (?, ?, ?)", values)
            count += len(rows)
        items.commit()
    graph.save(str(folder / VECTORS))
    card = card.model_copy(update={"images": count})
    half = folder / f"{CARD}.tmp"
    half.write_text(card.model_dump_json(indent=1))
    os.replace(half, folder / CARD)
    return card


def read_card(folder: Path, what: str = "index") -> IndexCard:
    """The card of an index. ValueError where the folder is none, in one sentence; what: the setting that names it."""
    try:
        card = IndexCard.model_validate_json((folder / CARD).read_text())
    except OSError:
        raise ValueError(f"{what} must be a folder of jobs/index_images.py with {CARD}, got {folder}") from None
    except ValidationError as error:
        raise ValueError(f"{what} {folder} is damaged: {sentence(error)[:200]}") from None
    for name in (VECTORS, ITEMS):
        if not (folder / name).is_file():
            raise ValueError(f"{what} {folder} is damaged: it has no {name}")
    return card


class VectorIndex:
    """An index that is open for search, from many threads. ValueError: the folder is none, or damaged."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.card = read_card(self.folder)
        try:
            self._graph = _library().Index.restore(str(self.folder / VECTORS), view=True)
        except (RuntimeError, OSError, ValueError) as error:
            raise ValueError(f"index {self.folder} is damaged: {error}") from None
        if self._graph is None or (len(self._graph), self._graph.ndim) != (self.card.images, self.card.width):
            raise ValueError(f"index {self.folder} is damaged: its vectors are not those of {CARD}")
        self._graph.expansion_search = EFFORT
        self._items = sqlite3.connect(f"file:{self.folder / ITEMS}?mode=ro", uri=True, check_same_thread=False)
        self._one_at_a_time = threading.Lock()

    def require_model(self, digest: str, shown: str) -> None:
        """ValueError where the embeddings are another network's. digest: of the weights; shown: the model's name."""
        if digest != self.card.weights_sha256:
            of = f"{self.card.model} (version {self.card.version}, {self.card.network})"
            raise ValueError(
                f"index must be of the model that answers, {shown}, got one of {of}: index the images anew"
            )

    def nearest(self, embedding: np.ndarray, count: int) -> list[Neighbour]:
        """The nearest images, the nearest first. embedding: (C,), of any length."""
        found = self._graph.search(unit(embedding[None])[0], min(count, self.card.images), threads=1)
        order = [int(number) for number in found.keys]
        known = self._look_up(order)
        distances = (float(distance) for distance in found.distances)
        return [Neighbour(known[i][0], distance, known[i][1]) for i, distance in zip(order, distances, strict=True)]

    def _look_up(self, numbers: Sequence[int]) -> dict[int, tuple[str, bytes]]:
        marks = ",".join("?" * len(numbers))
        with self._one_at_a_time:
            rows = self._items.execute(f"SELECT id, key, thumbnail FROM items WHERE id IN ({marks})", numbers)
            return {number: (key, thumbnail) for number, key, thumbnail in rows}

    def vectors(self, at_once: int = 4096) -> Iterator[np.ndarray]:
        """All vectors as they are kept, in order: for exact search."""
        for start in range(0, self.card.images, at_once):
            yield np.stack(self._graph.get(np.arange(start, min(start + at_once, self.card.images)))).astype(np.float32)

    def keys(self) -> list[str]:
        """The keys of all images, in the order of `vectors`."""
        with self._one_at_a_time:
            return [key for (key,) in self._items.execute("SELECT key FROM items ORDER BY id")]

    def close(self) -> None:
        """End the connection to the items."""
        self._items.close()
