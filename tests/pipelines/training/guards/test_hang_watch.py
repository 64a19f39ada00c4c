"""Ranks that hang: who is to blame as a pure function, and a worker of a real training that is stopped."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.cluster import ray_internals
from pipelines.progress import postings
from pipelines.progress.rank_beacon import RankPlace, places_of
from pipelines.progress.status import Status
from pipelines.run import Run, Scaling, standard
from pipelines.training import ray_trainer
from pipelines.training.fit import fit
from pipelines.training.guards.hang_watch import (
    BOUNDED,
    HangWatch,
    SilentRank,
    State,
    end_process,
    hang_report,
    hanging,
    patience,
    process_state,
)

HOME = "/somewhere/resnet/.venv/lib/python3.11/site-packages"  # a folder of our own name says nothing
RUNS = (f"{HOME}/ray/train/v2/thread_runner.py:9 run", "/x/pipelines/training/worker_loop.py:105 train")
PEERS = (*RUNS, "/x/resnet/training/step.py:80 step", f"{HOME}/torch/autograd/graph.py:869 _engine_run_backward")
DATA = (*RUNS, "/x/pipelines/stream/streamed.py:136 _late", f"{HOME}/ray/data/iterator.py:3 next")
SAVES = (*RUNS, "/x/pipelines/models/checkpoint_store.py:190 flush", "/usr/lib/python3.11/threading.py:1 wait")
OWN = (*RUNS, "/x/resnet/training/step.py:81 step", "/x/somewhere.py:1 loop")


def status(**fields: Any) -> Status:
    known: dict[str, Any] = {"run": "r", "phase": "training", "step": 40, "total": 100, "epoch": 1, "epochs": 3}
    known |= {"loss": 1.0, "error": 40.0, "images_per_second": 9, "seconds_left": 9.0, "machine": {}, "process": 10}
    return Status.model_validate(known | {"step_seconds": 0.1} | fields)


def view(rank: int, state: State = "idle", frames: tuple[str, ...] = ()) -> SilentRank:
    place = RankPlace(rank=rank, world_size=2, node="n", host=f"host-{rank}", pid=10 + rank, began=0.0)
    return SilentRank(place, state, frames)


@pytest.mark.parametrize(
    ("fields", "timeout", "limit"),
    [
        ({}, 60, 60),
        ({"step_seconds": 12.0}, 60, 240),
        ({"step_seconds": 12.0}, 600, 600),
        ({"step_seconds": None}, 60, 300),  # the first step has been done, another is to come
        ({"phase": "evaluating, 20%"}, 60, 300),
        ({"phase": "evaluated"}, 60, 300),  # a checkpoint is written, the next epoch begins
        ({"phase": "final test", "step_seconds": 12.0}, 60, 1200),
    ],
)
def test_the_silence_that_is_too_long(fields: dict[str, Any], timeout: float, limit: float) -> None:
    assert patience(status(**fields), timeout) == limit


@pytest.mark.parametrize(
    ("views", "silent", "ended"),
    [
        # a process that is stopped, whatever the others do
        ([view(0, frames=PEERS), view(1, "stopped")], 60, [1]),
        ([view(0, frames=DATA), view(1, "stopped")], 60, [1]),
        ([view(0, "stopped"), view(1, "stopped")], 60, [0, 1]),
        # Ray knows of those that are gone; one that cannot be looked at may be
        ([view(0, frames=PEERS), view(1, "gone")], 9999, []),
        ([view(0, "stopped"), view(1, "unknown")], 9999, []),
        # one that does not answer, though it does nothing; one that computes may be busy for longer
        ([view(0, frames=PEERS), view(1)], 60, [1]),
        ([view(0, frames=PEERS), view(1, "busy")], 299, []),
        ([view(0, frames=PEERS), view(1, "busy")], 300, [1]),
        # the one that the others wait for
        ([view(0, frames=PEERS), view(1, frames=OWN)], 60, [1]),
        ([view(0, frames=OWN), view(1, frames=PEERS)], 60, [0]),
        # all wait for each other
        ([view(0, frames=PEERS), view(1, frames=PEERS)], 60, [0, 1]),
        ([view(0, "busy", PEERS), view(1, "busy", PEERS)], 60, []),
        ([view(0, "busy", PEERS), view(1, "busy", PEERS)], 300, [0, 1]),
        # a bucket that is away has limits of its own
        ([view(0, frames=PEERS), view(1, frames=DATA)], 899, []),
        ([view(0, frames=SAVES), view(1, frames=PEERS)], 899, []),
        ([view(0, frames=PEERS), view(1, frames=DATA)], BOUNDED, [1]),
        ([], 9999, []),
    ],
)
def test_the_ranks_that_hang(views: list[SilentRank], silent: float, ended: list[int]) -> None:
    assert [found.place.rank for found in hanging(views, silent, 60)] == ended


def test_the_report_names_rank_node_process_step_and_stack() -> None:
    views = [view(0, frames=PEERS), view(1, frames=OWN)]
    first, *lines = hang_report(status(saved="step-00000022"), 61.2, views[1:], views).splitlines()
    assert first == (
        "r: nothing since step 40 (training), 61 s ago; rank 1 on host-1 (process 11) hangs in /x/somewhere.py:1 loop. "
        "It is ended, and the training goes on from step-00000022"
    )
    assert "    pipelines/training/worker_loop.py:105 train" in lines
    assert lines[-1] == "  rank 0 on host-0 (process 10) waits in torch/autograd/graph.py:869 _engine_run_backward"
    stopped = hang_report(status(), 60, [view(1, "stopped")], [view(0, frames=PEERS), view(1, "stopped")])
    assert "rank 1 on host-1 (process 11) is stopped (SIGSTOP, or a debugger). It is ended" in stopped
    assert "goes on from the newest checkpoint" in stopped
    assert "  rank 1 on host-1 (process 11): no stack" in stopped


def test_a_process_is_looked_at_and_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    began = psutil.Process(child.pid).create_time()
    assert process_state(child.pid, began - 100) == "gone", "another process has its number"
    assert process_state(os.getpid(), psutil.Process().create_time()) in ("idle", "busy")
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)  # it stops when it is next to run
    assert process_state(child.pid, began) == "stopped"
    assert end_process(child.pid, began - 100) == "gone"
    assert child.poll() is None
    assert end_process(child.pid, began) == "stopped"
    assert child.wait(10) == -signal.SIGKILL
    assert process_state(child.pid, began) == "gone"


def test_workers_that_are_not_those_of_the_last_status_are_left_alone(ray_local: Any) -> None:
    """New ones start, compile, wait for room: nothing has been heard of them yet."""
    said: list[str] = []
    postings.forget("starting")
    postings.post(status(run="starting", step_seconds=0.001))
    new = view(0).place.model_copy(update={"pid": 11, "world_size": 1})
    ray_internals.put(f"{postings.RANK}starting/0", new.model_dump_json().encode())
    with HangWatch("starting", 0.5, said.append) as watch:
        time.sleep(5)
        assert watch._views(status(run="starting")) == []
    assert places_of("starting") == [new]
    assert said == []
    postings.forget("starting")


@pytest.mark.slow
def test_a_stopped_worker_is_named_and_the_training_goes_on(
    ray_local: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = standard("cifar10-resnet8", data_is_given=False)
    fields: dict[str, Any] = {"storage": str(tmp_path), "promote": False, "checkpoints": {"every_steps": 10}}
    fields["scaling"] = Scaling(workers=2, threads=1, hang_timeout=6)
    fields["recipe"] = run.recipe.model_copy(update={"epochs": 16})
    run = Run(**(run.model_dump() | fields))
    stopped: list[RankPlace] = []

    def stop() -> None:
        for _ in range(600):
            seen, places = postings.last_status(run.name), places_of(run.name)
            if seen is not None and seen.saved is not None and len(places) == 2:
                with contextlib.suppress(ProcessLookupError):  # it is the one of another test's run
                    os.kill(places[1].pid, signal.SIGSTOP)
                    stopped.append(places[1])
                    return
            time.sleep(0.2)

    thread = threading.Thread(target=stop)
    thread.start()
    outcome = fit(run, show=False)
    thread.join()
    (place,) = stopped
    said = capsys.readouterr().err
    assert f"rank 1 on {place.host} (process {place.pid}) is stopped (SIGSTOP, or a debugger). It is ended" in said
    assert said.count(f"{run.name}: nothing since step") == 1
    assert outcome.steps == 16 * (1437 // 64)
    assert process_state(place.pid, place.began) == "gone"
    assert places_of(run.name)[1].pid != place.pid


@pytest.mark.slow
def test_a_rank_that_the_others_wait_for_is_named_with_its_stack(
    ray_local: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rank 0 waits in a collective; rank 1, whose process runs, never comes to it. The next try ends at once."""
    base, mark = standard("cifar10-resnet8", data_is_given=False), tmp_path / "tried"
    fields: dict[str, Any] = {"storage": str(tmp_path), "run_name": "blocked"}
    fields["scaling"] = Scaling(workers=2, gpu=False, hang_timeout=4)
    run = Run(**(base.model_dump() | fields))

    def never_comes() -> None:
        while True:
            time.sleep(0.1)

    def worker(config: dict[str, Any]) -> None:
        import ray.train
        from torch import distributed

        is_first = not mark.exists()
        distributed.barrier()
        if not is_first:
            return
        if ray.train.get_context().get_world_rank() == 1:
            never_comes()
        mark.touch()
        postings.post(status(run="blocked", step_seconds=0.01, process=os.getpid()))
        distributed.barrier()

    postings.forget("blocked")
    ray_trainer.work_to_the_end(run, None, worker)
    said = capsys.readouterr().err.splitlines()
    first = next(place for place, line in enumerate(said) if line.startswith("blocked: nothing since step 40"))
    assert "; rank 1 on " in said[first]
    assert said[first].endswith("It is ended, and the training goes on from the newest checkpoint")
    stack = [line.split()[-1] for line in said[first + 2 :] if line.startswith("    ")]
    assert stack[-1] == "never_comes"
    assert {"_seeing", "worker"} <= set(stack)
    assert said[-1].startswith("  rank 0 on ")
    assert "torch/distributed/" in said[-1]
    postings.forget("blocked")
