"""Recipe: everything that decides the trained network, as one frozen, validated object.

`recipe("imagenet-resnet50-B@paper")` looks one up; RECIPES in the paper's tables are generated from the table of
networks and two pages of the paper (sections 3.4 and 4.2). JSON is the wire format: `recipe.model_dump_json()`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from resnet import table


class Frozen(BaseModel):
    """An immutable model that refuses unknown fields, and says in one sentence what is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise ValueError(sentence(error)) from None


def sentence(error: ValidationError) -> str:
    """The first mistake that pydantic found: field, what is allowed, what was given."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"]
    if first["type"] == "value_error":  # our own words, which name the value
        message = message.removeprefix("Value error, ")
        return f"{field}{'.' if field and message.split()[0].isidentifier() else ' '}{message}".strip()
    if first["type"] == "extra_forbidden":
        return f"{field} is no field of {error.title}"
    if first["type"] == "missing":
        return f"{field} of {error.title} is missing"
    return f"{field} {message.replace('Input should', 'must')}, got {first['input']!r}"


class Images(Frozen):
    """What happens to an image between the shard and the network. Lengths are in pixels."""

    size: Annotated[int, Field(ge=8, le=1024, description="side of the square that the network sees")]
    policy: Annotated[
        Literal["scale-jitter", "random-resized-crop", "pad-crop"],
        Field(
            description="training crop: the paper's for ImageNet, the common one, the paper's for CIFAR. pad-crop "
            "brings every image to size x size once and keeps the set in memory"
        ),
    ]
    shorter_side: Annotated[
        tuple[int, int] | None,
        Field(description="scale-jitter: range of the shorter side, given for size 224 and scaled with size"),
    ] = None
    area: Annotated[
        tuple[float, float] | None, Field(description="random-resized-crop: range of the crop's share of the image")
    ] = None
    pad: Annotated[int | None, Field(description="pad-crop: pixels of zeros on every side before the crop")] = None
    flip: Annotated[bool, Field(description="mirror half of the training images")] = True
    color: Annotated[Literal["none", "pca"], Field(description="pca: AlexNet's colour augmentation")] = "none"
    eval_shorter_side: Annotated[
        int | None, Field(description="shorter side before the centre crop in evaluation, given for size 224")
    ] = None
    mean: Annotated[
        Literal["per-pixel", "per-channel"], Field(description="mean that is subtracted, of the training set")
    ] = "per-pixel"

    @model_validator(mode="after")
    def _policy_has_its_own_fields(self) -> Self:
        owner = {"shorter_side": "scale-jitter", "area": "random-resized-crop", "pad": "pad-crop"}
        for field, policy in owner.items():
            given = getattr(self, field) is not None
            if given and self.policy != policy:
                raise ValueError(f"{field} has an effect with policy {policy} only, got policy {self.policy}")
            if not given and self.policy == policy:
                raise ValueError(f"policy {policy} needs {field}")
        if (self.eval_shorter_side is None) != (self.policy == "pad-crop"):
            raise ValueError("eval_shorter_side is for scale-jitter and random-resized-crop, and needed there")
        if self.policy == "pad-crop" and self.color != "none":
            raise ValueError(f"color has an effect with streamed policies only, got {self.color} with pad-crop")
        return self

    @field_validator("shorter_side", "area")
    @classmethod
    def _range_is_ordered(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 < value[0] <= value[1]:
            raise ValueError(f"must be two positive numbers, the smaller first, got {value[0]} {value[1]}")
        return value

    def scaled(self, pixels: int) -> int:
        """A length given for a crop of 224 pixels, for this crop."""
        return round(pixels * self.size / 224)


class Optim(Frozen):
    """Stochastic gradient descent with momentum (sections 3.4 and 4.2)."""

    lr: Annotated[float, Field(gt=0, description="learning rate at the start, for the whole batch")] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    decay_norm_and_bias: Annotated[
        bool, Field(description="weight decay on batch norm and bias too, as in 2015; the common practice is not to")
    ] = True
    batch_size: Annotated[int, Field(ge=1, description="images of one step over all workers")] = 256


class Schedule(Frozen):
    """The learning rate as a function of the step. Times are fractions of the whole training."""

    kind: Annotated[
        Literal["step", "plateau", "cosine"],
        Field(description="step: lr x gamma at each milestone; plateau: when the error stops falling; cosine: to zero"),
    ] = "step"
    milestones: Annotated[tuple[float, ...], Field(description="step: fractions of the training")] = ()
    gamma: Annotated[float | None, Field(gt=0, lt=1, description="step and plateau: factor of each reduction")] = None
    patience: Annotated[
        int | None, Field(ge=1, description="plateau: epochs without a lower error before lr is reduced")
    ] = None
    warmup: Annotated[float, Field(ge=0, lt=1, description="linear warm-up from zero, fraction of the training")] = 0.0
    gentle_lr: Annotated[
        float | None,
        Field(gt=0, description="lr until the training error falls below gentle_error: section 4.2, 110 layers"),
    ] = None
    gentle_error: Annotated[float | None, Field(gt=0, lt=100, description="training error in percent")] = None

    @model_validator(mode="after")
    def _kind_has_its_own_fields(self) -> Self:
        needs = {"step": {"milestones", "gamma"}, "plateau": {"patience", "gamma"}, "cosine": set()}[self.kind]
        for field in ("milestones", "gamma", "patience"):
            given = getattr(self, field) not in (None, ())
            if given and field not in needs:
                raise ValueError(f"{field} has no effect with kind {self.kind}")
            if not given and field in needs:
                raise ValueError(f"kind {self.kind} needs {field}")
        if any(not 0 < m < 1 for m in self.milestones) or list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise between 0 and 1, got {self.milestones}")
        if (self.gentle_lr is None) != (self.gentle_error is None):
            raise ValueError("gentle_lr and gentle_error go together")
        return self


class Recipe(Frozen):
    """What decides the trained network, but for the data and the seed."""

    network: Annotated[str, Field(description="a name of resnet.names(), e.g. cifar10-resnet56-A")]
    variant: Annotated[str, Field(description="paper, or another recipe of the same network")] = "paper"
    images: Images
    optim: Optim = Optim()
    schedule: Schedule
    epochs: Annotated[
        float | None,
        Field(gt=0, description="passes over the training set; takes the place of steps where both are given"),
    ] = None
    steps: Annotated[int | None, Field(gt=0, description="optimiser steps (the paper's iterations)")] = None

    @field_validator("network")
    @classmethod
    def _network_is_known(cls, value: str) -> str:
        return table.parse(value).name

    @model_validator(mode="before")
    @classmethod
    def _epochs_win(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("epochs") is not None:
            return {**values, "steps": None}
        return values

    @model_validator(mode="after")
    def _has_a_length(self) -> Self:
        if self.epochs is None and self.steps is None:
            raise ValueError("one of epochs and steps is needed")
        return self

    @property
    def name(self) -> str:
        """The network's name, with the variant where it is not the paper's."""
        return self.network if self.variant == "paper" else f"{self.network}@{self.variant}"

    def total_steps(self, examples: int) -> int:
        """Optimiser steps of the training. examples: size of the training set."""
        per_epoch = examples // self.optim.batch_size
        if per_epoch == 0:
            raise ValueError(
                f"optim.batch_size must be at most the number of training images, {examples}, "
                f"got {self.optim.batch_size}"
            )
        if self.epochs is not None:
            return max(1, round(self.epochs * per_epoch))
        assert self.steps is not None  # the validator's promise
        return self.steps


def imagenet_paper(network: str) -> Recipe:
    """Section 3.4: scale jitter, PCA colour, batch 256, lr 0.1 reduced on plateaus, up to 60e4 iterations."""
    images = Images(
        size=224, policy="scale-jitter", shorter_side=(256, 480), flip=True, color="pca", eval_shorter_side=256
    )
    schedule = Schedule(kind="plateau", gamma=0.1, patience=5)
    return Recipe(network=network, images=images, optim=Optim(batch_size=256), schedule=schedule, steps=600_000)


def cifar10_paper(network: str) -> Recipe:
    """Section 4.2: pad 4 and crop, batch 128, lr 0.1 divided by 10 at 32k and 48k of 64k iterations.

    110 layers and more start with lr 0.01 until the training error is below 80 %.
    """
    lr, error = (0.01, 80.0) if table.parse(network).depth >= 110 else (None, None)
    boundaries = (32_000 / 64_000, 48_000 / 64_000)
    schedule = Schedule(kind="step", milestones=boundaries, gamma=0.1, gentle_lr=lr, gentle_error=error)
    images = Images(size=32, policy="pad-crop", pad=4, flip=True)
    return Recipe(network=network, images=images, optim=Optim(batch_size=128), schedule=schedule, steps=64_000)


VARIANTS: dict[tuple[str, str], Callable[[str], Recipe]] = {
    ("imagenet", "paper"): imagenet_paper,
    ("cifar10", "paper"): cifar10_paper,
}


def recipe(name: str) -> Recipe:
    """The recipe called `<network>[@<variant>]`, e.g. imagenet-resnet50-B@paper. ValueError names what is allowed."""
    network, _, variant = name.partition("@")
    parsed = table.parse(network)
    variant = variant or "paper"
    allowed = [v for family, v in VARIANTS if family == parsed.family]
    if variant not in allowed:
        raise ValueError(f"recipe variant must be one of {', '.join(allowed)} for {parsed.family}, got {variant!r}")
    return VARIANTS[parsed.family, variant](parsed.name)
