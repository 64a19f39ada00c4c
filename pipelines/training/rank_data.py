"""One rank's view of a run: which batches come, and on which device they are computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from pipelines.cluster.free_cpus import TaskBudget
from pipelines.run import Run, Scaling, TrainingRun
from pipelines.shards.row_groups import Split
from pipelines.stream import augmentation, in_memory, streamed
from pipelines.stream.example_order import Order, default_window
from pipelines.training.run_data import WorkerData
from resnet.host.cpu_quota import usable_cores
from resnet.images.crops.padded_crops import border_color
from resnet.training.devices.pinned_ring import PinnedRing
from resnet.training.devices.resident_crops import ResidentCrops, fits
from resnet.training.step import Normalize


def placed(scaling: Scaling) -> tuple[int, int, torch.device]:
    """Rank, world size and device of this worker, as Ray Train has placed it. Sets torch's threads."""
    import ray.train
    from ray.train import torch as ray_torch

    context = ray.train.get_context()
    # Ray may be told of more CPUs than there are; threads beyond the cores spin, and cost a factor of five.
    share = max(1, usable_cores() // context.get_local_world_size())
    torch.set_num_threads(min(scaling.threads or 1, share))
    return context.get_world_rank(), context.get_world_size(), ray_torch.get_device()


class TrainingFeed(Protocol):
    """Data that workers are handed, of any task."""

    @property
    def train(self) -> Split:
        """The training split."""
        ...


RunOfTask = TypeVar("RunOfTask", bound=TrainingRun)
FeedOfTask = TypeVar("FeedOfTask", bound=TrainingFeed)


class RankView(Generic[RunOfTask, FeedOfTask]):
    """Place of a rank and order of its examples, of any task. room: what its data tasks may hold; part: images that no
    two workers share."""

    def __init__(
        self,
        run: RunOfTask,
        feed: FeedOfTask,
        rank: int,
        world_size: int,
        device: torch.device,
        room: TaskBudget | None = None,
        part: int = 1,
    ) -> None:
        self.run, self.feed, self.rank, self.world_size, self.device = run, feed, rank, world_size, device
        cpus = run.scaling.data_cpus or 1.0
        self.room = room or TaskBudget.of(cpus)
        # Threads that decode here take turns with the training, which waits for them anyway.
        self.threads = max(1, round(cpus + (run.scaling.cpus_per_worker or 0)))
        batch = run.recipe.optim.batch_size
        self.order = Order(feed.train.rows, batch, run.data.window or default_window(batch), run.seed, part)
        self.total = run.recipe.total_steps(feed.train.examples)

    def ids(self, epoch: int, step: int) -> list[int]:
        """Places in the training split of the global batch of a step of an epoch."""
        window, skip = self.order.remaining(epoch, step)[0]
        groups, rows = self.order.batches(epoch, window)
        return (self.feed.train.starts()[groups[skip]] + rows[skip]).tolist()


class RankData(RankView[Run, WorkerData]):
    """The batches of a rank, and what it needs to train on them."""

    def __init__(
        self,
        run: Run,
        feed: WorkerData,
        rank: int,
        world_size: int,
        device: torch.device,
        room: TaskBudget | None = None,
    ) -> None:
        super().__init__(run, feed, rank, world_size, device, room, run.part)
        self.local = self.order.local(rank, world_size)
        pixels = {name: torch.from_numpy(array) for name, array in feed.pixels.items()}
        self.normalize = Normalize(pixels["mean"], pixels["std"], run.scaling.channels_last).to(device)
        self.copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.resident: dict[str, in_memory.Resident] = {}
        self.crops_on_device = (
            self.copies is not None
            and feed.resident is not None
            and fits(feed.train.examples, run.recipe.images.size, run.recipe.images.pad or 0, device)
        )
        self.crops: ResidentCrops | None = None
        self.ring: PinnedRing | None = None

    def split(self, name: str) -> in_memory.Resident:
        """A decoded split, fetched once; its arrays are views of the object store."""
        import ray

        assert self.feed.resident is not None
        if name not in self.resident:
            self.resident[name] = in_memory.Resident(*ray.get(self.feed.resident[name]))
        return self.resident[name]

    def training(self, epoch: int, first_step: int) -> Iterator[augmentation.Batch | in_memory.Draws]:
        """This rank's batches of an epoch, each for `tensors` before the next is asked for."""
        place = (epoch, first_step, self.rank, self.world_size)
        images = self.run.recipe.images.at(epoch, self.total / self.order.steps_per_epoch)
        if self.feed.resident is not None:
            if self.crops_on_device:
                return in_memory.resident_draws(self.order, images, *place)
            border = border_color(images.border, self.feed.pixels["mean"])
            return in_memory.resident_batches(self.split("train"), self.order, images, *place, border)
        where = "tasks" if self.run.data.decode == "tasks" else "worker"
        memory = None
        if self.copies is not None and where == "worker":  # a ring an epoch, whose images may grow
            self.ring = PinnedRing(streamed.BUFFERS, (self.local, images.size, images.size, 3))
            memory = self.ring.take
        return streamed.streamed_batches(
            self.feed.train, self.order, images, *place, self.room, where, self.threads, memory
        )

    def evaluation(self, split: Literal["train", "val"] = "val") -> Iterator[augmentation.Batch]:
        """This rank's part of a split, without augmentation."""
        size = max(self.local, 128)
        if self.feed.resident is not None:
            return in_memory.resident_evaluation(self.split(split), size, self.rank, self.world_size)
        images, source = self.run.recipe.images.for_evaluation(), getattr(self.feed, split)
        return streamed.streamed_evaluation(source, images, size, self.rank, self.world_size, self.room)

    def tensors(self, batch: augmentation.Batch | in_memory.Draws) -> tuple[Tensor, Tensor]:
        """Pixels (N, 3, S, S), normalised on the device, and labels (N,)."""
        if isinstance(batch, in_memory.Draws):
            return self.made(self.drawn(batch))
        images, labels = self._sent(batch.images), self._sent(batch.labels)
        return self.normalize(images, None if batch.shift is None else self._sent(batch.shift)), labels

    def drawn(self, batch: in_memory.Draws) -> Tensor:
        """The draws of a batch on the device: (N, 5) int64."""
        return self._sent(batch.table())

    def made(self, draws: Tensor) -> tuple[Tensor, Tensor]:
        """`tensors` of a batch that was drawn, of the set on the device."""
        images, labels = self._resident_crops().batch(draws, self.run.recipe.images.turns)
        return self.normalize(images), labels

    @property
    def uncaptured(self) -> str | None:
        """Why this rank's steps cannot be captured; None: they may be tried."""
        if self.world_size > 1:
            return f"{self.world_size} workers train"
        return self.run.recipe.uncaptured or (None if self.crops_on_device else "the training set lies on no GPU")

    def _resident_crops(self) -> ResidentCrops:
        """The training split on the device, sent there once."""
        if self.crops is None:
            images = self.run.recipe.images
            border = border_color(images.border, self.feed.pixels["mean"])
            self.crops = ResidentCrops(*self.split("train"), images.pad or 0, border, self.device)
        return self.crops

    def _sent(self, array: np.ndarray) -> Tensor:
        """On the device. A GPU copies it on a stream of its own, while it still computes the step before."""
        tensor = torch.from_numpy(array)
        if self.copies is None:
            return tensor.to(self.device)
        computing, ring = torch.cuda.current_stream(self.device), self.ring
        held = ring is not None and ring.holds(array)
        with torch.cuda.stream(self.copies):
            sent = (tensor if held else tensor.pin_memory()).to(self.device, non_blocking=True)
            if ring is not None and held:
                done = torch.cuda.Event()
                done.record()
                ring.is_copied(array, done)
        computing.wait_stream(self.copies)
        sent.record_stream(computing)  # its memory is free for others only after the step that reads it
        return sent
