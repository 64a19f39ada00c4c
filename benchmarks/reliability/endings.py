"""Real jobs that are ended early: what a person reads, what is saved, what is left behind, and that they go on.

    python benchmarks/reliability/endings.py [--cases ctrl-c twice evaluation sweep ray-dies full-disk mistake eta]

Each case runs a job of jobs/ with a Ray of its own, in a session of its own, as a terminal does; Ctrl-C goes to all of
its processes. $RESNET_HOME is a temporary folder. full-disk mounts a small tmpfs, which takes root.

The last line of stdout is JSON: by case whether it went right, exit status, seconds to the end, lines on standard error
and the last of them. Exit status 1 if one went wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--scaling.workers", "1", "--no-promote")
PROGRESS = re.compile(r"(\d+)%  epoch .*  (?:(\d+):(\d\d):(\d\d) left|time left not known yet) \((.*)\)")


class Job:
    """A job in a session of its own. lines: (seconds since the start, text) of its standard error."""

    def __init__(self, home: Path, name: str, *words: str, **environment: str) -> None:
        self.began = time.monotonic()
        settings = {"RESNET_HOME": str(home), "RAY_worker_niceness": "0", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **settings, **environment},
            preexec_fn=_in_front,
        )
        self.lines: list[tuple[float, str]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append((time.monotonic() - self.began, line.rstrip()))

    @property
    def text(self) -> str:
        """Its standard error."""
        return "\n".join(line for _, line in self.lines)

    def wait_for(self, pattern: str, seconds: float = 400) -> None:
        """Until its standard error has a line like that. RuntimeError: it ended before, or time is up."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no line {pattern!r}:\n{self.text[-2000:]}")
            time.sleep(0.1)

    def press_ctrl_c(self) -> None:
        """As a terminal does it: to the job and all that it started in the session's foreground."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self, seconds: float = 400) -> tuple[int, float]:
        """Exit status, and seconds from now to its end."""
        began = time.monotonic()
        assert self.process.stdout is not None
        status = self.process.wait(seconds)
        self._thread.join(10)
        return status, time.monotonic() - began

    def leftovers(self) -> list[str]:
        """Processes of its session that are still there."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if os.getsid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()[:2])[:80])
        return found

    def kill(self) -> None:
        """End it and what it left."""
        for process in psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else ():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.kill()
        self.process.wait()


def _in_front() -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell has it ignored in the background


def expect(what: bool, sentence: str) -> None:
    """RuntimeError: what should be is not."""
    if not what:
        raise RuntimeError(sentence)


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints below a folder."""
    return sorted(int(path.parent.name[5:]) for path in folder.glob("**/step-????????/progress.json"))


def statuses(home: Path) -> list[str]:
    """Statuses of MLflow's runs."""
    with contextlib.closing(sqlite3.connect(home / "mlflow.db")) as store:
        return [status for (status,) in store.execute("SELECT status FROM runs")]


def told(job: Job, ended: tuple[int, float], **more: Any) -> dict[str, Any]:
    """The figures kept of a case."""
    lines = [line for _, line in job.lines if line]
    return {"status": ended[0], "seconds": round(ended[1], 1), "lines": len(lines), "last": lines[-1][:300], **more}


def ctrl_c(home: Path) -> dict[str, Any]:
    """A running training: saved, 130, KILLED in MLflow, nothing left; the same command goes on from there."""
    words = ("cifar10-resnet8", "--recipe.epochs", "200", *SMALL)
    job = Job(home, "train_imagenet", *words)
    job.wait_for(r"[1-9]\d*%  epoch")
    job.press_ctrl_c()
    ended = job.end()
    found = re.search(r"was stopped and saved at step ([\d,]+) of 4,400; the same command goes on from there", job.text)
    expect(ended[0] == 130 and found is not None, job.text[-1500:])
    assert found is not None
    step = int(found[1].replace(",", ""))
    expect(step in steps(home), f"no checkpoint of step {step}")
    expect(statuses(home) == ["KILLED"], f"MLflow has {statuses(home)}")
    expect(job.leftovers() == [], f"left: {job.leftovers()}")
    again = Job(home, "train_imagenet", *words)
    again.wait_for(r"%  epoch")
    again.process.send_signal(signal.SIGTERM)
    expect(again.end()[0] == 130, again.text[-1500:])
    expect(max(steps(home)) > step, "the second start did not go on")
    return told(job, ended, step=step, went_on_to=max(steps(home)))


