"""Logs and MLflow's database reach another place whole, changed ones only, and come back."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.cloud import node_copies
from pipelines.storage import Folder


def test_logs_are_copied_once_and_again_when_they_grew(tmp_path: Path) -> None:
    logs, target = tmp_path / "session_1" / "logs", Folder(str(tmp_path / "bucket"))
    (logs / "old").mkdir(parents=True)
    (logs / "raylet.out").write_text("one\n")
    (logs / "old" / "worker.err").write_text("two\n")
    (logs / "empty.log").touch()
    (logs / "link.log").symlink_to(logs / "raylet.out")
    known: dict[str, tuple[int, int]] = {}
    assert node_copies.copy_changed(logs, target, known) == 2
    assert target.files() == ["session_1/old/worker.err", "session_1/raylet.out"]
    assert node_copies.copy_changed(logs, target, known) == 0
    (logs / "raylet.out").write_text("one\nmore\n")
    assert node_copies.copy_changed(logs, target, known) == 1
    assert target.read("session_1/raylet.out") == b"one\nmore\n"


def test_a_session_after_a_restart_keeps_the_earlier_ones_logs(tmp_path: Path) -> None:
    target, known = Folder(str(tmp_path / "bucket")), {}
    latest = tmp_path / "session_latest"
    for number in (1, 2):
        (tmp_path / f"session_{number}" / "logs").mkdir(parents=True)
        (tmp_path / f"session_{number}" / "logs" / "gcs_server.out").write_text(str(number))
        latest.unlink(missing_ok=True)
        latest.symlink_to(tmp_path / f"session_{number}")
        node_copies.copy_changed(latest / "logs", target, known)
    assert [target.read(name) for name in target.files()] == [b"1", b"2"]


def rows(place: Path) -> list[int]:
    connection = sqlite3.connect(place)
    try:
        return [value for (value,) in connection.execute("select x from t order by x")]
    finally:
        connection.close()


def test_a_database_is_copied_between_two_writes_and_comes_back_only_where_none_is(tmp_path: Path) -> None:
    database, target = tmp_path / "head" / "mlflow.db", Folder(str(tmp_path / "bucket"))
    assert not node_copies.copy_database(database, target)
    database.parent.mkdir()
    writer = sqlite3.connect(database)
    writer.execute("create table t (x int)")
    writer.execute("insert into t values (1)")
    writer.commit()
    writer.execute("insert into t values (2)")  # not committed: not in the copy
    assert node_copies.copy_database(database, target)
    assert [path.name for path in database.parent.iterdir() if path.is_dir()] == []
    assert not node_copies.restore_database(database, target)
    writer.close()
    again = tmp_path / "new head" / "mlflow.db"
    assert node_copies.restore_database(again, target)
    assert rows(again) == [1]


def test_nothing_comes_back_from_an_empty_bucket(tmp_path: Path) -> None:
    assert not node_copies.restore_database(tmp_path / "mlflow.db", Folder(str(tmp_path / "bucket")))
    assert not (tmp_path / "mlflow.db").exists()


def test_told_to_end_it_copies_once_more(tmp_path: Path) -> None:
    database, bucket = tmp_path / "mlflow.db", tmp_path / "bucket"
    connection = sqlite3.connect(database)
    connection.execute("create table t (x int)")
    connection.execute("insert into t values (1)")
    connection.commit()
    command = [sys.executable, "-m", "pipelines.cloud.node_copies", "database", str(database), str(bucket)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[3])
    deadline = time.monotonic() + 60
    while not (bucket / "mlflow.db").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    connection.execute("insert into t values (2)")
    connection.commit()
    connection.close()
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(30) == 0
    assert rows(bucket / "mlflow.db") == [1, 2]


def test_a_bucket_that_is_away_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def copy() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("Could not connect")
        os.kill(os.getpid(), signal.SIGTERM)

    before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        node_copies.repeat(copy, every=0.01)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
    assert len(calls) == 3  # away, there, and once more at the end
    assert "could not copy, and will try again: Could not connect" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["logs"], ["database", "x"], ["other", "x", "y"]])
def test_a_wrong_command_line_is_one_sentence(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert node_copies.main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
