"""Recipe: everything that decides the trained network, as one frozen, validated object.

`recipe("imagenet-resnet50-B@paper")` looks one up. The recipes are generated from the table of networks: `paper` from
two pages of the paper (sections 3.4 and 4.2), `90` is the common baseline of ImageNet, `fast` trades a little accuracy
for much time. JSON is the wire format: `recipe.model_dump_json()`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from resnet.networks import architectures
from resnet.recipes.settings import Frozen, Images, Loss, Optim, Schedule

Precision = Literal["auto", "float32", "bfloat16", "float16"]


class Recipe(Frozen):
    """What decides the trained network, but for the data and the seed."""

    network: Annotated[str, Field(description="a name of resnet.names(), e.g. cifar10-resnet56-A")]
    variant: Annotated[str, Field(description="paper, or another recipe of the same network")] = "paper"
    images: Images
    loss: Loss = Loss()
    optim: Optim = Optim()
    schedule: Schedule
    zero_init_last_bn: Annotated[
        bool, Field(description="every block starts as its shortcut: its last batch norm scales by 0")
    ] = False
    ema: Annotated[
        float | None,
        Field(gt=0, lt=1, description="decay a step of the moving average of the weights, which is what is evaluated"),
    ] = None
    bn_batch: Annotated[
        int | None,
        Field(
            ge=1,
            description="images of one pass through the network, over which batch norm normalises: the paper's 64 for "
            "CIFAR and 32 for ImageNet, whatever the number of workers. A worker adds the gradients of as many passes "
            "as its part of the batch needs. None: one pass with a worker's part, with 1:4 workers a quarter of the "
            "batch",
        ),
    ] = None
    precision: Annotated[
        Precision,
        Field(
            description="of the matrix products in training. auto: bfloat16 where the hardware multiplies it natively, "
            "and what a run began with where it goes on"
        ),
    ] = "auto"
    bn_examples: Annotated[
        int | None,
        Field(
            gt=0,
            description="training images over which batch norm's mean and variance are averaged after the training, "
            "as the authors did; None: the moving average of the training",
        ),
    ] = None
    epochs: Annotated[
        float | None,
        Field(gt=0, description="passes over the training set; takes the place of steps where both are given"),
    ] = None
    steps: Annotated[int | None, Field(gt=0, description="optimiser steps (the paper's iterations)")] = None

    @field_validator("network")
    @classmethod
    def _network_is_known(cls, value: str) -> str:
        return architectures.parse(value).name

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

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        if self.zero_init_last_bn and architectures.parse(self.network).shortcut == "none":
            raise ValueError(f"zero_init_last_bn must be False for {self.network}: without shortcuts its output is 0")
        if self.optim.batch_size % (self.bn_batch or 1):
            raise ValueError(f"bn_batch must divide optim.batch_size, {self.optim.batch_size}, got {self.bn_batch}")
        if self.bn_examples is not None and self.bn_examples < self.optim.batch_size:
            raise ValueError(
                f"bn_examples must be at least optim.batch_size, {self.optim.batch_size}, got {self.bn_examples}"
            )
        return self

    @property
    def passes(self) -> int:
        """Passes of a batch through the network that batch norm keeps apart: at most so many workers share it."""
        return self.optim.batch_size // (self.bn_batch or 1)

    @property
    def name(self) -> str:
        """The network's name, with the variant where it is not the paper's."""
        return self.network if self.variant == "paper" else f"{self.network}@{self.variant}"

    def steps_per_epoch(self, examples: int) -> int:
        """Whole batches of an epoch. examples: size of the training set."""
        return examples // self.optim.batch_size

    def total_steps(self, examples: int) -> int:
        """Optimiser steps of the training. examples: size of the training set."""
        per_epoch = self.steps_per_epoch(examples)
        if per_epoch == 0:
            raise ValueError(
                f"optim.batch_size must be at most the number of training images, {examples}, "
                f"got {self.optim.batch_size}"
            )
        if self.epochs is not None:
            return max(1, round(self.epochs * per_epoch))
        assert self.steps is not None  # the validator's promise
        return self.steps

    def bn_steps(self, examples: int) -> int:
        """Global batches, at most one epoch of them, that batch norm's statistics are computed over; 0: none."""
        return min(self.steps_per_epoch(self.bn_examples or 0), self.steps_per_epoch(examples))


def imagenet_paper(network: str) -> Recipe:
    """Section 3.4: scale jitter, PCA colour, batch 256, lr 0.1 reduced on plateaus, up to 60e4 iterations."""
    images = Images(
        size=224, policy="scale-jitter", shorter_side=(256, 480), flip=True, color="pca", eval_shorter_side=256
    )
    schedule = Schedule(kind="plateau", gamma=0.1, patience=5)
    # "A sufficiently large training batch" (the authors' release) is 200 batches here.
    return Recipe(
        network=network,
        images=images,
        optim=Optim(batch_size=256),
        schedule=schedule,
        bn_batch=32,  # 256 images on 8 GPUs: the authors' release
        bn_examples=51_200,
        steps=600_000,
    )


