"""Which node holds how many workers, and with how many CPUs, GPUs and threads: by the nodes, not by their sums.

Pure functions of the nodes that are up, of those that an autoscaler may add, and of what is asked for. Ray places a
worker on one node: a cluster of ten nodes with 4 CPUs has room for no worker of 10 CPUs, and Ray would wait for one for
ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from pipelines.run import Scaling

LEAST_CPUS = 0.05  # that a worker reserves
LEFT = 0.25  # CPUs of a cluster that must stay free for data tasks
EXACT = 1e-6  # Ray counts resources in ten-thousandths


class Node(NamedTuple):
    """A node that takes work. up: it is there; else an autoscaler may add it."""

    cpus: float
    gpus: float = 0.0
    up: bool = True

    def room(self, cpus: float, gpus: float = 0.0) -> int:
        """Workers with so many CPUs and GPUs each that it can hold."""
        rooms = [int(self.cpus / cpus + EXACT)] if cpus > 0 else []
        return min([*rooms, self.gpu_slots(gpus)] if gpus > 0 else rooms, default=0)

    def gpu_slots(self, each: float) -> int:
        """Workers with so much of a GPU, at most 1, that it can hold: no part of a GPU lies on two."""
        return int(self.gpus + EXACT) * int(1 / each + EXACT)


class NodeKind(NamedTuple):
    """Nodes that an autoscaler may have up at a time, those that are up already included."""

    most: int
    cpus: float
    gpus: float = 0.0


class Wishes(NamedTuple):
    """The request of a training. passes: Recipe.passes; needs_gpu: on CPUs only if `scaling.gpu` says so."""

    scaling: Scaling
    passes: int
    decode: Literal["auto", "tasks", "worker"] = "auto"
    needs_gpu: bool = False


class ResourcePlan(NamedTuple):
    """The workers, GPUs, CPUs and threads that a training takes of a cluster.

    scaling: nothing in it is left open; decode: where images are decoded; workers: of each node; spread: whether Ray
    must not put workers together that have room apart.
    """

    scaling: Scaling
    decode: Literal["tasks", "worker"]
    nodes: tuple[Node, ...]
    workers: tuple[int, ...]
    spread: bool

    @property
    def per_worker(self) -> dict[str, float]:
        """Resources of a worker, as Ray names them."""
        return resources_per_worker(self.scaling)

    @property
    def shown(self) -> str:
        """One line for a person, before anything starts."""
        scaling, held = self.scaling, [count for count in self.workers if count]
        cpus, gpus, coming = scaling.cpus_per_worker or 0, scaling.gpus_per_worker or 1, self.coming
        where = f"{number(sum(held), 'worker')} on {number(len(held), 'node')}"
        added = f", {coming} of them to be added" if coming else ""
        device = f"{gpus:g} GPU, " if scaling.gpu else ""
        threads = number(scaling.threads or 1, "thread")
        decoding = "in tasks on all nodes" if self.decode == "tasks" else "beside the training"
        data = f"up to {scaling.data_cpus or 0:g} CPUs a worker read and decode, {decoding}"
        elastic = f" ({scaling.least} to {scaling.most} as nodes come and go)" if scaling.is_elastic else ""
        return f"{where}{added}{elastic}, each with {device}{cpus:g} CPUs and {threads}; {data}"

    @property
    def coming(self) -> int:
        """Nodes that must be added before all workers have room."""
        return sum(1 for node, count in zip(self.nodes, self.workers, strict=True) if count and not node.up)

    def short(self, up: Iterable[Node]) -> str | None:
        """The resources that nodes that are up lack for the least number of workers, in words; None: there is room."""
        cpus, gpus = self.per_worker["CPU"], self.per_worker.get("GPU", 0.0)
        room, least = sum(node.room(cpus, gpus) for node in up), self.scaling.least
        if room >= least:
            return None
        device = f"{gpus:g} GPU and " if gpus else ""
        return f"{number(least, 'worker')} with {device}{cpus:g} CPUs each; the nodes that are up have room for {room}"


def resources_per_worker(scaling: Scaling) -> dict[str, float]:
    """Resources of a worker of a scaling in which nothing is left open, as Ray names them."""
    gpus = {"GPU": scaling.gpus_per_worker or 1.0} if scaling.gpu else {}
    return {"CPU": scaling.cpus_per_worker or 1.0} | gpus


def number(count: int, what: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def with_added(up: Sequence[Node], types: Sequence[NodeKind], limit: int | None = None) -> tuple[Node, ...]:
    """The nodes that are up, and after them those that may be added.

    A type's nodes that are up are known by their CPUs and GPUs. limit: of nodes beside the head, or None.
    """
    left = list(up)
    room = 10_000 if limit is None else max(0, limit)
    added: list[Node] = []
    for kind in types:
        alike = [node for node in left if (node.cpus, node.gpus) == (kind.cpus, kind.gpus)][: kind.most]
        for node in alike:
            left.remove(node)
        room -= len(alike)
        new = max(0, min(kind.most - len(alike), room))
        room -= new
        added += [Node(kind.cpus, kind.gpus, up=False)] * new
    return (*up, *added)


def plan_training(nodes: Sequence[Node], wishes: Wishes) -> ResourcePlan:
    """The plan of a training on a cluster that it has to itself. ValueError: one sentence on what can never fit."""
    working = [node for node in nodes if node.cpus > 0]
    if not working:
        raise ValueError(_none_works())
    found = _on_gpus(working, wishes) if is_on_gpus(working, wishes) else _on_cpus(working, wishes)
    count = found.scaling.least
    total, share = sum(node.cpus for node in working), found.scaling.cpus_per_worker or 0.0
    fits = sum(node.room(share, found.per_worker.get("GPU", 0.0)) for node in working)
    if share * count > total - LEFT + EXACT or fits < count:
        raise ValueError(
            f"scaling.workers x scaling.cpus_per_worker must leave {LEFT} of the cluster's {total:g} CPUs for data "
            f"tasks, and each worker must fit on a node ({_listed(working)}), got {count} x {share:g}"
        )
    return found


def is_on_gpus(nodes: Sequence[Node], wishes: Wishes) -> bool:
    """True if workers have GPUs: as it was said, else if there is one. ValueError: it must be said."""
    if wishes.scaling.gpu is not None:
        return wishes.scaling.gpu
    found = any(node.gpus >= 1 for node in nodes)
    if wishes.needs_gpu and not found:
        raise ValueError(
            "scaling.gpu must be said on a cluster that has no GPU and is not known to add one "
            "(RESNET_ADDABLE_NODES in docs/cluster.md): --scaling.gpu False trains ImageNet on its CPUs"
        )
    return found


def _on_gpus(nodes: Sequence[Node], wishes: Wishes) -> ResourcePlan:
    """Workers of a whole GPU each, or one worker with a part of one. Ray packs them on as few nodes as can be."""
    scaling, each = wishes.scaling, wishes.scaling.gpus_per_worker or 1.0
    if each < 1 and scaling.most > 1:
        raise ValueError(
            f"scaling.gpus_per_worker must be 1 with more than one worker: NCCL takes no two ranks of a training on "
            f"one GPU, got {each:g} and {scaling.workers} workers"
        )
    slots = [node.gpu_slots(each) for node in nodes]
    room = sum(slots) if each == 1 else min(1, sum(slots))
    if scaling.least > room:
        gpus = sum(node.gpus for node in nodes)
        raise ValueError(f"scaling.workers must be at most the cluster's {gpus:g} GPUs, got {scaling.workers or 1}")
    workers = scaling.workers or most_that_share(wishes.passes, room)
    asked = scaling.model_copy(update={"workers": workers, "gpu": True})
    count = min(asked.most, room)
    # Whichever of the nodes Ray takes, and however many workers it puts there, half of the CPUs stay free.
    crowds = [(node, min(most, count)) for node, most in zip(nodes, slots, strict=True) if most]
    share = scaling.cpus_per_worker or _rounded(min(node.cpus / 2 / crowd for node, crowd in crowds))
    held = _packed(nodes, [min(node.room(share, each), most) for node, most in zip(nodes, slots, strict=True)], count)
    return _plan(nodes, asked, share, held, crowds, wishes.decode, spread=False)


def _on_cpus(nodes: Sequence[Node], wishes: Wishes) -> ResourcePlan:
    """A worker on each of the large nodes; on one machine two. Ray spreads them."""
    scaling = wishes.scaling
    workers = scaling.workers or _cpu_workers(nodes, wishes.passes)
    asked = scaling.model_copy(update={"workers": workers, "gpu": False})
    share = scaling.cpus_per_worker or _rounded(largest_share([node.cpus / 2 for node in nodes], asked.most))
    half = [Node(node.cpus / 2).room(share) for node in nodes]
    rooms = half if sum(half) >= asked.most else [node.room(share) for node in nodes]
    held = _spread(nodes, rooms, asked.most)
    crowds = [(node, count) for node, count in zip(nodes, held, strict=True) if count]
    return _plan(nodes, asked, share, held, crowds, wishes.decode, spread=len(nodes) > 1)


def _plan(
    nodes: Sequence[Node],
    scaling: Scaling,
    share: float,
    held: Sequence[int],
    crowds: Sequence[tuple[Node, int]],
    decode: Literal["auto", "tasks", "worker"],
    *,
    spread: bool,
) -> ResourcePlan:
    """The plan that follows from the workers of each node. crowds: nodes, and the most workers that each may hold."""
    spare = sum(node.cpus for node, count in zip(nodes, held, strict=True) if node.up and not count)
    busy = sum(node.cpus for node, count in zip(nodes, held, strict=True) if count)
    # A few CPUs beside, as a head has, decode less than the workers' own nodes, and what they decode is copied.
    where = decode if decode != "auto" else "tasks" if spare >= busy > 0 else "worker"
    threads = scaling.threads or max(1, min((int(node.cpus // crowd) for node, crowd in crowds), default=1))
    own = min((node.cpus / crowd for node, crowd in crowds), default=share)
    if where == "tasks":
        own = max(own, (spare + busy) / max(1, sum(held)))
    data = scaling.data_cpus or max(LEAST_CPUS, int((own - share) * 100) / 100)
    known = {"cpus_per_worker": share, "data_cpus": data, "threads": threads}
    return ResourcePlan(scaling.model_copy(update=known), where, tuple(nodes), tuple(held), spread)


def holders(nodes: Sequence[Node], gpu: bool | None) -> list[Node]:
    """The nodes that hold the networks of a test or a prediction. ValueError: there is none."""
    working = [node for node in nodes if node.cpus > 0]
    with_gpus = [node for node in working if node.gpus >= 1]
    found = with_gpus if gpu or (gpu is None and with_gpus) else working
    if not found:
        raise ValueError(f"gpu must be off where no node has one, got {described(nodes)}" if gpu else _none_works())
    return found


def actor_shares(nodes: Sequence[Node], count: int, on_gpu: bool, part: float) -> tuple[float, list[int]]:
    """CPUs of each of `count` actors, which take `part` of a node's, and the most that each node may hold.

    ValueError: more than there are GPUs.
    """
    if not on_gpu:
        share = largest_share([part * node.cpus for node in nodes], count)
        return share, [min(count, node.room(share)) for node in nodes]
    gpus = sum(int(node.gpus) for node in nodes)
    if count > gpus:
        raise ValueError(f"workers must be at most the cluster's {gpus:g} GPUs, got {count}")
    crowds = [min(count, int(node.gpus)) for node in nodes]
    return min(part * node.cpus / crowd for node, crowd in zip(nodes, crowds, strict=True)), crowds


def most_that_share(passes: int, room: int) -> int:
    """The largest number of workers, at most `room`, that divides the passes of a batch."""
    return max(n for n in range(1, max(1, room) + 1) if passes % n == 0)


def _cpu_workers(nodes: Sequence[Node], passes: int) -> int:
    """Workers without GPUs that nobody numbered. All wait in each step for the one with the fewest CPUs."""
    cpus = sorted((node.cpus for node in nodes), reverse=True)
    speeds = [(n * cpus[n - 1], -n) for n in range(1, len(cpus) + 1) if passes % n == 0]
    best = -max(speeds)[1]
    return best if best > 1 else most_that_share(passes, min(2, int(cpus[0])))


def largest_share(free: Sequence[float], count: int) -> float:
    """The most that each of `count` may have where none may lie in two of `free`."""
    sizes = {amount / n for amount in free for n in range(1, count + 1) if amount > 0}
    fitting = [size for size in sizes if sum(int(amount / size + EXACT) for amount in free) >= count]
    return max(fitting, default=0.0)


def _none_works() -> str:
    return "the cluster must have a node with CPUs, or be known to add one, got none (docs/cluster.md)"


def _rounded(cpus: float) -> float:
    return max(LEAST_CPUS, round(cpus, 2))


def _order(nodes: Sequence[Node]) -> list[int]:
    """Places of the nodes in the order in which they are filled: those that are up, those with most first."""
    return sorted(range(len(nodes)), key=lambda i: (not nodes[i].up, -nodes[i].gpus, -nodes[i].cpus))


def _packed(nodes: Sequence[Node], rooms: Sequence[int], count: int) -> list[int]:
    """Workers of each node, on as few nodes as can be."""
    held, left = [0] * len(nodes), count
    for place in _order(nodes):
        held[place] = min(rooms[place], left)
        left -= held[place]
    return held


def _spread(nodes: Sequence[Node], rooms: Sequence[int], count: int) -> list[int]:
    """Workers of each node, one each, then another each."""
    held, left = [0] * len(nodes), count
    while left:
        free = [place for place in _order(nodes) if held[place] < rooms[place]]
        if not free:
            break
        for place in free[:left]:
            held[place] += 1
        left = count - sum(held)
    return held


def _listed(nodes: Sequence[Node]) -> str:
    """`4 x 64 CPUs, 1 x 48 CPUs and 4 GPUs`."""
    kinds: dict[str, int] = {}
    for node in nodes:
        name = f"{node.cpus:g} CPUs" + (f" and {node.gpus:g} GPUs" if node.gpus else "")
        kinds[name] = kinds.get(name, 0) + 1
    return ", ".join(f"{count} x {name}" for name, count in kinds.items())


def described(nodes: Sequence[Node]) -> str:
    """The cluster in a line: what is up, what may be added."""
    up, more = [node for node in nodes if node.up], [node for node in nodes if not node.up]
    there = f"{_listed(up)} up" if up else "no node up that takes work"
    return there + (f"; {_listed(more)} may be added" if more else "")


def resources_of(node: Any) -> Node:
    """A node of ray.nodes()."""
    found = node["Resources"]
    return Node(float(found.get("CPU", 0)), float(found.get("GPU", 0)))
