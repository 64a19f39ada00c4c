"""The memory that a version takes while it is loaded, from the sizes of its files; refused where there is not so much.

A process that takes more than its container may have is killed, and its clients with it. The estimate is of the peak:
the files as they are read, the network as it was stored, the same changed for an engine, a pass of the largest batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from resnet.host.free_memory import free_memory, gib
from serve.inference import checkpoint_files
from serve.settings import Args

MIB = 2**20
# Resident memory that load_version took: ResNet-18, 50 and 152, batches of 1, 16 and 64, float32 by OpenVINO, whose
# libraries are in it. 5.05 times the weights, the file included; the rest is above what was measured by 2 to 30 %, and
# for oneDNN and bfloat16 by more
PROCESS = 350 * MIB  # Python with torch, before it has read anything
ENGINE = 260 * MIB
COPIES = 4.05  # of the weights, beside the files: at the peak of loading
STAYING = 3.5  # of the weights: of a version that answers
IMAGE = round(7.5 * MIB)  # of each image of the largest batch, at 224 by 224 pixels
REPLICA = b"ray::ServeReplica:"  # the beginning of a replica's title among the processes of a machine


class MemoryNeed(NamedTuple):
    """Bytes. loading: at the peak, in a process that has torch already; staying: of a version that answers."""

    loading: int
    staying: int


def memory_need(checkpoint: str, batch: int) -> MemoryNeed | None:
    """Of a checkpoint, whose largest batch has so many images. None: its place does not say how large it is."""
    sizes = checkpoint_files.sizes(checkpoint)
    weights = sizes.get("model.safetensors")
    if weights is None:
        return None
    rest = ENGINE + batch * IMAGE
    return MemoryNeed(sum(sizes.values()) + round(COPIES * weights) + rest, round(STAYING * weights) + rest)


def replicas_here(proc: Path = Path("/proc")) -> int:
    """Replicas among the processes of this machine, or of this container; at least 1."""
    found = 0
    for title in proc.glob("[0-9]*/cmdline"):
        try:
            found += title.read_bytes().startswith(REPLICA)
        except OSError:  # it has just ended
            continue
    return max(1, found)


def too_large(checkpoint: str, args: Args, process: int = 0, others: int = 0) -> str | None:
    """Why a version does not fit, with figures; None where it does, or where nobody can know.

    process: bytes of a process that is started for it; others: how many replicas here will load it after this one.
    """
    need, room = memory_need(checkpoint, args.batch), free_memory()
    if need is None or room is None:
        return None
    wanted = max(process + need.loading, need.staying + others * need.loading)
    if wanted <= room.free:
        return None
    beside = f" here and by {others} more" if others else ""
    return (
        f"it needs about {gib(wanted)} of memory to be loaded{beside}, and {gib(room.free)} are free of the "
        f"{gib(room.limit)} of {room.of}"
    )
