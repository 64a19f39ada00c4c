"""Checks of the job before anything is taken: keys, models, room, the port. A replica would fail at them later."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Mapping, Sequence

import torch

from resnet.host.cpu_quota import usable_cores
from resnet.retrieval.vector_index import VectorIndex, weights_sha256
from serve.api.clients import Keys
from serve.inference.classifier import fetch_checkpoint
from serve.inference.model_check import require_servable
from serve.settings import Args, Settings


def require_servable_models(args: Args, what: str) -> None:
    """ValueError where the checkpoint, or one of the models beside it, cannot be served. what: as errors name it."""
    require_servable(args.checkpoint, what, args.precision)
    for name, place in args.models.items():
        require_servable(place, f"models {name}", args.precision)


def require_index(args: Args) -> None:
    """ValueError where the folder is no index, or one of another model's embeddings."""
    if args.index is None:
        return
    index = VectorIndex(args.index)
    try:
        index.require_model(
            weights_sha256(fetch_checkpoint(args.checkpoint).model), f"{args.name} version {args.version}"
        )
    finally:
        index.close()


def require_keys(args: Settings) -> None:
    """ValueError where the file of keys cannot be read, holds none, or can be changed by every user of the machine.

    One that every user can read is told on standard error.
    """
    if args.api_key_file is None:
        return
    Keys(args.api_key_file, warn=lambda _: None)
    mode = os.stat(args.api_key_file).st_mode
    if mode & stat.S_IWOTH:
        raise ValueError(f"api_key_file must not be one that every user can change, got {args.api_key_file}")
    if mode & stat.S_IROTH:
        print(f"every user of this machine can read the keys: chmod 600 {args.api_key_file}", file=sys.stderr)


def this_machine() -> dict[str, float]:
    """CPUs and GPUs that a Ray of this machine's own has at most."""
    return {"CPU": float(usable_cores()), "GPU": float(torch.cuda.device_count())}


def require_room(settings: Settings, nodes: Sequence[Mapping[str, float]]) -> None:
    """ValueError where the replicas that begin do not fit on the nodes. nodes: CPU and GPU of each, used or not."""
    needs = {name: amount for name, amount in (("CPU", settings.cpus), ("GPU", settings.gpus)) if amount}
    wanted = max(1, settings.min_replicas)
    fits = [min((_count(node.get(n, 0), a, n == "GPU") for n, a in needs.items()), default=wanted) for node in nodes]
    if sum(fits) >= wanted:
        return
    for name, amount in needs.items():
        field, most = f"{name.lower()}s", max((node.get(name, 0) for node in nodes), default=0)
        if amount > most:
            has = f"no {name}" if not most else f"{most:g} {name}s" if most > 1 else f"1 {name}"
            where = "this machine has" if len(nodes) == 1 else "the largest node has"
            raise ValueError(f"{field} of a replica must be at most what {where}, {has}, got {amount:g}")
    if not sum(fits):
        raise ValueError(
            f"a replica must fit on one node, and none has both {settings.cpus:g} CPUs and {settings.gpus:g} GPUs"
        )
    each = " and ".join(f"{amount:g} {name}{'s' if amount != 1 else ''}" for name, amount in needs.items())
    raise ValueError(f"min_replicas must be at most {sum(fits)}, as many replicas of {each} as fit, got {wanted}")


def _count(has: float, amount: float, by_one: bool) -> int:
    """The times that an amount fits. by_one: a share lies on one GPU, so what is left over of two is no third."""
    return int(has) * int(1 / amount + 1e-6) if by_one and amount < 1 else int(has / amount + 1e-6)


def require_free_port(host: str, port: int, what: str = "port") -> None:
    """ValueError where the address is not this machine's, or another program listens on the port. what: its option."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        if isinstance(error, socket.gaierror | UnicodeError) or number in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise ValueError(f"host must be an address of this machine, 127.0.0.1 or 0.0.0.0, got {host}") from None
        if number == errno.EACCES:
            raise ValueError(f"{what} must be one that this user may open, from 1024 up, got {port}") from None
        raise ValueError(f"{what} must be free on {host}, got {port}: {getattr(error, 'strerror', error)}") from None
