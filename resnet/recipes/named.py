"""Recipes by name: the paper's and their variants."""

from __future__ import annotations

from collections.abc import Callable

from resnet.networks import architectures
from resnet.recipes.loss_settings import Loss
from resnet.recipes.recipe import Recipe
from resnet.recipes.recipe_settings import FineTuning, Images, Optim, Schedule


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
    lr, error = (0.01, 80.0) if architectures.parse_network(network).depth >= 110 else (None, None)
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


def finetune(network: str) -> Recipe:
    """Trained weights on a set of some hundreds to some ten thousand images: lr 0.01 for a batch of 64, ten times that
    for the classifier, cosine, 20 epochs; crops that keep a third of the image at least.

    Batch norm normalises over 32 images, so that one and two workers train the same network.
    """
    if architectures.parse_network(network).family == "cifar10":
        images = Images(size=32, policy="pad-crop", pad=4, flip=True, mean="per-channel")
    else:
        images = Images(
            size=224, policy="random-resized-crop", area=(0.35, 1.0), eval_shorter_side=256, mean="per-channel"
        )
    return Recipe(
        network=network,
        variant="finetune",
        images=images,
        loss=Loss(label_smoothing=0.1),
        optim=Optim(lr=0.01, lr_batch_size=64, batch_size=64, decay_norm_and_bias=False),
        schedule=Schedule(kind="cosine", warmup=0.05),
        finetune=FineTuning(head_lr=10),
        bn_batch=32,
        epochs=20,
    )


def arcface_finetune(network: str) -> Recipe:
    """Embeddings of persons, or of other classes whose strangers are to be told apart: `finetune` with ArcFace's loss,
    which softens no targets, and 60 epochs, for a margin is learned slowly.
    """
    tuned = finetune(network)
    return tuned.model_copy(update={"variant": "arcface", "loss": Loss(kind="arcface"), "epochs": 60})


def for_digits(paper: Recipe) -> Recipe:
    """A cifar10 recipe for 1,797 handwritten digits, in about a minute on 2 cores.

    A mirrored digit is no digit, and 12 epochs with a cosine schedule are enough. Two workers share a batch.
    """
    images = paper.images.model_copy(update={"flip": False, "pad": 2})
    schedule = Schedule(kind="cosine", warmup=0.1)
    optim = paper.optim.model_copy(update={"batch_size": 64})
    loss = paper.loss.model_copy(update={"label_smoothing": 0.1})
    changes = {"images": images, "loss": loss, "schedule": schedule, "optim": optim, "bn_batch": 32}
    changes |= {"epochs": 12.0, "steps": None}
    return paper.model_copy(update=changes)


VARIANTS: dict[tuple[str, str], Callable[[str], Recipe]] = {
    ("imagenet", "paper"): imagenet_paper,
    ("imagenet", "90"): imagenet_90,
    ("imagenet", "90-step"): imagenet_90_step,
    ("imagenet", "fast"): imagenet_fast,
    ("imagenet", "finetune"): finetune,
    ("imagenet", "arcface"): arcface_finetune,
    ("cifar10", "paper"): cifar10_paper,
    ("cifar10", "fast"): cifar10_fast,
    ("cifar10", "finetune"): finetune,
    ("cifar10", "arcface"): arcface_finetune,
}


def has_shortcuts(network: str) -> bool:
    """True if blocks add their input: what zero_init_last_bn needs."""
    return architectures.parse_network(network).shortcut != "none"


def recipe(name: str) -> Recipe:
    """The recipe called `<network>[@<variant>]`, e.g. imagenet-resnet50-B@paper. ValueError names what is allowed."""
    network, _, variant = name.partition("@")
    parsed = architectures.parse_network(network)
    variant = variant or "paper"
    allowed = [v for family, v in VARIANTS if family == parsed.family]
    if variant not in allowed:
        raise ValueError(f"recipe variant must be one of {', '.join(allowed)} for {parsed.family}, got {variant!r}")
    return VARIANTS[parsed.family, variant](parsed.name)
