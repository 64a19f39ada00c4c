"""Local folders of a job that runs on several machines: each must be the same folder everywhere, or work is lost.

What a process writes to a folder of its own machine no other finds, and a lost machine takes it away.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.storage import Folder

PATIENCE = 60.0  # seconds for the answers of all nodes; a process of tasks imports for some
HEAD = 2**16  # bytes of a file that are compared


@dataclass(frozen=True)
class SharedPlace:
    """A folder of this machine that every machine must see, by a file in it, or by its names.

    setting: the option that names the folder. looked_at: the file, or the folder itself.
    """

    setting: str
    folder: str
    looked_at: str
    content: str
    host: str

    @classmethod
    def of(cls, setting: str, folder: Folder, file: str = "") -> list[SharedPlace]:
        """As it is here and now; none where it is no local folder."""
        if not folder.is_local:
            return []
        path = folder.path(file)
        return [cls(setting, folder.path(), path, _content(path), socket.gethostname())]

    def require_here(self) -> None:
        """ValueError: this machine does not see it, or another of that name."""
        if not self.is_here():
            raise ValueError(self.refusal(socket.gethostname()))

    def is_here(self) -> bool:
        """True if this machine sees the same."""
        return _content(self.looked_at) == self.content

    def refusal(self, host: str) -> str:
        """The sentence where a machine does not see it."""
        return (
            f"{self.setting} must be a bucket or a folder that all machines share where several work, got "
            f"{self.folder} of {self.host}, which {host} does not see"
        )


def _content(path: str) -> str:
    """A file's size and beginning, or the names in a folder; empty where there is nothing."""
    try:
        if os.path.isdir(path):
            return hashlib.sha256("\n".join(sorted(os.listdir(path))).encode(errors="replace")).hexdigest()
        with open(path, "rb") as file:
            return f"{os.fstat(file.fileno()).st_size} {hashlib.sha256(file.read(HEAD)).hexdigest()}"
    except OSError:
        return ""


@contextlib.contextmanager
def trial_file(setting: str, folder: Folder) -> Iterator[list[SharedPlace]]:
    """Within: a file in a folder to be written to; none where it is a bucket."""
    if not folder.is_local:
        yield []
        return
    file = Path(folder.path(f".seen-{uuid.uuid4().hex[:8]}"))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(file.name)
    try:
        yield SharedPlace.of(setting, folder, file.name)
    finally:
        file.unlink(missing_ok=True)


def require_everywhere(places: Sequence[SharedPlace]) -> None:
    """ValueError: another machine of the connected cluster that takes work does not see one of them.

    Machines that join later are not asked: a worker of a training asks itself.
    """
    others = _others() if places else []
    if not others:
        return
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task: Any = ray.remote(_unseen)
    spread = [NodeAffinitySchedulingStrategy(node, soft=False) for node in others]
    asked = [task.options(num_cpus=0, scheduling_strategy=place).remote(list(places)) for place in spread]
    answered, late = ray.wait(asked, num_returns=len(asked), timeout=PATIENCE)
    for each in late:
        ray.cancel(each)
    for said in ray.get(answered):
        if said is not None:
            raise ValueError(said)


def _unseen(places: list[SharedPlace]) -> str | None:
    """The refusal of this machine for the first place that it does not see, or None."""
    return next((place.refusal(socket.gethostname()) for place in places if not place.is_here()), None)


def _others() -> list[str]:
    """Nodes that take work on other machines than this one."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    here = ray.get_runtime_context().get_node_id()
    mine = {node["NodeManagerAddress"] for node in nodes if node["NodeID"] == here}
    return [node["NodeID"] for node in nodes if node["Resources"].get("CPU") and node["NodeManagerAddress"] not in mine]