def cifar10_paper(network: str) -> Recipe:
    """Section 4.2: pad 4 and crop, batch 128, lr 0.1 divided by 10 at 32k and 48k of 64k iterations.

    110 layers and more start with lr 0.01 until the training error is below 80 %.
    """
    lr, error = (0.01, 80.0) if architectures.parse(network).depth >= 110 else (None, None)
    boundaries = (32_000 / 64_000, 48_000 / 64_000)
    schedule = Schedule(kind="step", milestones=boundaries, gamma=0.1, gentle_lr=lr, gentle_error=error)
    images = Images(size=32, policy="pad-crop", pad=4, flip=True)
    # 128 images on two GPUs, whose batch norms know nothing of each other
    optim = Optim(batch_size=128)
    return Recipe(network=network, images=images, optim=optim, schedule=schedule, bn_batch=64, steps=64_000)


def imagenet_90(network: str) -> Recipe:
    """The baseline that most others report for ResNet-50: 90 epochs of random resized crops, cosine (Goyal et al. 2017,
    He et al. 2018, arXiv 1812.01187): linear warm-up of 5 epochs, label smoothing, no decay of batch norm and bias.
    """
    images = Images(size=224, policy="random-resized-crop", area=(0.08, 1.0), eval_shorter_side=256, mean="per-channel")
    return Recipe(
        network=network,
        variant="90",
        images=images,
        loss=Loss(label_smoothing=0.1),
        optim=Optim(lr=0.1, lr_batch_size=256, batch_size=256, decay_norm_and_bias=False),
        schedule=Schedule(kind="cosine", warmup=5 / 90),
        epochs=90,
    )


def imagenet_90_step(network: str) -> Recipe:
    """`90` with lr divided by 10 after 30, 60 and 80 epochs in place of the cosine (Goyal et al. 2017, §5.1)."""
    schedule = Schedule(kind="step", milestones=(30 / 90, 60 / 90, 80 / 90), gamma=0.1, warmup=5 / 90)
    return imagenet_90(network).model_copy(update={"variant": "90-step", "schedule": schedule})


def imagenet_fast(network: str) -> Recipe:
    """A tenth of the work of `90`: 18 epochs of growing images, tested at a larger size. Large batch and lr, averaged
    weights.

    128 to 176 pixels cost 0.46 of 224 on average, and a network trained on random resized crops has seen objects larger
    than a test shows them: testing at 224 undoes that (arXiv 1906.06423).
    """
    images = Images(
        size=176,
        policy="random-resized-crop",
        area=(0.25, 1.0),
        eval_shorter_side=256,
        eval_size=224,
        resize=(128, 0.75),
        mean="per-channel",
    )
    return Recipe(
        network=network,
        variant="fast",
        images=images,
        loss=Loss(label_smoothing=0.1),
        optim=Optim(
            lr=0.5, lr_batch_size=256, batch_size=1024, weight_decay=5e-5, decay_norm_and_bias=False, nesterov=True
        ),
        schedule=Schedule(kind="cosine", warmup=2 / 18),
        zero_init_last_bn=has_shortcuts(network),
        ema=0.999,
        epochs=18,
    )


def cifar10_fast(network: str) -> Recipe:
    """A fifth of the paper's epochs: larger batch, lr and decay, cosine, label smoothing, averaged weights."""
    return Recipe(
        network=network,
        variant="fast",
        images=Images(size=32, policy="pad-crop", pad=4, flip=True),
        loss=Loss(label_smoothing=0.1),
        optim=Optim(
            lr=0.2, lr_batch_size=128, batch_size=512, weight_decay=5e-4, decay_norm_and_bias=False, nesterov=True
        ),
        schedule=Schedule(kind="cosine", warmup=5 / 32),
        zero_init_last_bn=has_shortcuts(network),
        ema=0.995,
        epochs=32,
    )


def has_shortcuts(network: str) -> bool:
    """Whether blocks add their input: what zero_init_last_bn needs."""
    return architectures.parse(network).shortcut != "none"


VARIANTS: dict[tuple[str, str], Callable[[str], Recipe]] = {
    ("imagenet", "paper"): imagenet_paper,
    ("imagenet", "90"): imagenet_90,
    ("imagenet", "90-step"): imagenet_90_step,
    ("imagenet", "fast"): imagenet_fast,
    ("cifar10", "paper"): cifar10_paper,
    ("cifar10", "fast"): cifar10_fast,
}


def recipe(name: str) -> Recipe:
    """The recipe called `<network>[@<variant>]`, e.g. imagenet-resnet50-B@paper. ValueError names what is allowed."""
    network, _, variant = name.partition("@")
    parsed = architectures.parse(network)
    variant = variant or "paper"
    allowed = [v for family, v in VARIANTS if family == parsed.family]
    if variant not in allowed:
        raise ValueError(f"recipe variant must be one of {', '.join(allowed)} for {parsed.family}, got {variant!r}")
    return VARIANTS[parsed.family, variant](parsed.name)
