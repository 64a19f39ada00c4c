"""Hardware and software of a training as rank 0 sees them: all that may move a figure beside recipe, data and seed."""

from __future__ import annotations

import platform
import re
from typing import TYPE_CHECKING

from resnet.frozen import Frozen
from resnet.host import hardware
from resnet.host.cpu_quota import usable_cores

if TYPE_CHECKING:
    import torch


class Conditions(Frozen):
    """Conditions of a training from a step on; another entry for each start on another machine or with other workers.

    hardware: of rank 0; gflops: measured 1e9 operations a second of a core, or of the GPU, by precision; precision: of
    the matrix products; bn_batch: images over which batch norm normalised; threads: of torch, a worker; jpeg_engine:
    what decodes JPEGs, see resnet.images.jpeg_region; versions: of torch, oneDNN and others; compiled: the residual
    blocks; captured: whole steps, as CUDA graphs.
    """

    step: int = 0
    hardware: str
    gflops: dict[str, float]
    world_size: int
    threads: int
    precision: str
    bn_batch: int
    jpeg_engine: str
    versions: dict[str, str]
    compiled: bool = False
    captured: bool = False

    def is_as(self, other: Conditions) -> bool:
        """True if a training that goes on meets the same conditions; speed varies from one measurement to the next."""
        measured = {"step": 0, "gflops": {}}
        return self.model_copy(update=measured) == other.model_copy(update=measured)

    def tags(self) -> dict[str, str]:
        """The same as flat text, for MLflow."""
        speed = ", ".join(f"{name} {value:g}" for name, value in self.gflops.items())
        kept = {name: str(value) for name, value in self if name not in ("step", "gflops", "versions")}
        return kept | {"gflops": speed} | self.versions


def conditions(
    device: torch.device,
    *,
    step: int,
    world_size: int,
    precision: str,
    bn_batch: int,
    versions: dict[str, str],
    jpeg_engine: str | None = None,
    compiled: bool = False,
    captured: bool = False,
) -> Conditions:
    """Those of this process. Measures for a second.

    versions: of what this package does not know, e.g. Ray; jpeg_engine: of all workers, None: this process's.
    """
    import torch

    from resnet.images import jpeg_region

    on_gpu = device.type == "cuda"
    return Conditions(
        step=step,
        hardware=torch.cuda.get_device_name(device) if on_gpu else f"{usable_cores()} cores of {hardware.cpu()}",
        gflops=hardware.gflops(device),
        world_size=world_size,
        threads=torch.get_num_threads(),
        precision=precision,
        bn_batch=bn_batch,
        jpeg_engine=jpeg_engine or jpeg_region.best().name,
        versions={"python": platform.python_version(), **library_versions(on_gpu), **versions},
        compiled=compiled,
        captured=captured,
    )


def library_versions(on_gpu: bool) -> dict[str, str]:
    """Versions of torch and of the library that computes its convolutions."""
    import torch

    found = {"torch": torch.__version__}
    if on_gpu:
        return found | {"cudnn": str(torch.backends.cudnn.version())}
    onednn = re.search(r"MKL-DNN v([\d.]+)", torch.__config__.show())
    return found | {"onednn": onednn[1] if onednn else "none"}
