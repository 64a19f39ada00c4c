"""Trainings on hosts: started on the head, watched from there, compared by what they leave."""

from __future__ import annotations

import json
import signal
from typing import Any

from tests.cluster.conftest import Cluster
from tests.cluster.lab import BUCKET, PROGRAMS, Job, wait

NETWORK, RUN = "cifar10-resnet8", "cifar10-resnet8-A.s0"
DIGITS = f"s3://{BUCKET}/digits"
# Two workers share each batch wherever they run. Decoded once:
RESIDENT = (
    "--recipe.epochs 12 --scaling.workers 2 --scaling.threads 1 --scaling.cpus-per-worker 0.6 "
    "--checkpoints.every-steps 16 --no-promote"
)
# And streamed from the bucket in each epoch:
STREAMED = (
    "--recipe.images.policy scale-jitter --recipe.images.shorter-side 256 480 --recipe.images.pad None "
    "--recipe.images.eval-shorter-side 256 --data.window 4 --recipe.epochs 4 --scaling.workers 2 --scaling.threads 1 "
    "--scaling.cpus-per-worker 0.6 --checkpoints.every-steps 16 --no-promote"
)


class Training:
    """A training whose checkpoints lie in a folder of the bucket of its own. words: more of the command line."""

    def __init__(self, cluster: Cluster, folder: str, words: str = RESIDENT) -> None:
        self.cluster, self.storage, self.words = cluster, f"s3://{BUCKET}/{folder}", words
        self.job = self.start()
        self.watch = cluster["head"].python(f"{PROGRAMS}/follow_run.py {RUN}")

    def start(self) -> Job:
        """The command, as a user gives it again."""
        line = f"jobs/train_imagenet.py {NETWORK} --data.path {DIGITS} --storage {self.storage} {self.words}"
        return self.cluster["head"].python(line)

    def looks(self) -> list[dict[str, Any]]:
        """All that was seen of it, the newest last."""
        lines = self.watch.stdout.splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    @property
    def step(self) -> int:
        """The last step that was seen."""
        return max((look["step"] for look in self.looks()), default=0)

    def reaches(self, step: int, seconds: float = 300) -> None:
        """Wait for a step. AssertionError: it does not come, or the command ended."""
        wait(lambda: self.step >= step or self.job.status is not None, seconds, lambda: self.told)
        assert self.step >= step, self.told

    @property
    def told(self) -> str:
        """What the command and the watcher say."""
        return f"{self.job.text}\n--- seen\n{self.watch.text[-1500:]}"

    def lost(self, began: float) -> dict[str, Any]:
        """Once a new step was made: seconds since `began` and since Ray counted a node less, and steps made twice."""
        before = max(look["step"] for look in self.looks() if look["at"] <= began)

        def later() -> dict[str, Any] | None:
            looks = [look for look in self.looks() if look["at"] > began + 1]
            return next((look for look in looks if look["step"] > before), None)

        wait(lambda: later() or self.job.status is not None, 400, lambda: self.told)
        found = later()
        assert found is not None, self.told
        nodes = [(look["at"], look.get("nodes", 0)) for look in self.looks()]
        count = max(n for at, n in nodes if at <= began)
        noticed = next((at for at, n in nodes if at > began and n < count), None)
        again = [look["step"] for look in self.looks() if began < look["at"] < found["at"] and look["step"] < before]
        return {
            "seconds": round(found["at"] - began, 1),
            "after_notice": None if noticed is None else round(found["at"] - noticed, 1),
            "steps_again": before - min(again, default=before),
        }

    def ends(self, seconds: float = 500) -> dict[str, Any]:
        """What it leaves, once it has ended well: weights and rows."""
        self.job.ended(seconds)
        assert self.job.status == 0, self.told
        self.watch.process.kill()
        self.cluster["head"].signal(signal.SIGKILL, "follow_run.py")
        left = self.cluster.left(f"{self.storage}/{RUN}")
        last = max(left["steps"])
        return {"weights": left["steps"][last], "rows": left["rows"], "last": last}
