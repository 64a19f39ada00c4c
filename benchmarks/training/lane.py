"""One training of a CIFAR-10 recipe on one device by resnet/ alone: no Ray, no Arrow.

The set lies on the device as bytes; crops and mirror images are made there, from draws that are the engine's own. The
order of examples, the first weights, the schedule and the arithmetic of a step are the engine's too: on a CPU, with one
worker and float32 or bfloat16, a lane and the engine give the same numbers to the last bit.

Lanes run side by side: a lane is a generator that yields whenever it has given its device enough to do.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.training.cifar import CLASSES
from benchmarks.training.resident import Plan, Resident, plan
from benchmarks.training.stepper import AHEAD, Options, Stepper, table
from pipelines.stream.example_order import WINDOW, Order
from resnet.evaluation.error_summary import Ranked, percent_wrong
from resnet.evaluation.final_test import FinalTest, packed
from resnet.image_class import ImageClass
from resnet.paper.result_rows import CurveRow
from resnet.recipes.recipe import Recipe
from resnet.recipes.recipe_settings import FineTuning, Selection
from resnet.training import batch_norm_statistics
from resnet.training.checkpoint import Checkpoint, EpochRow, Progress, load_checkpoint, save_checkpoint
from resnet.training.checkpoint_tensors import restore_state, state_tensors
from resnet.training.conditions import Conditions, conditions
from resnet.training.finite_loss import require_finite
from resnet.training.gradient_norms import LayerNorms, is_watched, layer_norms
from resnet.training.lr_schedule import EpochErrors, lr_at
from resnet.training.step import eval_step
from resnet.training.weight_average import copy_into

EVAL_BATCH = 1000


def require_trainable(recipe: Recipe) -> None:
    """ValueError for what a lane does not do."""
    if recipe.images.policy != "pad-crop":
        raise ValueError(f"images.policy must be pad-crop for CIFAR-10 in memory, got {recipe.images.policy}")
    if recipe.loss.mixup is not None or recipe.loss.cutmix is not None:
        raise ValueError("loss.mixup and loss.cutmix must be None here: the engine on Ray mixes images")
    plain = {"finetune": FineTuning(), "selection": Selection()}
    for field, default in plain.items():
        if getattr(recipe, field) != default:
            raise ValueError(f"{field} must be the default here, got {getattr(recipe, field)}")
    if recipe.loss.class_weights or recipe.loss.is_angular or recipe.images.turns or recipe.images.mean == "given":
        raise ValueError("loss.class_weights, loss.kind arcface, images.turns and mean given are for the engine on Ray")


class Lane:
    """A recipe and a seed in training. folder: where its checkpoint is; what it holds is gone on with."""

    def __init__(self, recipe: Recipe, seed: int, resident: Resident, options: Options, folder: Path | None) -> None:
        require_trainable(recipe)
        self.recipe, self.seed, self.resident, self.options, self.folder = recipe, seed, resident, options, folder
        self.order = Order(resident.data.train.rows, recipe.optim.batch_size, WINDOW, seed)
        self.spe, self.total = self.order.steps_per_epoch, recipe.total_steps(resident.examples)
        self.stepper = Stepper(recipe, seed, resident, options)
        self.network = self.stepper.network
        self.step, self.seconds, self.cpu_seconds = 0, 0.0, 0.0
        self.norms: tuple[LayerNorms, ...] = ()
        self.conditions: tuple[Conditions, ...] = ()
        self.curve: list[CurveRow] = []
        self.rows: list[EpochRow] = []
        self._coming: tuple[int, Future[Plan]] | None = None
        self._go_on()

    @property
    def name(self) -> str:
        """Recipe and seed, e.g. cifar10-resnet20-A.s0."""
        return f"{self.recipe.name}.s{self.seed}"

    # --- The training -------------------------------------------------------------------------------------------------

    def train(self) -> Iterator[bool]:
        """Train to the end. Yields True after work was given to the device, False where it has enough."""
        if self.step < self.total:
            if self.options.is_cuda:
                self._begin(*divmod(self.step, self.spe))
                self.stepper.capture()
            self._note_conditions()
        saved = since = time.monotonic()
        self._cpu_since = time.process_time()
        while self.step < self.total:
            epoch, first = divmod(self.step, self.spe)
            last = min(self.total, (epoch + 1) * self.spe)
            self._begin(epoch, first)
            while self.step < last:
                look = self._look if is_watched(self.step, self.total) else None
                self.stepper.enqueue(look)
                self.step += 1
                yield True
                yield from self.stepper.until(AHEAD)
                if time.monotonic() - saved > self.options.save_every and self.step < last:
                    yield from self.stepper.drained()
                    since = self._clock(since)
                    self.save()
                    saved = time.monotonic()
            yield from self.stepper.drained()
            since = self._clock(since)
            self._end(epoch)
            yield from self.stepper.drained()  # of an evaluation
            since = self._clock(since)
            if self.step == self.total:
                self.save()

    def _note_conditions(self) -> None:
        """Write down what is trained on from here, where it is not as before."""
        found = conditions(
            self.options.device,
            step=self.step,
            world_size=1,
            precision=self.stepper.precision,
            bn_batch=self.recipe.bn_batch or self.recipe.optim.batch_size,
            versions={},
            compiled=self.options.compiled,
            captured=self.stepper.captured is not None,
        )
        if not (self.conditions and found.is_as(self.conditions[-1])):
            self.conditions = (*self.conditions, found)

    def _look(self, network: nn.Module, sums: Tensor) -> None:
        """Record the norms of a step, before its update."""
        loss, _, count = sums.tolist()
        self.norms = (*self.norms, LayerNorms(step=self.step, loss=loss / count, layers=layer_norms(network)))

    def _clock(self, since: float) -> float:
        now, cpu = time.monotonic(), time.process_time()
        self.seconds += now - since
        self.cpu_seconds, self._cpu_since = self.cpu_seconds + cpu - self._cpu_since, cpu
        return now

    def _begin(self, epoch: int, first: int) -> None:
        """Lay the epoch's plan on the device, and have the next one made meanwhile."""
        known = self._coming if self._coming and self._coming[0] == epoch else (epoch, self._planned(epoch))
        now = known[1].result()
        self._coming = (epoch + 1, self._planned(epoch + 1))
        history = [EpochErrors(r.step, r.train_error, _nan(r.top1_error)) for r in self.curve]
        steps = range(epoch * self.spe, (epoch + 1) * self.spe)
        lrs = [lr_at(step, self.total, self.recipe.optim, self.recipe.schedule, history) for step in steps]
        self.stepper.load(now, lrs, steps.start, first)

    def _planned(self, epoch: int) -> Future[Plan]:
        return self.resident.planners.submit(plan, self.order, self.recipe.images, epoch)

    def _end(self, epoch: int) -> None:
        """Close an epoch: its row, with validation where it is due."""
        self._require_finite(epoch)
        loss, wrong, count = self.stepper.sums.tolist()
        last = self.step == self.total
        lr, every = self.stepper.lrs[(self.step - 1) % self.spe], self.options.evaluate_every
        due = last or (epoch + 1) % every == 0 or self.recipe.schedule.kind == "plateau"
        if last:
            self._finish(epoch)
        val = self._evaluate() if due else None
        row = CurveRow(self.step, lr, loss / count, 100 * wrong / count, 100 * val[1] / val[3] if val else None)
        self.curve.append(row)
        if val:
            self.rows.append(
                EpochRow(
                    epoch=epoch,
                    step=self.step,
                    lr=lr,
                    train_loss=row.train_loss,
                    train_error=row.train_error,
                    val_loss=val[0] / val[3],
                    top1_error=100 * val[1] / val[3],
                    top5_error=100 * val[2] / val[3],
                    seconds=self.seconds,
                    images_per_second=self.step * self.recipe.optim.batch_size / max(self.seconds, 1e-9),
                )
            )
        with self.stepper.on_stream():
            self.stepper.sums.zero_()

    def _require_finite(self, epoch: int) -> None:
        """NotFinite, with what is known of the first bad step. Comes before each save: bad weights are never kept."""
        inside = int(self.stepper.bad)
        if inside >= 0:
            ids = self.stepper.draws[inside, :, 0].tolist()
            last = str(checkpoints[-1]) if (checkpoints := self._saved()) else None
            require_finite(self.stepper.sums, epoch * self.spe + inside, self.stepper.lrs[inside], ids, last)

    @torch.no_grad()
    def _evaluate(self) -> list[float]:
        """Sums over the test set: loss, top-1 errors, top-5 errors, examples."""
        average = None if self.step == self.total else self.stepper.average  # at the end the network has it already
        averaged = average.applied(self.network) if average else contextlib.nullcontext()
        with self.stepper.on_stream(), averaged:
            self.network.eval()
            sums = torch.zeros(4, dtype=torch.float64, device=self.options.device)
            images, labels = (t.split(EVAL_BATCH) for t in (self.resident.val_images, self.resident.val_labels))
            for x, y in zip(images, labels, strict=True):
                sums += eval_step(self.network, self.stepper.normalize(x), y, self.stepper.precision)
            self.network.train()
            return sums.tolist()

    @torch.inference_mode()
    def final_test(self) -> FinalTest:
        """The finished network on both splits, in float32; predictions.npz beside its checkpoint."""
        self.network.eval()
        with self.stepper.on_stream():
            train = self._ranked(self.resident.train_images, self.resident.labels)
            val = self._ranked(self.resident.val_images, self.resident.val_labels)
        self.network.train()
        stream = io.BytesIO()
        np.savez_compressed(stream, label=val.labels, top=val.top, score=val.scores.astype(np.float32))
        if self.folder is not None:
            (self.folder / "predictions.npz").write_bytes(stream.getvalue())
        right = val.top == val.labels[:, None]
        return FinalTest(
            train_error=percent_wrong(train.top[:, 0] == train.labels),
            train_examples=len(train.labels),
            top1_error=percent_wrong(right[:, 0]),
            top5_error=percent_wrong(np.any(right, axis=1)),
            examples=len(val.labels),
            predictions_sha256=hashlib.sha256(stream.getvalue()).hexdigest(),
            right=packed(right[:, 0]),
        )

    def _ranked(self, images: Tensor, labels: Tensor) -> Ranked:
        """The network's output for uint8 images."""
        parts = images.split(EVAL_BATCH)
        scores = [self.network(self.stepper.normalize(x)).double().softmax(1).cpu().numpy() for x in parts]
        return Ranked.of(np.concatenate(scores), labels.cpu().numpy())

    def _finish(self, epoch: int) -> None:
        """After the last step: the averaged weights are the network's, batch norm's statistics are made exact."""
        with self.stepper.on_stream():
            if self.stepper.average is not None:
                copy_into(self.network, self.stepper.average.tensors)
            if steps := self.recipe.bn_steps(self.resident.examples):
                sums = batch_norm_statistics.statistics(
                    self.network, self._fresh(epoch + 1, steps), self.stepper.precision
                )
                batch_norm_statistics.set_statistics(self.network, sums)

    def _fresh(self, epoch: int, steps: int) -> Iterator[Tensor]:
        """Batches of an epoch that was not trained on."""
        draws = torch.from_numpy(table(plan(self.order, self.recipe.images, epoch))).to(self.options.device)
        for step in range(steps):
            yield self.stepper.batch(draws[step])[0]

    # --- Checkpoints --------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the state, and remove the one before. The stream must be drained."""
        if self.folder is None:
            return
        self._require_finite((self.step - 1) // self.spe)
        target = self.folder / f"step-{self.step:08d}"
        if target.exists():
            return
        finished = self.step == self.total
        model, rest = state_tensors(self.network, self.stepper.optimizer, None if finished else self.stepper.average)
        progress = Progress(
            step=self.step,
            total_steps=self.total,
            examples=len(self.resident.data.val.labels),
            classes=tuple(ImageClass(id=i, wnid=name, name=name) for i, name in enumerate(CLASSES)),
            rows=tuple(self.rows),
            sums=tuple(self.stepper.sums.tolist()),
            seconds=self.seconds,
            cpu_seconds=self.cpu_seconds,
            conditions=self.conditions,
            norms=self.norms,
        )
        pixels = {"mean": self.stepper.normalize.mean, "std": self.stepper.normalize.std}
        run = self._identity() | {"curve": [list(row) for row in self.curve]}
        before = self._saved()
        save_checkpoint(target, Checkpoint(model=model, optimizer=rest, pixels=pixels, run=run, progress=progress))
        for old in before:
            shutil.rmtree(old)

    def _identity(self) -> dict[str, Any]:
        """The settings that a checkpoint must agree with."""
        recipe = self.recipe.model_dump(mode="json")
        return {"recipe": recipe, "seed": self.seed, "engine": "single", "data_sha256": self.resident.data.sha256}

    def _saved(self) -> list[Path]:
        """Checkpoints, the oldest first."""
        found = self.folder.glob("step-????????") if self.folder and self.folder.is_dir() else ()
        return sorted(found)

    def _go_on(self) -> None:
        """Take up the newest checkpoint, if there is one. ValueError: it is of another recipe or of other data."""
        saved = self._saved()
        if not saved:
            return
        found = load_checkpoint(saved[-1])
        for field, wanted in self._identity().items():
            if found.run.get(field) != wanted:
                raise ValueError(f"{field} of {self.folder} must be as in the run that is there; give another --out")
        finished = found.progress.step == self.total
        average = None if finished else self.stepper.average
        restore_state(found.model, found.optimizer, self.network, self.stepper.optimizer, average)
        self.step, self.seconds, self.rows = found.progress.step, found.progress.seconds, list(found.progress.rows)
        self.cpu_seconds = found.progress.cpu_seconds
        self.conditions, self.norms = found.progress.conditions, found.progress.norms
        self.curve = [CurveRow(*row) for row in found.run["curve"]]
        self.stepper.sums.copy_(torch.tensor(found.progress.sums, dtype=torch.float64))

    def stop(self) -> None:
        """End early, at a step that the next start goes on from."""
        self.stepper.synchronize()
        closed = bool(self.curve) and self.curve[-1].step == self.step
        if self.step and not closed and (self.step % self.spe == 0 or self.step == self.total):
            self._end((self.step - 1) // self.spe)
        if self.step:
            self.save()


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
