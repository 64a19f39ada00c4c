"""Where ranks run, and their stacks, asked for from another thread through a real Ray."""

import threading
import time
from typing import Any

import pytest

from pipelines.cluster import ray_internals
from pipelines.progress import postings, rank_beacon
from pipelines.progress.rank_beacon import Beacon, RankPlace, ask_for_stacks, frames_of, places_of, stacks_of


def test_a_stack_names_the_function_that_waits() -> None:
    waits, end = threading.Event(), threading.Event()

    def hangs_here() -> None:
        waits.set()
        end.wait(10)

    thread = threading.Thread(target=hangs_here)
    thread.start()
    waits.wait(10)
    frames = frames_of(thread.ident or 0)
    end.set()
    thread.join()
    assert frames[-1].endswith(" wait"), "the innermost is the last"
    assert any(frame.startswith(__file__) and frame.endswith(" hangs_here") for frame in frames)
    assert frames_of(thread.ident or 0) == ()


def test_a_rank_says_where_it_runs_and_answers_each_question_once(
    ray_local: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_beacon, "LOOK", 0.05)
    postings.forget("beacon")
    with Beacon("beacon", 0, 1):
        (place,) = places_of("beacon")
        assert place.node == ray_local.address_info["node_id"]
        for question in ("first", "second"):
            ask_for_stacks("beacon", question)
            deadline, answer = time.monotonic() + 20, stacks_of("beacon", question, [place])
            while not answer and time.monotonic() < deadline:
                time.sleep(0.05)
                answer = stacks_of("beacon", question, [place])
            assert any("test_a_rank_says_where" in frame for frame in answer[0])
        assert stacks_of("beacon", "first", [place]) == {}
    postings.forget("beacon")
    assert places_of("beacon") == []


def test_ranks_of_a_larger_group_before_are_left_out(ray_local: Any) -> None:
    postings.forget("shrunk")
    for rank, size in ((0, 2), (1, 2), (2, 3)):
        place = RankPlace(rank=rank, world_size=size, node="n", host="h", pid=rank, began=0.0)
        ray_internals.put(f"{postings.RANK}shrunk/{rank}", place.model_dump_json().encode())
    assert [place.rank for place in places_of("shrunk")] == [0, 1]
    postings.forget("shrunk")
