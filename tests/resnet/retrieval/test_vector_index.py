"""The index finds what exact search finds, and says in one sentence what is wrong with a folder."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from resnet.retrieval.vector_index import (
    CARD,
    ITEMS,
    VECTORS,
    IndexCard,
    Row,
    VectorIndex,
    unit,
    weights_sha256,
    write_index,
)

pytest.importorskip("usearch", reason="usearch is not installed: an older .venv")
MODEL = IndexCard(model="resnet", version="3", network="imagenet-resnet18", weights_sha256="aa", width=64, images=0)


def features(count: int, seed: int = 0) -> np.ndarray:
    """Classes that overlap, none below 0, as pooled features are."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 1, (50, 64))
    return np.maximum(centres[rng.integers(0, 50, count)] + rng.normal(0, 1, (count, 64)), 0).astype(np.float32)


def batches(vectors: np.ndarray) -> Iterator[list[Row]]:
    for start in range(0, len(vectors), 700):
        yield [(f"{i}.jpg", b"thumb%d" % i, vectors[i]) for i in range(start, min(start + 700, len(vectors)))]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return features(3000)


@pytest.fixture(scope="module")
def folder(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("index")
    assert write_index(out, MODEL, batches(vectors)).images == 3000
    return out


def test_recall_against_exact_search(folder: Path, vectors: np.ndarray) -> None:
    index, queries = VectorIndex(folder), features(100, seed=1)
    similar = unit(queries) @ unit(vectors).T
    exact = np.argsort(-similar, axis=1)[:, :10]
    hits = 0
    for query, best, row in zip(queries, exact, similar, strict=True):
        found = index.nearest(query * 7, 10)  # of any length
        assert [each.distance for each in found] == sorted(each.distance for each in found)
        numbers = [int(each.key.removesuffix(".jpg")) for each in found]
        assert [each.thumbnail for each in found] == [b"thumb%d" % number for number in numbers]
        np.testing.assert_allclose([each.distance for each in found], 1 - row[numbers], atol=2e-3)
        hits += len(set(numbers) & set(best.tolist()))
    assert hits / 1000 > 0.98
    assert index.nearest(vectors[17], 1)[0].key == "17.jpg"
    index.close()


def test_all_vectors_can_be_read_and_a_count_may_be_beyond_all(folder: Path, vectors: np.ndarray) -> None:
    index = VectorIndex(folder)
    np.testing.assert_allclose(np.concatenate(list(index.vectors())), unit(vectors), atol=1e-3)
    assert 2990 <= len(index.nearest(vectors[0], 5000)) <= 3000  # an approximate graph may lose a few
    index.close()


def test_an_index_of_another_model_is_one_sentence(folder: Path) -> None:
    index = VectorIndex(folder)
    index.require_model("aa", "resnet version 3")
    with pytest.raises(ValueError, match=r"must be of the model that answers, resnet version 4, got one of resnet"):
        index.require_model("bb", "resnet version 4")
    index.close()


def test_the_digest_is_of_names_and_values() -> None:
    weights = {"a": torch.ones(2, 3), "b": torch.zeros(1, dtype=torch.int64)}
    known = weights_sha256(weights)
    assert weights_sha256({"b": weights["b"], "a": weights["a"].clone()}) == known
    assert weights_sha256({**weights, "a": weights["a"] + 1e-3}) != known
    assert weights_sha256({"a": weights["a"], "c": weights["b"]}) != known


def test_a_damaged_folder_is_one_sentence(vectors: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"index must be a folder of jobs/index_images\.py with index\.json, got"):
        VectorIndex(tmp_path)
    write_index(tmp_path, MODEL, batches(vectors[:50]))
    (tmp_path / CARD).write_text((tmp_path / CARD).read_text().replace('"images": 50', '"images": 51'))
    with pytest.raises(ValueError, match=r"its vectors are not those of index\.json"):
        VectorIndex(tmp_path)
    (tmp_path / VECTORS).write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is damaged"):
        VectorIndex(tmp_path)
    (tmp_path / ITEMS).unlink()
    with pytest.raises(ValueError, match=r"it has no items\.sqlite"):
        VectorIndex(tmp_path)
    (tmp_path / CARD).write_text("{}")
    with pytest.raises(ValueError, match="is damaged: model"):
        VectorIndex(tmp_path)