def twice(home: Path) -> dict[str, Any]:
    """Ctrl-C, and again a second later: at once, nothing left, and the same command runs."""
    words = ("cifar10-resnet8", "--recipe.epochs", "200", *SMALL)
    job = Job(home, "train_imagenet", *words)
    job.wait_for(r"%  epoch")
    job.press_ctrl_c()
    time.sleep(0.7)
    job.press_ctrl_c()
    ended = job.end()
    expect(ended[0] == 130 and ended[1] < 5, f"{ended}\n{job.text[-1500:]}")
    time.sleep(2)
    expect(job.leftovers() == [], f"left: {job.leftovers()}")
    again = Job(home, "train_imagenet", *words)
    again.wait_for(r"%  epoch")
    again.press_ctrl_c()
    expect(again.end()[0] == 130, again.text[-1500:])
    return told(job, ended)


def evaluation(home: Path) -> dict[str, Any]:
    """A test of a network: it keeps nothing, and says so."""
    trained = Job(home, "train_imagenet", "cifar10-resnet8", "--recipe.steps", "30", *SMALL)
    expect(trained.end()[0] == 0, trained.text[-1500:])
    (checkpoint,) = home.glob("runs/*/step-00000030")
    job = Job(home, "evaluate_model", str(checkpoint), "--data.split", "train", "--protocol", "single")
    time.sleep(6)
    job.press_ctrl_c()
    ended = job.end()
    last = "evaluate_model.py: stopped; nothing is kept, the same command begins anew"
    expect(ended[0] == 130 and job.lines[-1][1] == last, job.text[-1500:])
    expect(job.leftovers() == [], f"left: {job.leftovers()}")
    return told(job, ended)


SWEEP = ("figure1", "--networks", "cifar10-resnet8", "cifar10-plain8", "--seeds", "0", "--recipe.epochs", "150")


def sweep(home: Path) -> dict[str, Any]:
    """Two trials at once: both saved, all runs KILLED in MLflow, and the same command goes on."""
    job = Job(home, "sweep_paper", *SWEEP)
    job.wait_for(r"2 running")
    time.sleep(5)
    job.press_ctrl_c()
    ended = job.end()
    expect(
        ended[0] == 130 and "stopped, 2 of 2 trainings in progress are saved where they were" in job.text,
        job.text[-1500:],
    )
    expect(set(statuses(home)) == {"KILLED"}, f"MLflow has {statuses(home)}")
    expect(job.leftovers() == [], f"left: {job.leftovers()}")
    return told(job, ended, steps=steps(home))


def ray_dies(home: Path) -> dict[str, Any]:
    """The private Ray of a sweep is killed: a sentence, a status, nothing lost."""
    found: dict[str, Any] = {}
    for victim in ("raylet", "gcs_server"):
        place = home / victim
        job = Job(place, "sweep_paper", *SWEEP)
        job.wait_for(r"2 running")
        while len(steps(place)) < 2:
            expect(job.process.poll() is None, job.text[-1500:])
            time.sleep(0.2)
        (process,) = [p for p in psutil.Process(job.process.pid).children() if victim in p.cmdline()[0]]
        process.kill()
        ended = job.end()
        time.sleep(2)
        expect(ended[0] == 1 and "the same command goes on" in job.lines[-1][1], f"{ended}\n{job.text[-2500:]}")
        expect(job.leftovers() == [], f"left: {job.leftovers()}")
        before = max(steps(place))
        again = Job(place, "sweep_paper", *SWEEP)
        again.wait_for(r"running")
        time.sleep(10)
        again.press_ctrl_c()
        expect(again.end()[0] == 130, again.text[-1500:])
        expect(max(steps(place)) > before, "the second start did not go on")
        found[victim] = told(job, ended)
    return found


