"""The trained state of one rank: the network, in DDP if there are others, with all that a step changes."""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipelines.stream.augmentation import Batch
from pipelines.stream.in_memory import Draws
from pipelines.training.guards.step_capture import ReplayedSteps, StepParts, replayed_steps
from pipelines.training.rank_data import RankData
from resnet import build
from resnet.retrieval.arcface import arcface, make_cosine
from resnet.training.checkpoint import Checkpoint, Progress
from resnet.training.checkpoint_tensors import restore_state, state_tensors
from resnet.training.devices.compiled_blocks import compile_or_say, is_to_be_compiled, restore_blocks
from resnet.training.devices.step_trial import State, changed_by_steps
from resnet.training.finetuning.epoch_choice import ends_early
from resnet.training.finetuning.trained_parts import class_weights, freeze
from resnet.training.mixing import Mix, draw_mix, mix
from resnet.training.optimizer import begin_with_no_momentum, optimizer, set_lr
from resnet.training.step import (
    accumulate,
    autocast,
    choose_algorithms,
    native_precision,
    require_device,
    scaler,
    to_device,
    update,
)
from resnet.training.weight_average import Average, copy_into, decay_at

log = logging.getLogger(__name__)
Tensors = dict[str, Tensor]
# torch 2.15 has renamed it, and warns of the old name.
NAMES = inspect.signature(DistributedDataParallel.__init__).parameters
NO_BUFFERS: Any = {"forward_sync_buffers" if "forward_sync_buffers" in NAMES else "broadcast_buffers": False}


