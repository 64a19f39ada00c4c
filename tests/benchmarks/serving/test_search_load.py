"""Figures of an index: the share of exact search's nearest that it finds, and recall by the folders of its keys."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("usearch", reason="usearch is not installed: an older .venv")

from benchmarks.serving.search_load import recall
from resnet.retrieval.pair_verification import recall_at
from resnet.retrieval.vector_index import IndexCard, VectorIndex, unit, write_index

CARD = IndexCard(model="resnet", version="1", network="imagenet-resnet18", weights_sha256="aa", width=32, images=0)


@pytest.fixture
def vectors() -> np.ndarray:
    """Six classes of 20 images that overlap a little."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1, (6, 32))
    return (np.repeat(centres, 20, axis=0) + rng.normal(0, 0.9, (120, 32))).astype(np.float32)


def test_recall_of_a_small_index_is_that_of_exact_search(vectors: np.ndarray, tmp_path: Path) -> None:
    keys = [f"class{i // 20}/{i}.jpg" for i in range(120)]
    write_index(tmp_path, CARD, [[(key, b"", vector) for key, vector in zip(keys, vectors, strict=True)]])
    index = VectorIndex(tmp_path)
    assert index.keys() == keys
    found = recall(index, queries=120)
    index.close()
    expected = recall_at(unit(vectors), np.repeat(np.arange(6), 20))
    assert found["recall_at_10"] == pytest.approx(1, abs=0.01), "an image itself is not among its nearest"
    assert 50 < expected[1] < 100
    for count in (1, 5):
        assert found["exact_of_all"][str(count)] == pytest.approx(expected[count], abs=1)  # float16 turns a tie
        assert found["by_index"][str(count)] == pytest.approx(expected[count], abs=1)


def test_keys_without_folders_have_no_classes(vectors: np.ndarray, tmp_path: Path) -> None:
    write_index(tmp_path, CARD, [[(f"{i}.jpg", b"", vector) for i, vector in enumerate(vectors)]])
    index = VectorIndex(tmp_path)
    found = recall(index, queries=30)
    index.close()
    assert (found["images"], found["queries"], "by_index" in found) == (120, 30, False)
