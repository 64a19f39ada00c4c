"""The state of trainings saved before their job ends: rank 0 is asked, and answers in its status."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pipelines.progress import postings
from pipelines.progress.status import Status
from pipelines.stop_signals import stoppable

AGAIN = "the same command goes on"
LOOK = 0.1  # seconds between two looks


class _Saved(NamedTuple):
    """A run when its job ends. answered: whether it has saved its state since it was asked."""

    status: Status | None
    answered: bool

    @property
    def sentence(self) -> str:
        """Where the run is, and how it goes on."""
        status = self.status
        if status is None:
            return f"stopped before the first step; {AGAIN}"
        if status.saved is None and not self.answered:
            return (
                f"stopped at step {status.step:,} of {status.total:,}, before a state was saved; {AGAIN} from the start"
            )
        step = int((status.saved or "").rpartition("-")[2] or status.step)
        if step == status.total:
            return f"stopped after its last step, which is saved; {AGAIN} with what is left"
        if self.answered:
            return f"stopped and saved at step {step:,} of {status.total:,}; {AGAIN} from there"
        return f"stopped at step {status.step:,}, the last saved state is that of step {step:,}; {AGAIN} from there"


@contextlib.contextmanager
def saving_first(runs: Callable[[], Iterable[str]]) -> Iterator[None]:
    """Within: a job that is asked to end lets its runs save their state first. runs: those that are in progress."""

    def save(patience: float) -> str:
        ended = _save_all(tuple(runs()), patience)
        if len(ended) == 1:
            ((name, only),) = ended.items()
            return f"{name} was {only.sentence}"
        done = sum(run.answered for run in ended.values())
        return f"stopped, {done} of {len(ended)} trainings in progress are saved where they were; {AGAIN}"

    with stoppable(save):
        yield


def _save_all(runs: tuple[str, ...], patience: float) -> dict[str, _Saved]:
    """Ask the runs that are in the middle of their training to save, and wait until each has."""
    found = {run: _Saved(postings.last_status(run), answered=False) for run in runs}
    asked = {run: s.answers for run, (s, _) in found.items() if s is not None and s.step < s.total}
    if asked:
        with contextlib.suppress(OSError):
            sentence = f"Stopping: the state is saved first, within {patience:g} s. Asked again, it ends at once."
            print(f"\n{sentence}", file=sys.stderr, flush=True)
    for run in asked:
        postings.ask_to_save(run)
    deadline = time.monotonic() + patience
    while asked and time.monotonic() < deadline:
        for run, before in tuple(asked.items()):
            status = postings.last_status(run)
            found[run] = _Saved(status, status is not None and status.answers > before)
            if found[run].answered or status is None or status.step == status.total:
                del asked[run]
        time.sleep(LOOK)
    return found
