"""Results of finished trainings as JSON: the rows in results/trainings that the report is written from. No torch here.

A file *.json of the folder holds one row or a list of rows. pipelines/reports/collected_rows.py makes them from runs of
the cluster (engine "ray"); benchmarks/training/single.py, which trains the same recipes in one process without Ray,
writes its own (engine "single"), and so does benchmarks/training/plain_torch.py, with torch's loader (engine "torch"):

    {"recipe": {"network": "cifar10-resnet20-A", ...}, "seed": 0, "engine": "ray", "commit": "07c0fcd...",
     "hardware": "2 cores, ...", "data": {"name": "cifar10", "sha256": "...", "train": 50000, "val": 10000},
     "steps": 6400, "total": 6400, "seconds": 812.5, "protocol": "single", "top1_error": 9.1, "top5_error": 0.4,
     "train_error": 2.0, "curve": [[390, 0.1, 1.62, 59.8, 51.3], ...], "evaluations": [], "responses": [],
     "cpu_seconds": 1590.1, "conditions": [{"hardware": ..., "precision": "bfloat16", "bn_batch": 64, ...}],
     "final": {"train_error": 1.2, "top1_error": 9.08, ...}, "norms": [{"step": 0, "loss": 2.34, "layers": {...}}, ...]}

Rows of before November 27, 2026 lack what the last two lines have: nothing is known of it. Errors are in percent. A row
names no path of the machine that made it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, model_validator

from resnet.evaluation.error_summary import Response
from resnet.evaluation.final_test import FinalTest, Percent
from resnet.evaluation.views import ViewProtocol
from resnet.frozen import Frozen, sentence
from resnet.networks.architectures import FAMILIES, parse_network
from resnet.recipes.named import recipe
from resnet.recipes.recipe import Recipe
from resnet.training.conditions import Conditions
from resnet.training.gradient_norms import LayerNorms

# Images of the paper's training and test sets, and what data sets of that size may be called.
GENTLE = ("gentle_lr", "gentle_error")  # of the schedule: what section 4.2 changes for 110 layers and more
GAINS = ("evaluations", "responses", "note")  # what a row may be given after its training has ended


class DataSet(Frozen):
    """The data set of a training. sha256: tells equal data from other data; train, val: images, None where unknown."""

    name: str
    sha256: str
    train: int | None = None
    val: int | None = None


class CurveRow(NamedTuple):
    """One epoch: steps done, lr, mean loss and error of its training steps, validation error; errors in percent."""

    step: int
    lr: float
    train_loss: float
    train_error: float
    top1_error: float | None


class Evaluated(Frozen):
    """The errors of the trained network by another protocol, e.g. 10-crop. mirror: mirror images were averaged too."""

    protocol: ViewProtocol
    top1_error: Percent
    top5_error: Percent
    examples: int
    precision: str
    mirror: bool = False


class ResultRow(Frozen):
    """A finished training of a recipe with a seed.

    steps, total: done, and of the whole schedule; seconds, cpu_seconds: of the training's steps, wall time and CPU time
    of all workers; protocol: of top1_error and top5_error, in percent of all validation images after the last step, in
    the training's precision; train_error: running error of the last whole epoch's augmented images; final: the finished
    network on both splits, in float32; conditions: of each start; norms: of gradients and weights at a few steps;
    init, init_sha256: name and hash of the file with the trained weights that it began with, None: random ones; note:
    what a reader must know.
    """

    recipe: Recipe
    seed: Annotated[int, Field(ge=0)]
    engine: Literal["ray", "single", "torch"]
    commit: str
    hardware: str
    data: DataSet
    steps: Annotated[int, Field(gt=0)]
    total: Annotated[int, Field(gt=0)]
    seconds: float | None = None
    protocol: ViewProtocol
    top1_error: Percent
    top5_error: Percent
    train_error: Percent
    curve: tuple[CurveRow, ...] = ()
    evaluations: tuple[Evaluated, ...] = ()
    responses: tuple[Response, ...] = ()
    cpu_seconds: float | None = None
    conditions: tuple[Conditions, ...] = ()
    final: FinalTest | None = None
    norms: tuple[LayerNorms, ...] = ()
    init: str | None = None
    init_sha256: str | None = None
    note: str = ""

    @model_validator(mode="after")
    def _training_is_finished(self) -> Self:
        if self.steps != self.total:
            raise ValueError(f"steps must be total, {self.total}, in a finished training, got {self.steps}")
        return self

    @property
    def name(self) -> str:
        """Recipe and seed, e.g. imagenet-resnet34-C.s0."""
        return f"{self.recipe.name}.s{self.seed}"

    @property
    def precision(self) -> str | None:
        """Of the matrix products in training; None: not recorded."""
        return self.conditions[-1].precision if self.conditions else None

    @property
    def bn_batch(self) -> int | None:
        """Images over which batch norm normalised in training; None: not recorded."""
        return self.conditions[-1].bn_batch if self.conditions else None

    @property
    def is_papers_schedule(self) -> bool:
        """True if the recipe is the paper's to the last field, and so the schedule's length; whatever the precision."""
        return self.recipe.model_copy(update={"precision": "auto"}) == recipe(self.recipe.network)

    @property
    def is_papers_data(self) -> bool:
        """True if the data are the paper's, by their name and the numbers of images."""
        family = parse_network(self.recipe.network).family
        named = family != "cifar10" or self.data.name == "cifar10"
        return named and (self.data.train, self.data.val) == FAMILIES[family].examples

    @property
    def is_papers_setting(self) -> bool:
        """True if the figures may stand beside the paper's."""
        return self.is_papers_schedule and self.is_papers_data

    @property
    def aspects(self) -> dict[str, Any]:
        """All settings that decide a figure beside network and seed, by name, as JSON has them.

        recipe: fields that are not the defaults, so that a field that a later version adds leaves older rows where they
        are. gentle_start: "the paper's", which has one for 110 layers and more, or its lr and training error.
        """
        schedule, papers = self.recipe.schedule, recipe(self.recipe.network).schedule
        gentle = [getattr(schedule, name) for name in GENTLE]
        own = gentle == [getattr(papers, name) for name in GENTLE]
        apart: dict[str, Any] = {"network": True, "precision": True, "bn_batch": True}
        apart |= {"images": {"border", "color"}, "schedule": set(GENTLE)}
        shared = self.recipe.model_dump(mode="json", exclude=apart, exclude_defaults=True)
        begun = {} if self.init_sha256 is None else {"init": self.init_sha256}
        return begun | {
            "family": parse_network(self.recipe.network).family,
            "recipe": shared,
            "gentle_start": "the paper's" if own else gentle,
            "border": self.recipe.images.border,
            "color": self.recipe.images.color,
            "steps": self.total,
            "data": self.data.sha256,
            "engine": self.engine,
            "precision": self.precision,
            "bn_batch": self.bn_batch,
        }

    @property
    def setting(self) -> str:
        """Two rows with the same setting differ in network and seed only: their figures can be compared."""
        return json.dumps(self.aspects, sort_keys=True)

    @property
    def file_name(self) -> str:
        """A name for the row's file that no other row has: run, and a hash of setting."""
        return f"{self.name}-{hashlib.sha256(self.setting.encode()).hexdigest()[:8]}.json"

    def errors(self, protocol: str) -> tuple[float, float] | None:
        """Top-1 and top-5 error by a protocol, in float32 where that is known; None if it was not evaluated so."""
        found = [e for e in self.evaluations if e.protocol == protocol and not e.mirror]
        found.sort(key=lambda evaluated: evaluated.precision == "float32")  # the last of them counts
        if found and found[-1].precision == "float32":
            return found[-1].top1_error, found[-1].top5_error
        if protocol == self.protocol and self.final is not None:
            return self.final.top1_error, self.final.top5_error
        if protocol == self.protocol:
            return self.top1_error, self.top5_error
        return (found[-1].top1_error, found[-1].top5_error) if found else None


