"""What rank 0 and its job tell each other, through Ray's key-value store."""

import json
import time
from typing import Any

import pytest

from pipelines.cluster import ray_internals
from pipelines.progress import postings
from pipelines.progress.postings import StatusPoster

pytestmark = pytest.mark.usefixtures("ray_local")


def test_the_last_status_of_each_run_is_there_until_it_is_forgotten(status: Any) -> None:
    assert postings.last_status("posted/a") is None
    postings.post(status("posted/a", 1))
    postings.post(last := status("posted/a", 2, rows=({"step": 1},)))
    postings.post(other := status("posted/b", 7))
    assert postings.last_status("posted/a") == last
    mine = [found for found in postings.posted_runs() if found.run.startswith("posted/")]
    assert sorted(mine, key=lambda found: found.run) == [last, other]
    postings.forget("posted/a")
    assert postings.last_status("posted/a") is None
    assert postings.last_status("posted/b") == other


def test_what_a_job_of_a_later_commit_says_more_is_passed_over(status: Any) -> None:
    words = json.loads(status("posted/later", 3).model_dump_json()) | {"a_field_to_come": 1}
    ray_internals.put(f"{postings.KEY}posted/later", json.dumps(words).encode())
    found = postings.last_status("posted/later")
    assert found is not None
    assert found.step == 3
    postings.forget("posted/later")


def test_a_wish_to_save_is_answered_once_and_a_new_try_knows_nothing_of_it() -> None:
    assert not postings.save_is_wanted("wish")
    postings.ask_to_save("wish")
    assert not postings.save_is_wanted("another")
    assert [postings.save_is_wanted("wish") for _ in range(3)] == [True, False, False]
    postings.ask_to_save("wish")
    postings.forget("wish")
    assert not postings.save_is_wanted("wish")


def test_the_first_reason_of_a_failure_stays() -> None:
    assert postings.failure("failed") is None
    postings.fail("failed", "loss is nan at step 3")
    postings.fail("failed", "a worker was killed, which the first one caused")
    assert postings.failure("failed") == "loss is nan at step 3"
    postings.forget("failed")
    assert postings.failure("failed") is None


def test_a_stop_is_known_until_the_run_is_started_again() -> None:
    assert not postings.was_stopped("halted")
    postings.note_stop("halted")
    assert postings.was_stopped("halted")
    assert not postings.was_stopped("another")
    postings.forget("halted")
    assert not postings.was_stopped("halted")


def test_the_last_word_of_a_sweep_stands() -> None:
    before = time.time()
    postings.post_sweep("posted", "posted: 1 of 3 trials finished")
    postings.post_sweep("posted", "posted: 2 of 3 trials finished")
    ((at, sentence),) = [found for found in postings.posted_sweeps() if found[1].startswith("posted:")]
    assert sentence == "posted: 2 of 3 trials finished"
    assert before <= at <= time.time()


def test_a_poster_sends_all_in_order_and_hears_the_wish_with_the_next_status(status: Any) -> None:
    poster = StatusPoster("poster")
    for step in range(20):
        poster.post(status("poster", step))
    assert not poster.asked()
    postings.ask_to_save("poster")
    poster.post(status("poster", 20))
    poster.close()
    found = postings.last_status("poster")
    assert found is not None
    assert found.step == 20
    assert [poster.asked() for _ in range(2)] == [True, False]
