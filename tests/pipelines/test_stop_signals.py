"""Requests to end, by real processes that get real signals."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A job that saves for a second, and whose end takes as long.
JOB = """
import sys, time
from pipelines import command_line
from pipelines.stop_signals import before_ending_at_once, stoppable

def save(patience):
    time.sleep(1)
    print(f"saved within {patience:g}", file=sys.stderr, flush=True)
    return "saved; the same command goes on"

def job(argv):
    before_ending_at_once(lambda: print("cleared away", file=sys.stderr, flush=True))
    try:
        if "--saving" in argv:
            with stoppable(save):
                print("ready", flush=True, file=sys.stderr)
                time.sleep(30)
        print("ready", flush=True, file=sys.stderr)
        time.sleep(30)
    finally:
        time.sleep(1)

command_line.run_job(job, "nothing is kept")
"""


def ended(
    signals: Sequence[int], *words: str, apart: float = 0.7, ignored: int | None = None
) -> tuple[int, str, float]:
    """Exit status, standard error without its first line, and seconds from the first signal to the end."""
    command = [sys.executable, "-c", JOB, *words]
    if ignored:
        command = ["sh", "-c", f"trap '' {ignored}; exec \"$@\"", "sh", *command]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    began = time.monotonic()
    for number, each in enumerate(signals):
        time.sleep(apart if number else 0)
        process.send_signal(each)
    _, rest = process.communicate(timeout=20)
    return process.returncode, rest, time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_state_is_saved_and_one_sentence_says_how_to_go_on(number: int) -> None:
    status, told, _ = ended([number], "--saving")
    patience = 60 if number == signal.SIGINT else 15
    assert (status, told) == (130, f"saved within {patience}\n-c: saved; the same command goes on\n")


def test_a_job_without_a_state_says_its_own_sentence() -> None:
    assert ended([signal.SIGINT])[:2] == (130, "-c: stopped; nothing is kept\n")


def test_a_second_request_ends_the_process_at_once() -> None:
    status, told, seconds = ended([signal.SIGINT, signal.SIGINT], "--saving")
    assert (status, told) == (130, "ended at once\ncleared away\n")
    assert seconds < 1.5, "neither the save nor the end of the job is waited for"


def test_two_signals_in_a_breath_are_one_request() -> None:
    status, told, _ = ended([signal.SIGHUP, signal.SIGHUP], "--saving", apart=0.05)
    assert (status, told) == (130, "saved within 15\n-c: saved; the same command goes on\n")


def test_nohup_stays_what_it_is() -> None:
    status, told, _ = ended([signal.SIGHUP, signal.SIGTERM], "--saving", ignored=signal.SIGHUP)
    assert (status, told) == (130, "saved within 15\n-c: saved; the same command goes on\n")
