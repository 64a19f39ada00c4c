"""A part's images become the rows of a Parquet file: the endpoint's numbers, in order, whatever the batch."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from pipelines.prediction.predict import list_parts
from pipelines.prediction.prediction_worker import PredictionJob, PredictionPart, Worker, part_name, predicted
from pipelines.shards.manifest import read_manifest
from serve.inference.dense.open_model import open_offline
from serve.inference.offline_classifier import Offline
from tests.serve.conftest import draw
from tests.serve.dense_checkpoints import write_dense


@pytest.fixture(scope="module")
def offline(checkpoint: Path) -> Offline:
    return Offline(str(checkpoint), precision="float32")


IMAGES = [(f"{i}.jpg", draw(i)) for i in range(5)] + [("cut.jpg", draw(9)[:400]), ("empty.png", b"")]


@pytest.mark.parametrize("batch", [1, 2, 7, 32])
def test_rows_are_the_endpoints_numbers_whatever_the_batch(offline: Offline, batch: int) -> None:
    asked = PredictionJob(images="x", out="y", top_k=3, embeddings=True, batch=batch)
    rows = predicted(IMAGES, offline, asked).to_pylist()
    assert [row["key"] for row in rows] == [key for key, _ in IMAGES]
    for row, (_, data) in zip(rows[:5], IMAGES, strict=False):
        (best,) = offline.predict([data], 3)
        assert row["error"] is None
        assert row["id"] == [p.image_class.id for p in best]
        assert row["wnid"] == [p.image_class.wnid for p in best]
        np.testing.assert_allclose(row["probability"], [p.probability for p in best], atol=1e-6)
        np.testing.assert_allclose(row["embedding"], offline.embed([data])[0], rtol=1e-4, atol=1e-5)
    for row in rows[5:]:
        assert {name for name, value in row.items() if value is not None} == {"key", "error"}
        assert row["error"].startswith("an image must")


def test_without_images_there_is_a_table_of_the_same_columns(offline: Offline) -> None:
    asked = PredictionJob(images="x", out="y")
    table = predicted([], offline, asked)
    assert (table.num_rows, table.schema) == (0, predicted(IMAGES[:1], offline, asked).schema)
    assert "embedding" not in table.column_names


def test_a_part_of_files_is_one_file_and_what_cannot_be_read_says_so(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    asked = PredictionJob(images=str(photos), out=str(tmp_path / "out"))
    worker = Worker(asked, partial(Offline, str(checkpoint), precision="float32"))
    part = PredictionPart(number=7, images=3, keys=("b/c/4.jpg", "gone.jpg", "a/0.jpg"))
    block: Any = {"part": np.array([part.model_dump_json()])}
    assert worker(block) == {"images": [3]}
    assert [path.name for path in (tmp_path / "out").iterdir()] == [part_name(7)] == ["part-00007.parquet"]
    rows = parquet.read_table(tmp_path / "out" / "part-00007.parquet").to_pylist()
    assert [row["key"] for row in rows] == list(part.keys)
    assert [row["error"] is None for row in rows] == [True, False, True]


def test_parts_of_shards_hold_every_image_of_the_split_once(checkpoint: Path, digits: str, tmp_path: Path) -> None:
    asked = PredictionJob(images=digits, out=str(tmp_path / "out"), split="val", part_images=128)
    worker = Worker(asked, partial(Offline, str(checkpoint), precision="float32"))
    found = [pair for part in list_parts(asked)[0] for pair in worker._read(part)]
    tables = [parquet.read_table(Path(digits, shard.file)) for shard in read_manifest(digits).of_split("val")]
    expected = [(row["key"], row["image"]) for table in tables for row in table.to_pylist()]
    assert found == expected
    assert len({key for key, _ in found}) == 360


@pytest.mark.parametrize(
    ("task", "columns"), [("detection", ["box", "id", "name", "score"]), ("segmentation", ["mask"])]
)
def test_rows_of_boxes_and_masks_are_the_endpoints_too(task: str, columns: list[str], tmp_path: Path) -> None:
    model: Any = open_offline(str(write_dense(tmp_path / "net", task)))
    table = predicted(IMAGES, model, PredictionJob(images="x", out="y", batch=2))
    assert table.column_names == ["key", *columns, "error"]
    for row, (_, data) in zip(table.to_pylist()[:5], IMAGES, strict=False):
        (answer,) = model.run_batch([model.crop(data)])
        wanted = model.row(answer)
        assert {name: row[name] for name in columns if name != "score"} == {
            k: v for k, v in wanted.items() if k != "score"
        }
        assert row["error"] is None
    assert [row["error"] is not None for row in table.to_pylist()[5:]] == [True, True]
