"""Images are cut into parts once; a folder belongs to one model and one kind of prediction; what is there is kept."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from pipelines.prediction.predict import PLAN, _claim, _failed, list_parts, part_size, predict
from pipelines.prediction.prediction_worker import PredictionJob, Worker, part_name
from pipelines.storage import Folder
from serve.inference.offline_classifier import Offline

MODEL = ("resnet", "1")


def asked(images: Path | str, out: Path | str, **fields: Any) -> PredictionJob:
    return PredictionJob(images=str(images), out=str(out), precision="float32", **fields)


def test_files_are_cut_into_parts_in_the_order_of_their_names(photos: Path, tmp_path: Path) -> None:
    for hidden in (".hidden", "a/.cache/x.jpg", "Thumbs.db"):
        (photos / hidden).parent.mkdir(exist_ok=True)
        (photos / hidden).touch()
    parts, digest = list_parts(asked(photos, tmp_path / "out", part_images=4))
    names = ["a/0.jpg", "a/1.jpg", "a/2.jpg", "b/c/3.jpg", "b/c/4.jpg", "notes.txt"]
    assert [(part.number, part.images, list(part.keys)) for part in parts] == [(0, 4, names[:4]), (1, 2, names[4:])]
    assert list_parts(asked(photos, tmp_path / "other", part_images=4))[1] == digest
    (photos / "notes.txt").unlink()
    assert list_parts(asked(photos, tmp_path / "out", part_images=4))[1] != digest


def test_shards_are_cut_by_row_groups_and_every_image_is_in_one_part(digits: str, tmp_path: Path) -> None:
    parts, _ = list_parts(asked(digits, tmp_path / "out", part_images=300))
    assert sum(part.images for part in parts) == 1797
    groups = [group for part in parts for group in part.groups]
    assert len(set(groups)) == len(groups)
    assert max(part.images for part in parts) <= 300
    val, _ = list_parts(asked(digits, tmp_path / "out", split="val"))
    assert sum(part.images for part in val) == 360
    assert len(list_parts(asked(digits, tmp_path / "out", part_images=1))[0]) == len(groups), "a row group at least"


def test_parts_are_a_64th_of_the_images_or_as_those_that_are_there(photos: Path, tmp_path: Path) -> None:
    job = asked(photos, tmp_path / "out")
    assert [part_size(job, images) for images in (6, 7_000, 1_000_000)] == [64, 109, 1024]
    before = job.model_copy(update={"part_images": 4})
    parts, digest = list_parts(before)
    _claim(Folder(job.out), before, MODEL, digest)
    assert list_parts(job) == (parts, digest)
    assert part_size(before.model_copy(update={"part_images": 5}), 6) == 5


def test_what_cannot_be_predicted_is_one_sentence(photos: Path, tmp_path: Path) -> None:
    for job, sentence in (
        (asked(tmp_path / "nothing", tmp_path / "out"), "images must hold at least one image, got none in"),
        (asked(photos / "notes.txt", tmp_path / "out"), "images must be a folder, or its URI, got a file"),
        (asked(photos, tmp_path / "out", split="val"), "split is for shards, and .*photos holds none"),
        (asked(photos, photos / "out"), "out must not be inside images"),
    ):
        with pytest.raises(ValueError, match=sentence):
            list_parts(job)


def not_opened() -> Offline:
    raise AssertionError("nothing is left to do")


def test_a_finished_folder_is_counted_without_ray_and_never_mixed(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = asked(photos, tmp_path / "out", part_images=4)
    parts, digest = list_parts(job)
    _claim(Folder(job.out), job, MODEL, digest)
    worker = Worker(job, partial(Offline, str(checkpoint), precision="float32"))
    worker({"part": np.array([part.model_dump_json() for part in parts])})
    outcome = predict(job, MODEL, not_opened)
    assert (outcome.images, outcome.failed, outcome.parts, outcome.parts_written) == (6, 1, 2, 0)
    assert "no prediction for notes.txt: an image must be JPEG" in capsys.readouterr().err
    for changed, model, sentence in (
        (job, ("resnet", "2"), r"out holds predictions with model \['resnet', '1'\], got \['resnet', '2'\]"),
        (job.model_copy(update={"top_k": 3}), MODEL, "out holds predictions with top_k 5, got 3"),
        (job.model_copy(update={"part_images": 3}), MODEL, "out holds predictions with listing"),
    ):
        with pytest.raises(ValueError, match=sentence):
            predict(changed, model, not_opened)
    (tmp_path / "out" / PLAN).unlink()
    with pytest.raises(ValueError, match=r"out must be empty or hold predictions of the same kind, got .*out"):
        predict(job, MODEL, not_opened)


def test_a_part_that_lacks_an_image_is_no_finished_one(photos: Path, tmp_path: Path) -> None:
    (part,), _ = list_parts(asked(photos, tmp_path / "out"))
    (tmp_path / "out").mkdir()
    rows = pa.table({"key": ["a/0.jpg"], "error": pa.array([None], pa.string())})
    parquet.write_table(rows, tmp_path / "out" / part_name(0))
    with pytest.raises(RuntimeError, match=r"part-00000\.parquet must have 6 rows, got 1"):
        _failed(Folder(str(tmp_path / "out")), part, show=False)
