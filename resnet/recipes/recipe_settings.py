"""The parts of a recipe: images, optimiser, schedule, fine-tuning. Frozen, validated, no torch here.

A field that would have no effect is refused, so that a recipe says what was done and nothing else.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from resnet.frozen import FrozenSettings

Interpolation = Literal["bilinear", "bicubic"]
RESIZE_STEP = 16  # pixels; progressive resizing changes the size in such steps, so that few shapes are compiled


class Images(FrozenSettings):
    """Processing of an image between the shard and the network. Lengths are in pixels."""

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
    pad: Annotated[int | None, Field(description="pad-crop: pixels added on every side before the crop")] = None
    flip: Annotated[bool, Field(description="mirror half of the training images")] = True
    border: Annotated[
        Literal["black", "mean"],
        Field(
            description="pad-crop: colour of the padding. black: zeros before the mean is subtracted, as most "
            "re-implementations have it; mean: the training set's mean colour, rounded, which is zeros after the mean "
            "is subtracted. The paper does not say; the work whose augmentation it follows padded preprocessed images"
        ),
    ] = "black"
    color: Annotated[
        Literal["none", "pca", "pca-std"],
        Field(
            description="AlexNet's colour augmentation. pca: by the eigenvalues, the letter of Krizhevsky et al. 2012 "
            "that the paper cites; pca-std: by their square roots, as Krizhevsky's own code does, twice as strong and "
            "more"
        ),
    ] = "none"
    eval_shorter_side: Annotated[
        int | None, Field(description="shorter side before the centre crop in evaluation, given for size 224")
    ] = None
    mean: Annotated[
        Literal["per-pixel", "per-channel", "given"],
        Field(
            description="mean that is subtracted, of the training set; given: pixel_mean and pixel_std, those of the "
            "weights that a training begins with"
        ),
    ] = "per-pixel"
    pixel_mean: Annotated[
        tuple[float, float, float] | None, Field(description="mean given: of red, green and blue, in [0, 1]")
    ] = None
    pixel_std: Annotated[
        tuple[float, float, float] | None, Field(description="mean given: what pixels are divided by, in [0, 1]")
    ] = None
    turns: Annotated[
        bool,
        Field(
            description="turn each training image by 0, 90, 180 or 270 degrees, as likely: for pictures without an up, "
            "as a microscope's"
        ),
    ] = False
    resize: Annotated[
        tuple[int, float] | None,
        Field(
            description="progressive resizing: side at the start, and the fraction of the training at which it has "
            f"grown to size, in steps of {RESIZE_STEP} pixels"
        ),
    ] = None
    eval_size: Annotated[
        int | None, Field(ge=8, le=1024, description="side in evaluation, where it is not size (Touvron et al. 2019)")
    ] = None

    eval_interpolation: Annotated[
        Interpolation, Field(description="filter that resizes an image in evaluation; weights of others say bicubic")
    ] = "bilinear"

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
        if self.policy == "pad-crop" and self.eval_interpolation != "bilinear":
            raise ValueError(f"eval_interpolation has an effect with streamed policies only, got policy {self.policy}")
        if self.policy == "pad-crop" and self.color != "none":
            raise ValueError(f"color has an effect with streamed policies only, got {self.color} with pad-crop")
        if self.border != "black" and not self.pad:
            raise ValueError(f"border has an effect with a pad above 0 only, got {self.border} with pad {self.pad}")
        return self

    @model_validator(mode="after")
    def _given_mean_is_there(self) -> Self:
        for field in ("pixel_mean", "pixel_std"):
            value = getattr(self, field)
            if (value is not None) != (self.mean == "given"):
                raise ValueError(f"{field} goes with mean given, got {value} with mean {self.mean}")
        if self.pixel_std is not None and min(self.pixel_std) <= 0:
            raise ValueError(f"pixel_std must be above 0, got {self.pixel_std}")
        return self

    @model_validator(mode="after")
    def _sizes_differ(self) -> Self:
        for field in ("resize", "eval_size"):
            if getattr(self, field) is None:
                continue
            if self.policy == "pad-crop":
                raise ValueError(f"{field} has an effect with streamed policies only, got policy pad-crop")
            if self.mean == "per-pixel":
                raise ValueError(f"{field} needs mean per-channel or given: a mean of each pixel has one size")
        if self.eval_size == self.size:
            raise ValueError(f"eval_size must differ from size, got {self.size} twice")
        if self.resize is not None and not (8 <= self.resize[0] < self.size and 0 < self.resize[1] <= 1):
            raise ValueError(
                f"resize must be a side from 8 to below size, {self.size}, and a fraction above 0, got {self.resize}"
            )
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

    def size_at(self, epoch: int, epochs: float) -> int:
        """Side of the training images in an epoch. epochs: of the whole training, which may end inside one."""
        if self.resize is None:
            return self.size
        start, until = self.resize
        grown = min(1.0, epoch / (until * epochs))
        steps = int((self.size - start) * grown / RESIZE_STEP)
        return self.size if grown == 1 else start + steps * RESIZE_STEP

    def at(self, epoch: int, epochs: float) -> Images:
        """These settings for the training images of one epoch, with the size that they have then."""
        return self.model_copy(update={"size": self.size_at(epoch, epochs), "resize": None})

    @property
    def eval_side(self) -> int:
        """Shorter side in pixels that an image is resized to before the centre crop of an evaluation."""
        return self.size if self.eval_shorter_side is None else self.scaled(self.eval_shorter_side)

    def for_evaluation(self) -> Images:
        """These settings for evaluation and serving, with the size that images have there."""
        return self.model_copy(update={"size": self.eval_size or self.size, "resize": None, "eval_size": None})


class Optim(FrozenSettings):
    """Stochastic gradient descent with momentum (sections 3.4 and 4.2)."""

    lr: Annotated[float, Field(gt=0, description="learning rate after the warm-up, for the whole batch")] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    decay_norm_and_bias: Annotated[
        bool, Field(description="weight decay on batch norm and bias too, as in 2015; the common practice is not to")
    ] = True
    batch_size: Annotated[int, Field(ge=1, description="images of one step over all workers")] = 256
    lr_batch_size: Annotated[
        int | None,
        Field(ge=1, description="batch that lr is given for; lr is scaled with batch_size (arXiv 1706.02677)"),
    ] = None
    nesterov: Annotated[bool, Field(description="Nesterov's momentum")] = False

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov has no effect with momentum 0")
        if not self.decay_norm_and_bias and self.weight_decay == 0:
            raise ValueError("decay_norm_and_bias must be True with weight_decay 0: it has no effect there")
        return self

    @property
    def peak_lr(self) -> float:
        """lr for the batch at hand."""
        return self.lr if self.lr_batch_size is None else self.lr * self.batch_size / self.lr_batch_size


class Schedule(FrozenSettings):
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


class FineTuning(FrozenSettings):
    """Settings of a training that begins with trained weights (Run.init). The defaults train all of it alike."""

    head: Annotated[
        Literal["auto", "new", "kept"],
        Field(
            description="the classifier at the start. auto: the weights' own for the data's classes where it knows all "
            "of them by their ids, else new; kept: refuse data with other classes"
        ),
    ] = "auto"
    head_lr: Annotated[float, Field(gt=0, description="lr of the classifier, in multiples of optim.lr")] = 1.0
    frozen: Annotated[
        str, Field(description="last part whose weights stay as they are: none, stem, layer1, layer2, ...")
    ] = "none"
    batch_norm: Annotated[
        Literal["trained", "frozen"],
        Field(description="frozen: statistics, scales and shifts of all batch norms stay the weights' own"),
    ] = "trained"


class Selection(FrozenSettings):
    """Which epoch's network a training gives, and when it ends before its last step. Only validation images decide:
    figures of the network that is chosen are of images that no decision has looked at if they are of split test."""

    by: Annotated[
        Literal["last", "top1_error", "class_error", "val_loss"],
        Field(
            description="last: the network after the last step; else that of the epoch with the lowest top-1 error, "
            "mean of the classes' top-1 errors, or loss on the validation images"
        ),
    ] = "last"
    patience: Annotated[
        int | None, Field(ge=1, description="evaluations without a better one after which the training ends")
    ] = None

    @model_validator(mode="after")
    def _patience_has_a_metric(self) -> Self:
        if self.patience is not None and self.by == "last":
            raise ValueError(f"patience needs by, what must get better, got {self.patience} with by last")
        return self
