"""One process in a run's folder: real processes on a local disk, and an object store."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.storage import Folder
from pipelines.training.guards import run_holder
from pipelines.training.guards.run_holder import Holder, RunHolder, require_free
from tests.s3_server import options_of, s3_server

ROOT = Path(__file__).resolve().parents[4]
# Holds the folder of argv[1] until its standard input closes; says who holds it where another does.
PROCESS = """
import sys
from pipelines.storage import Folder
from pipelines.training.guards.run_holder import RunHolder
try:
    with RunHolder(Folder(sys.argv[1]), print).held():
        print("held", flush=True)
        sys.stdin.read()
except ValueError as error:
    print(error, flush=True)
"""


def start(folder: Path | str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", PROCESS, str(folder)], stdin=pipe, stdout=pipe, text=True, cwd=ROOT)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def elsewhere(folder: Path, age: float) -> Path:
    """The file of a process on another machine, renewed so many seconds ago."""
    holder = Holder.here().model_copy(
        update={"host": "elsewhere", "pid": 7, "machine": "another", "job": "raysubmit_1"}
    )
    file = folder / "holder-000004.json"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(holder.model_dump_json())
    os.utime(file, (time.time() - age, time.time() - age))
    return file


def test_the_second_process_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    first = start(tmp_path / "run")
    assert said(first) == "held\n"
    told = said(start(tmp_path / "run"))
    assert f"{tmp_path}/run is held by process {first.pid} on " in told
    assert "since 20" in told
    other = start(tmp_path / "other")
    assert said(other) == "held\n", "two different trainings at once"
    for process in (first, other):
        process.communicate("")
    assert list(tmp_path.iterdir()) == [], "an empty folder goes with its holder"


def test_a_killed_process_is_known_at_once(tmp_path: Path) -> None:
    first = start(tmp_path / "run")
    assert said(first) == "held\n"
    first.kill()
    first.wait()
    began = time.monotonic()
    with RunHolder(Folder(str(tmp_path / "run")), print).held():
        assert time.monotonic() - began < 1
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["holder-000002.json"]
    assert not (tmp_path / "run").exists()


def test_of_many_at_once_one_holds(tmp_path: Path) -> None:
    elsewhere(tmp_path / "run", age=100)
    processes = [start(tmp_path / "run") for _ in range(6)]
    answers = [said(process) for process in processes]
    assert answers.count("held\n") == 1
    assert sum("is held by process" in answer for answer in answers) == 5
    for process in processes:
        process.communicate("")


def test_a_process_of_another_machine_is_dead_when_its_file_is_old(tmp_path: Path) -> None:
    elsewhere(tmp_path, age=31)
    began = time.monotonic()
    assert [file.name for file in require_free(Folder(str(tmp_path)))] == ["holder-000004.json"]
    assert time.monotonic() - began < 1


def test_a_process_of_another_machine_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent one is dead after DEAD seconds; a renewed file is of one that lives."""
    monkeypatch.setattr(run_holder, "LOOK", 0.05)
    monkeypatch.setattr(run_holder, "DEAD", 1.5)
    file, told = elsewhere(tmp_path, age=1), list[str]()
    require_free(Folder(str(tmp_path)), told.append)
    (sentence,) = told
    assert f"{tmp_path} was held by process 7 on elsewhere, Ray job raysubmit_1, since 20" in sentence
    assert "1 s ago; waiting" in sentence
    os.utime(file)
    renewed = threading.Timer(0.3, os.utime, [file])
    renewed.start()
    with pytest.raises(ValueError, match=r"is held by process 7 on elsewhere, Ray job raysubmit_1, .*, which lives; "):
        require_free(Folder(str(tmp_path)))
    renewed.join()


def test_a_process_that_was_taken_for_dead_hears_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_holder, "BEAT", 0.05)
    holder = RunHolder(Folder(str(tmp_path)), print)
    with holder.held():
        mine = tmp_path / "holder-000001.json"
        before = mine.stat().st_mtime_ns
        time.sleep(0.3)
        assert mine.stat().st_mtime_ns > before, "renewed"
        assert holder.lost is None
        elsewhere(tmp_path, age=0)
        time.sleep(0.3)
        assert holder.lost is not None
        assert f"{tmp_path} was taken over by process 7 on elsewhere" in holder.lost


def test_a_number_of_a_process_that_another_has_now_is_no_life(tmp_path: Path) -> None:
    mine = Holder.here()
    assert mine.lives() is True
    assert mine.model_copy(update={"began": "1"}).lives() is False


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"storage must be a folder or bucket that can be written, got .*file"):
        RunHolder(Folder(str(tmp_path / "file" / "run")), print).take()


@pytest.fixture
def bucket() -> Iterator[str]:
    """A bucket of an S3 server on the loopback interface."""
    with s3_server("runs") as address:
        yield f"s3://runs/one?{options_of(address)}"


def test_in_a_bucket_one_of_several_at_once_holds(bucket: str) -> None:
    processes = [start(bucket) for _ in range(3)]
    answers = [said(process) for process in processes]
    assert answers.count("held\n") == 1
    held = next(answer for answer in answers if answer != "held\n")
    assert held.startswith("s3://runs/one is held by process ")
    processes[answers.index("held\n")].kill()
    with RunHolder(Folder(bucket), print).held():
        (name,) = [entry.name for entry in Folder(bucket).entries()]
        assert json.loads(Folder(bucket).read(name))["pid"] == os.getpid()
    assert Folder(bucket).entries() == []
    for process in processes:
        process.communicate("")