class Learner:
    """The network of a task on this rank. found: the checkpoint to go on from, on rank 0; None: begin anew."""

    def __init__(self, task: RankData, found: Checkpoint | None) -> None:
        self.task, recipe, scaling = task, task.run.recipe, task.run.scaling
        self.precision = self._agreed_precision(found)
        if task.device.type == "cuda" or scaling.deterministic:
            choose_algorithms(scaling.deterministic)
        torch.manual_seed(task.run.seed)  # the same initial weights on every rank, and whatever their number
        network = build(recipe.network, len(task.feed.classes), zero_init_last_bn=recipe.zero_init_last_bn)
        freeze(network, recipe.finetune)
        self.head = make_cosine(network) if recipe.loss.is_angular else None
        self.network = to_device(network, task.device, scaling.channels_last)
        self.compiled = self._compiled()
        self.optimizer = optimizer(self.network, recipe.optim, recipe.finetune.head_lr)
        self.scaler = scaler(task.device, self.precision)
        if self.scaler.is_enabled() and recipe.optim.momentum:
            begin_with_no_momentum(self.optimizer)
        # Alone DDP would copy gradients into buckets and add nothing to them; the bits are the same.
        self.model = self._distributed() if task.world_size > 1 else self.network
        self.average = Average(self.network) if recipe.ema is not None else None
        counts = task.feed.class_counts
        self.class_weights = None if counts is None else class_weights(counts).to(task.device)
        angular = recipe.loss.is_angular
        self.criterion = arcface(recipe.loss, len(task.feed.classes), self.class_weights) if angular else None
        self.progress = self._go_on(found)
        self.replayed: ReplayedSteps | None = None

    # --- Start --------------------------------------------------------------------------------------------------------

    def _agreed_precision(self, found: Checkpoint | None) -> str:
        """The recipe's; with auto what the run began with, else what rank 0's hardware multiplies natively.

        One for all ranks: gradients of a step are added up, whatever hardware they come from.
        """
        wanted = self.task.run.recipe.precision
        if wanted == "auto" and found is not None:
            wanted = found.recipe.precision
        require_device(self.task.device, wanted)
        told = [native_precision(self.task.device) if wanted == "auto" else wanted]
        torch.distributed.broadcast_object_list(told, src=0)
        return told[0]

    def _compiled(self) -> bool:
        """Compile the residual blocks where the run says so: on all ranks, or on none where one of them cannot."""
        task, scaling = self.task, self.task.run.scaling
        if not is_to_be_compiled(scaling.compile, task.device, task.total, scaling.deterministic):
            return False
        told: list[Any] = [None] * task.world_size
        why = compile_or_say(self.network, self._passes(), self.precision)
        torch.distributed.all_gather_object(told, why)
        failed = [(rank, reason) for rank, reason in enumerate(told) if reason is not None]
        if failed and task.rank == 0:
            log.warning("the residual blocks are not compiled, which rank %d could not do: %s", *failed[0])
        if failed:
            restore_blocks(self.network)
        return not failed

    def _passes(self) -> Iterator[Tensor]:
        """Pixels of one pass, in each size that the training has in any epoch."""
        epochs, images = self.task.total / self.task.order.steps_per_epoch, self.task.run.recipe.images
        for size in sorted({images.at(epoch, epochs).size for epoch in range(math.ceil(epochs))}):
            yield self._zeros(size)

    def _zeros(self, size: int) -> Tensor:
        """Pixels of one pass, of black images."""
        shape = (max(2, self.task.order.part), size, size, 3)
        return self.task.normalize(torch.zeros(shape, dtype=torch.uint8, device=self.task.device)).float()

    def run(self) -> dict[str, Any]:
        """The run as its checkpoints record it: JSON, with the precision that was chosen."""
        found = self.task.run.model_dump(mode="json")
        return found | {"recipe": found["recipe"] | {"precision": self.precision}}

    def _distributed(self) -> DistributedDataParallel:
        """DDP around the network, which is as it was before."""
        scaling = self.task.run.scaling
        initial = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        # Batch norm statistics are rank 0's: broadcast before each evaluation, not in each step.
        model = DistributedDataParallel(
            self.network,
            **NO_BUFFERS,
            gradient_as_bucket_view=True,
            bucket_cap_mb=scaling.bucket_mb,
            static_graph=scaling.static_graph,
        )
        self._settle(model)
        copy_into(self.network, initial)
        return model

    def _settle(self, model: DistributedDataParallel) -> None:
        """Two passes without an update, so that DDP has rebuilt its buckets before the first step.

        It does so after its first pass: with three and more ranks a resumed run would add gradients in another order
        than the run that was never stopped, and differ in the last bit.
        """
        pixels = self._zeros(self.task.run.recipe.images.size)
        for _ in range(2):
            with autocast(self.task.device, self.precision):
                model(pixels).float().sum().backward()
        model.zero_grad(set_to_none=True)

    def _go_on(self, found: Checkpoint | None) -> Progress | None:
        """Take up rank 0's checkpoint on all ranks; how far it is."""
        sent: Tensors = {}
        if found is not None:
            sent = {f"model/{name}": tensor for name, tensor in found.model.items()}
            sent |= {f"rest/{name}": tensor for name, tensor in found.optimizer.items()}
        told: list[Any] = [found.progress if found else None]
        torch.distributed.broadcast_object_list(told, src=0)
        progress: Progress | None = told[0]
        if progress is None:
            return None
        parts: dict[str, Tensors] = {"model": {}, "rest": {}}
        for name, tensor in broadcast_tensors(sent, self.task.device).items():
            part, _, key = name.partition("/")
            parts[part][key] = tensor
        if progress.step == 0:  # what the run begins with; all but the weights is as it is made
            copy_into(self.network, parts["model"])
            if self.head is not None:
                self.head.to_unit()
            self.average = self.average and Average(self.network)
            return progress
        ended = progress.step == self.task.total or ends_early(progress.rows, self.task.run.recipe.selection)
        if ended:  # its average has become the network
            self.average = None
        restore_state(parts["model"], parts["rest"], self.network, self.optimizer, self.average, self.scaler)
        return progress

    # --- Steps --------------------------------------------------------------------------------------------------------

    def capture(self) -> None:
        """Replay steps from here on, where scaling.capture and a trial say so. ValueError: they must, and cannot."""

        def plain(batch: Draws, step: int, lr: float) -> Tensor:
            return self.step(*self.task.tensors(batch), 0, step, lr)

        def state() -> State:
            return changed_by_steps(self.network, self.optimizer, self.average)

        parts = StepParts(self.optimizer, plain, self._by_draws, self._share, state)
        self.replayed = replayed_steps(self.task, parts)

    def advance(
        self,
        batch: Batch | Draws,
        epoch: int,
        step: int,
        lr: float,
        look: Callable[[nn.Module, float], None] | None = None,
    ) -> Tensor:
        """One step with a batch of the task, as `step` makes it: a replay where there is one and nobody looks."""
        if self.replayed is not None and look is None and isinstance(batch, Draws):
            return self.replayed(batch, step, lr)
        return self.step(*self.task.tensors(batch), epoch, step, lr, look)

    def step(
        self,
        pixels: Tensor,
        labels: Tensor,
        epoch: int,
        step: int,
        lr: float,
        look: Callable[[nn.Module, float], None] | None = None,
    ) -> Tensor:
        """One step with this rank's part of a global batch, pass by pass. (3,) sums: loss, top-1 errors, examples.

        pixels: (N, 3, S, S); labels: (N,). Ranks may have different numbers of passes: DDP takes the mean over ranks,
        so a pass weighs its share of the batch times the number of ranks. look: called before the update with the
        network, which has its gradients, and with the loss scale.
        """
        set_lr(self.optimizer, lr)
        rng = np.random.default_rng((self.task.run.seed, epoch, step, 3))
        total = self._gradients(pixels, labels, draw_mix(rng, self.task.run.recipe.loss, pixels.shape[-1]))
        if look is not None:
            look(self.network, self.scaler.get_scale())
        if update(self.optimizer, self.scaler):
            self._follow(self._share(step))
        return total

    def _by_draws(self, draws: Tensor, share: Tensor) -> Tensor:
        """The same by the draws of a batch, without mixing: all is on the device, and the host is asked nothing."""
        assert not self.scaler.is_enabled(), "the host reads a loss scale"
        total = self._gradients(*self.task.made(draws), None)
        update(self.optimizer)
        self._follow(share)
        return total

    def _follow(self, share: float | Tensor) -> None:
        """After an update: rows of an angular classifier have length 1 again, and the average goes on."""
        if self.head is not None:
            self.head.to_unit()
        if self.average is not None:
            self.average.move(share)

    def _share(self, step: int) -> float:
        """The part of the way that the average goes to the weights after a step; 0 without an average."""
        ema = self.task.run.recipe.ema
        return 0.0 if ema is None else 1 - decay_at(step, ema)

    def _gradients(self, pixels: Tensor, labels: Tensor, drawn: Mix | None) -> Tensor:
        """Add up the gradients of this rank's part of a batch, pass by pass. (3,) sums. drawn: how images are mixed."""
        task, smoothing = self.task, self.task.run.recipe.loss.label_smoothing
        share = task.order.part * task.world_size / task.order.batch_size
        given = (share, self.precision, smoothing, self.scaler, self.class_weights, self.criterion)
        passes = list(zip(pixels.split(task.order.part), labels.split(task.order.part), strict=True))
        total = torch.zeros(3, dtype=torch.float64, device=task.device)
        for number, (x, y) in enumerate(passes, 1):
            x, target = (x, y) if drawn is None else mix(x, y, drawn)
            with self._alone() if number < len(passes) else contextlib.nullcontext():
                total += accumulate(self.model, x, target, *given)
        return total

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        """Within: gradients add up on this rank only."""
        return self.model.no_sync() if isinstance(self.model, DistributedDataParallel) else contextlib.nullcontext()

    # --- What comes out -----------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """After the last step the averaged weights are the network's."""
        if self.average is not None:
            copy_into(self.network, self.average.tensors)
            self.average = None
            if self.head is not None:
                self.head.to_unit()

    def take(self, weights: Tensors | None) -> None:
        """Weights that rank 0 has become the network of all ranks, after the last step. None: on other ranks."""
        copy_into(self.network, broadcast_tensors(weights or {}, self.task.device))
        self.average = None

    @contextlib.contextmanager
    def evaluated(self) -> Iterator[nn.Module]:
        """The network as it is judged: in evaluation mode, with averaged weights if there are, rank 0's statistics."""
        with self.average.applied(self.network) if self.average else contextlib.nullcontext():
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, src=0)
            self.network.eval()
            try:
                yield self.network
            finally:
                self.network.train()

    def tensors(self) -> tuple[Tensors, Tensors]:
        """(model, optimizer) for a checkpoint, copied to the host: nobody changes them any more."""
        model, rest = state_tensors(self.network, self.optimizer, self.average, self.scaler)
        return copied(model), copied(rest)


def broadcast_tensors(sent: Tensors, device: torch.device) -> Tensors:
    """Tensors of rank 0 on all ranks, on their devices."""
    told: list[Any] = [[(name, tuple(tensor.shape), tensor.dtype) for name, tensor in sent.items()]]
    torch.distributed.broadcast_object_list(told, src=0)
    found: Tensors = {}
    for name, shape, kind in told[0]:
        tensor = sent[name] if name in sent else torch.empty(shape, dtype=kind)
        found[name] = tensor.to(device)
        torch.distributed.broadcast(found[name], src=0)
    return found


def copied(tensors: Tensors) -> Tensors:
    """The same on the host, in memory of their own, laid out as files have them.

    To lay out channels_last weights takes torch's threads. Were it left to the thread that writes, that one would have
    threads of its own from then on, more than there are cores, and OpenMP puts those of the training to sleep at every
    barrier: a sixth of the steps (docs/decisions/engine.md).
    """
    laid = torch.contiguous_format
    return {name: tensor.detach().to("cpu", copy=True, memory_format=laid) for name, tensor in tensors.items()}