@contextlib.contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A file system of its own that holds so much."""
    folder = Path(tempfile.mkdtemp(prefix="endings-disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def full_disk(home: Path) -> dict[str, Any]:
    """A disk that is full from the first epoch to the end: told with path and amount, waited for, one sentence; the
    same command, with room again, trains what was not saved, once."""
    words = ("cifar10-resnet8", "--recipe.epochs", "6", "--checkpoints.wait-minutes", "0.3", *SMALL)
    with small_disk("4m") as disk:
        job = Job(home, "train_imagenet", *words, "--storage", str(disk))
        while not steps(disk):
            expect(job.process.poll() is None, job.text[-1500:])
            time.sleep(0.05)
        filler = disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(disk).free - 100_000))
        ended = job.end()
        first = next((at for at, line in job.lines if "cannot be written to" in line), None)
        expect(first is not None and ended[0] == 1, f"{ended}\n{job.text[-2500:]}")
        expect(bool(re.search(r"it needs [\d.]+ MB, 0\.\d MB are free", job.text)), job.text[-1500:])
        last = job.lines[-1][1]
        expect("waited 0.3 minutes (checkpoints.wait_minutes), the last good checkpoint is step-" in last, last)
        expect("Traceback" not in job.text, job.text[-1500:])
        starts = len([line for _, line in job.lines if re.search(r" 0%  epoch 0\.\d", line)])
        filler.unlink()
        again = Job(home, "train_imagenet", *words, "--storage", str(disk))
        expect(again.end()[0] == 0, again.text[-1500:])
    return told(job, ended, told_after=round(first or 0, 1), lines_at_the_start=starts)


def mistake(home: Path) -> dict[str, Any]:
    """A mistake that only a worker sees, a loss that is not finite: no second try, no traceback, few lines."""
    words = ("cifar10-resnet8", "--recipe.optim.lr", "1e30", "--recipe.schedule.warmup", "0", *SMALL)
    job = Job(home, "train_imagenet", *words)
    ended = job.end()
    expect(ended[0] == 1 and "the training loss is not finite" in job.lines[-1][1], job.text[-2500:])
    expect("Traceback" not in job.text, job.text[-2500:])
    return told(job, ended)


def eta(home: Path) -> dict[str, Any]:
    """README's training on the digits: the time left that each line says, against the truth, from 10 % on."""
    job = Job(home, "train_imagenet")
    status, _ = job.end(1500)
    end = time.monotonic() - job.began
    expect(status == 0, job.text[-1500:])
    ratios, silent, last = [], 0.0, 0.0
    for at, line in job.lines:
        silent, last = max(silent, at - last if last else 0.0), at
        found = PROGRESS.search(line)
        if found is None or int(found[1]) < 10 or found[2] is None:
            continue
        said = 3600 * int(found[2]) + 60 * int(found[3]) + int(found[4])
        ratios.append((round(said / max(0.1, end - at), 2), int(found[1]), said, round(end - at, 1)))
    fair = [ratio for ratio, _, said, truth in ratios if max(said, truth) > 10]
    worst = sorted(fair, key=lambda r: max(r, 1 / max(r, 1e-6)))[-1]
    return {
        "status": status,
        "seconds": round(end, 1),
        "lines": len(job.lines),
        "last": job.lines[-1][1],
        "worst_ratio": worst,
        "within": sum(1 / 1.5 <= r <= 1.5 for r in fair) / len(fair),
        "longest_silence": round(max(silent, end - last), 1),
        "said": ratios,
    }


CASES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "ctrl-c": ctrl_c,
    "twice": twice,
    "evaluation": evaluation,
    "sweep": sweep,
    "ray-dies": ray_dies,
    "full-disk": full_disk,
    "mistake": mistake,
    "eta": eta,
}


def main() -> None:
    """Run the cases, one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    outcomes: dict[str, Any] = {}
    for name in parser.parse_args().cases:
        home = Path(tempfile.mkdtemp(prefix=f"endings-{name}-"))
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            outcomes[name] = {"right": True} | CASES[name](home)
        except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
            outcomes[name] = {"right": False, "why": str(error)}
        shutil.rmtree(home, ignore_errors=True)
        print(f"{name}: {json.dumps(outcomes[name])}", file=sys.stderr, flush=True)
    print(json.dumps(outcomes))
    sys.exit(not all(outcome["right"] for outcome in outcomes.values()))


if __name__ == "__main__":
    main()
