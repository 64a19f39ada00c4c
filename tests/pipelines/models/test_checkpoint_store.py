"""Checkpoints of a run: whole or not seen, last and best kept, and trouble with a disk never ends the training."""

import contextlib
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipelines.models.checkpoint_store import CheckpointStore, Writer
from resnet.image_class import ImageClass
from resnet.training.checkpoint import Checkpoint, EpochRow, Progress
from tests.s3_server import KEYS, options_of, running, s3_server


def checkpoint(step: int, error: float | None = None) -> Checkpoint:
    """A small one; with `error` at the end of an epoch, else inside one."""
    rows = ()
    if error is not None:
        figures = dict.fromkeys(EpochRow.model_fields, 0.0) | {"epoch": 0, "step": step, "top1_error": error}
        rows = (EpochRow(**figures),)  # pyright: ignore[reportArgumentType]
    tensors = {"weight": torch.full((2,), float(step))}
    classes = (ImageClass(id=0, wnid="n0", name="zero"),)
    progress = Progress(step=step, total_steps=100, examples=1, classes=classes, rows=rows)
    return Checkpoint(model=tensors, optimizer=tensors, pixels=tensors, run={"seed": 0}, progress=progress)


def test_the_newest_whole_one_is_read(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path / "run"), keep=1)
    assert store.latest() is None
    for step in (10, 20, 30):
        store.write(checkpoint(step))
    found = store.latest()
    assert found is not None
    assert (found[0], found[1].progress.step) == ("step-00000030", 30)
    assert torch.equal(found[1].model["weight"], torch.tensor([30.0, 30.0]))


def test_a_damaged_one_is_passed_over_and_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = CheckpointStore(str(tmp_path / "run"), keep=2)
    store.write(checkpoint(10, error=5.0))
    store.write(checkpoint(20, error=4.0))
    (tmp_path / "run" / "step-00000020" / "model.safetensors").write_bytes(b"torn")
    found = store.latest()
    assert found is not None
    assert found[0] == "step-00000010"
    assert "step-00000020 is passed over" in capsys.readouterr().err


def test_an_unfinished_upload_is_not_seen_and_is_replaced(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path / "run"), keep=1)
    store.write(checkpoint(10))
    (tmp_path / "run" / "step-00000020").mkdir()
    (tmp_path / "run" / "step-00000020" / "model.safetensors").write_bytes(b"half")
    assert store.names() == ["step-00000010"]
    store.write(checkpoint(20))
    assert store.names() == ["step-00000020"]


def test_what_a_kill_left_of_a_write_is_no_checkpoint_and_goes(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path / "run"), keep=1)
    store.write(checkpoint(10))
    part = tmp_path / "run" / "step-00000020.part-123"
    part.mkdir()
    (part / "progress.json").write_text("{}")
    assert store.names() == ["step-00000010"]
    store.write(checkpoint(30))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["step-00000030"]


def test_last_and_best_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path / "run"), keep=2)
    for step, error in ((10, 9.0), (20, 3.0), (30, 5.0), (35, None), (40, 7.0), (45, None)):
        store.write(checkpoint(step, error))
    assert store.names() == ["step-00000020", "step-00000030", "step-00000045"]


@contextlib.contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow beyond `room` bytes: for who writes, a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_told_and_the_same_checkpoint_is_written_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Writer, "RETRY", 0.05)
    store = CheckpointStore(str(tmp_path / "run"), keep=1)
    writer = Writer(store)
    writer.submit(checkpoint(10))
    writer.flush()
    with full_disk(64):
        writer.submit(checkpoint(20))
        writer.flush()
        assert writer.trouble is not None
        words = (
            rf"the checkpoint of step 20 cannot be written to {store.folder.shown}: .*; it needs [\d.]+ MB, .* are free"
        )
        assert re.fullmatch(words, writer.trouble), writer.trouble
        assert store.names() == ["step-00000010"], "the last good one stays"
    writer.close()
    assert writer.trouble is None
    assert writer.written == "step-00000020"
    assert store.names() == ["step-00000020"]


def test_a_newer_checkpoint_takes_the_place_of_one_that_cannot_be_written(tmp_path: Path) -> None:
    """A file where the folder should be stands for a disk that cannot be written."""
    (tmp_path / "run").write_text("in the way")
    writer = Writer(CheckpointStore(str(tmp_path / "run"), keep=1))
    writer.submit(checkpoint(10))
    writer.flush()
    (tmp_path / "run").unlink()
    writer.submit(checkpoint(20))
    writer.close()
    assert writer.trouble is None
    assert writer.checkpoints.names() == ["step-00000020"]


def test_the_end_of_a_training_does_not_wait_for_ever(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")
    writer = Writer(CheckpointStore(str(tmp_path / "run"), keep=1))
    writer.submit(checkpoint(10))
    writer.close(patience=0.2)
    assert writer.trouble is not None


def test_a_lost_bucket_is_told_and_the_same_checkpoint_is_written_once_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An S3 server on the loopback interface that is stopped and started again with what it held."""
    monkeypatch.setattr(Writer, "RETRY", 0.2)
    with s3_server("runs") as address:
        store = CheckpointStore(f"s3://runs/one?{options_of(address)}", keep=1)
        writer = Writer(store)
        writer.submit(checkpoint(10))
        writer.flush()
        assert writer.written == "step-00000010"
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    writer.submit(checkpoint(20))
    writer.flush()
    assert writer.trouble is not None
    assert "the checkpoint of step 20 cannot be written to s3://runs/one: " in writer.trouble, "without its options"
    with running(int(address.rpartition(":")[2])):
        writer.close()
        assert writer.trouble is None
        found = store.latest()
        assert found is not None
        assert found[1].progress.step == 20
