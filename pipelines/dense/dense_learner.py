"""The trained state of one rank of a detector or segmenter: the network, in DDP if there are others, and its steps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipelines.dense.dense_rank import DenseRank
from pipelines.training.learner import NO_BUFFERS, Tensors, broadcast_tensors, copied
from resnet.dense.average_precision import average_precision
from resnet.dense.dense_checkpoint import DenseCheckpoint, DenseProgress, build_dense
from resnet.dense.dense_images import Example
from resnet.dense.dense_recipe import SegmentationRecipe
from resnet.dense.detectors import Detections, as_input, as_target
from resnet.dense.mean_iou import confusion, mask_figures
from resnet.dense.segmenters import class_masks, segmentation_loss
from resnet.dense.targets import Boxes
from resnet.training.checkpoint_tensors import restore_state, state_tensors
from resnet.training.optimizer import optimizer, set_lr
from resnet.training.step import autocast, require_device

Figures = dict[str, Any]


class DenseLearner:
    """The network of a task on this rank. found: the checkpoint to go on from, on rank 0; None: begin anew."""

    def __init__(self, task: DenseRank, found: DenseCheckpoint | None) -> None:
        self.task, recipe = task, task.run.recipe
        require_device(task.device, recipe.precision)
        torch.manual_seed(task.run.seed)  # the same initial weights on every rank, and whatever their number
        mean, std = (torch.from_numpy(task.feed.pixels[name]) for name in ("mean", "std"))
        self.network: nn.Module = build_dense(recipe, len(task.feed.classes), mean, std).to(task.device).train()
        self.optimizer = optimizer(self.network, recipe.optim)
        self.progress = self._go_on(found)
        alone = task.world_size == 1
        self.model = self.network if alone else DistributedDataParallel(self.network, **NO_BUFFERS)

    def _go_on(self, found: DenseCheckpoint | None) -> DenseProgress | None:
        """Take up rank 0's checkpoint on all ranks; how far it is."""
        told: list[Any] = [None if found is None else found.progress]
        torch.distributed.broadcast_object_list(told, src=0)
        progress: DenseProgress | None = told[0]
        if progress is None:
            return None
        model = broadcast_tensors(found.model if found else {}, self.task.device)
        rest = broadcast_tensors(found.optimizer if found else {}, self.task.device)
        restore_state(model, rest, self.network, self.optimizer)
        return progress

    def run(self) -> dict[str, Any]:
        """The run as its checkpoints record it."""
        return self.task.run.model_dump(mode="json")

    def tensors(self) -> tuple[Tensors, Tensors]:
        """(model, optimizer) for a checkpoint, copied to the host."""
        model, rest = state_tensors(self.network, self.optimizer)
        return copied(model), copied(rest)

    # --- Steps --------------------------------------------------------------------------------------------------------

    def step(self, batch: Sequence[Example], epoch: int, step: int, lr: float) -> Tensor:
        """One step with this rank's part of a global batch. (3,) sums: loss, 0, examples.

        What torchvision's heads draw (samples of anchors, dropout) is a function of (seed, epoch, step, rank).
        """
        task = self.task
        drawn = np.random.default_rng((task.run.seed, epoch, step, task.rank, 5)).integers(2**31)
        torch.manual_seed(int(drawn))
        set_lr(self.optimizer, lr)
        with autocast(task.device, task.run.recipe.precision):
            loss = self._loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if (most := task.run.recipe.clip) is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), most)
        self.optimizer.step()
        sums = torch.zeros(3, dtype=torch.float64, device=task.device)
        sums[0], sums[2] = loss.detach() * len(batch), len(batch)
        return sums

    def _loss(self, batch: Sequence[Example]) -> Tensor:
        recipe, device = self.task.run.recipe, self.task.device
        if isinstance(recipe, SegmentationRecipe):
            images, masks = (torch.from_numpy(np.stack(column)).to(device) for column in zip(*batch, strict=True))
            return segmentation_loss(self.model(images), masks.long(), recipe.auxiliary)
        targets = [as_target(target, device) for _, target in batch if isinstance(target, Boxes)]
        losses: dict[str, Tensor] = self.model([as_input(image, device) for image, _ in batch], targets)
        return torch.stack(list(losses.values())).sum()

    # --- Evaluation ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self) -> Iterator[int | Figures]:
        """Judge the network on the validation split: numbers of images as they go by, then the figures, on rank 0.

        On other ranks the figures are empty. RuntimeError: an image was not judged once.
        """
        with self._evaluated():
            found = self._masks() if isinstance(self.task.run.recipe, SegmentationRecipe) else self._boxes()
            yield from found

    @contextlib.contextmanager
    def _evaluated(self) -> Iterator[None]:
        """Within: evaluation mode, with rank 0's statistics of batch norm."""
        for buffer in self.network.buffers():
            torch.distributed.broadcast(buffer, src=0)
        self.network.eval()
        try:
            yield
        finally:
            self.network.train()

    def _boxes(self) -> Iterator[int | Figures]:
        mine: list[tuple[int, Detections, Boxes]] = []
        for (image, target), _, index in self.task.evaluation():
            assert isinstance(target, Boxes)
            (found,) = self.network([as_input(image, self.task.device)])
            mine.append((index, Detections.of(found), target))
            yield 1
        ranked = self._gathered(mine)
        if not ranked:
            yield {}
            return
        precision = average_precision([f for _, f, _ in ranked], [w for *_, w in ranked], len(self.task.feed.classes))
        row = {"mean_ap": precision.mean, "mean_ap50": precision.at_50, "mean_ap75": precision.at_75}
        yield row | {"by_class": precision.by_class}

    def _masks(self) -> Iterator[int | Figures]:
        classes = len(self.task.feed.classes)
        table, seen = np.zeros((classes, classes), np.int64), []
        for (image, target), _, index in self.task.evaluation():
            assert isinstance(target, np.ndarray)
            height, width = target.shape
            found = class_masks(self.network, image, height, width, self.task.device)
            table += confusion(found, target, classes)
            seen.append((index,))
            yield 1
        total = torch.from_numpy(table).to(self.task.device)
        torch.distributed.all_reduce(total)
        if not self._gathered(seen):
            yield {}
            return
        figures = mask_figures(total.cpu().numpy())
        yield {"mean_iou": figures.mean_iou, "pixel_accuracy": figures.accuracy, "by_class": figures.by_class}

    def _gathered(self, mine: list[Any]) -> list[Any]:
        """All ranks' entries on rank 0, in the order of their images, which each begins with; empty on others."""
        parts: list[Any] = [None] * self.task.world_size
        torch.distributed.gather_object(mine, parts if self.task.rank == 0 else None, dst=0)
        if self.task.rank != 0:
            return []
        ranked = sorted((entry for part in parts for entry in part), key=lambda entry: entry[0])
        if [entry[0] for entry in ranked] != list(range(self.task.feed.val.examples)):
            raise RuntimeError(f"evaluation judged {len(ranked)} of {self.task.feed.val.examples} images")
        return ranked