def read_results(folder: str | os.PathLike[str]) -> tuple[ResultRow, ...]:
    """All rows of a folder, in the order of the files' names. ValueError names a file that holds none."""
    if not Path(folder).is_dir():
        raise ValueError(f"results must be a folder with rows of finished trainings, got {folder}")
    return tuple(row for path in sorted(Path(folder).glob("*.json")) for row in _read(path))


def _read(path: Path) -> tuple[ResultRow, ...]:
    try:
        found: Any = json.loads(path.read_bytes())
        return tuple(ResultRow.model_validate(row) for row in (found if isinstance(found, list) else [found]))
    except ValidationError as error:
        raise ValueError(f"{path}: {sentence(error)}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def write_results(folder: str | os.PathLike[str], rows: Sequence[ResultRow]) -> tuple[Path, ...]:
    """Write each row into a file of its own. What was evaluated later stays; the file of another training goes."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = []
    for row in rows:
        path = Path(folder) / row.file_name
        part = path.with_suffix(".part")
        part.write_text(text(_with_gains(row, path)) + "\n")
        part.replace(path)
        paths.append(path)
    return tuple(paths)


def _with_gains(row: ResultRow, path: Path) -> ResultRow:
    """The row, with what the file's row has gained since the same training ended."""
    if not path.exists():
        return row
    empty = {name: ResultRow.model_fields[name].default for name in GAINS}
    for old in _read(path):
        if old.model_copy(update=empty) == row.model_copy(update=empty):
            return row.model_copy(update={name: getattr(row, name) or getattr(old, name) for name in GAINS})
    return row


def text(row: ResultRow) -> str:
    """A row as JSON that a person can read and git can compare: a field a line, an epoch a line."""
    fields = row.model_dump(mode="json")
    lines = [
        f"  {json.dumps(name)}: {_lines(value) if _is_table(value) else json.dumps(value)}"
        for name, value in fields.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}"


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _lines(rows: list[Any]) -> str:
    return "[\n" + ",\n".join(f"    {json.dumps(row)}" for row in rows) + "\n  ]"
