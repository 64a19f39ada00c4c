"""Table 1 and the 6n+2 rule of He et al. (§3.3, §4.2) as data, and the names of the networks. No torch here."""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

Block = Literal["basic", "bottleneck"]
Shortcut = Literal[
    "none", "A", "B", "C"
]  # none = plain; A zero padding, B projection where the shape changes, C always

GRAMMAR = re.compile(r"([a-z0-9]+)-(plain|resnet)([1-9][0-9]*)(?:-([ABC]))?(-v1\.5)?")
SYNTAX = "<family>-<plain|resnet><depth>[-<A|B|C>][-v1.5]"
LAYERS: Mapping[Block, int] = {"basic": 2, "bottleneck": 3}  # convolutions of a block (figure 5)
EXPANSION: Mapping[Block, int] = {"basic": 1, "bottleneck": 4}  # output channels over the block's width


@dataclass(frozen=True, slots=True)
class Layout:
    """The residual blocks of a depth: their kind, how many per stage, and the shortcut that the paper gives them."""

    block: Block
    counts: tuple[int, ...]
    shortcut: Shortcut


@dataclass(frozen=True, slots=True)
class Stem:
    """The layers before the first block: one square convolution of `kernel` and `stride`, then the 3x3 pool or not."""

    kernel: int
    stride: int
    max_pool: bool


@dataclass(frozen=True, slots=True)
class Family:
    """The facts that the networks of one data set share.

    title: of the data set; examples: its images for training and for validation; steps, protocol: of the paper's
    training and of the test that its tables print (§3.4, §4.2); image_size: pixels; widths: channels of a stage's 3x3
    convolutions.
    """

    title: str
    examples: tuple[int, int]
    steps: int
    protocol: Literal["10-crop", "single"]
    image_size: int
    num_classes: int
    stem: Stem
    widths: tuple[int, ...]
    depths: tuple[int, ...]  # the depths of the paper's tables
    layout: Callable[[int], Layout]  # depth -> blocks; ValueError for a depth that the family lacks
    v15: bool  # the family has bottlenecks, so the stride has two places to be


LAYOUTS: Mapping[int, Layout] = {
    18: Layout("basic", (2, 2, 2, 2), "A"),
    34: Layout("basic", (3, 4, 6, 3), "A"),
    50: Layout("bottleneck", (3, 4, 6, 3), "B"),
    101: Layout("bottleneck", (3, 4, 23, 3), "B"),
    152: Layout("bottleneck", (3, 8, 36, 3), "B"),
}


def _table1(depth: int) -> Layout:
    """The blocks of an ImageNet network, from Table 1."""
    if depth not in LAYOUTS:
        nearest = min(LAYOUTS, key=lambda known: abs(known - depth))
        raise ValueError(f"depth must be {_either(LAYOUTS)} for imagenet, not {depth} (nearest: {nearest})")
    return LAYOUTS[depth]


def _six_n_plus_two(depth: int) -> Layout:
    """The blocks of a CIFAR-10 network: n of two layers in each of three stages, and two layers more (§4.2)."""
    n, rest = divmod(depth - 2, 6)
    if rest or n < 1:
        nearest = 6 * max(1, round((depth - 2) / 6)) + 2
        raise ValueError(f"depth must be 6n+2 for cifar10 (8, 14, 20, ...), not {depth} (nearest: {nearest})")
    return Layout("basic", (n, n, n), "A")


FAMILIES: Mapping[str, Family] = {
    "imagenet": Family(
        title="ImageNet",
        examples=(1_281_167, 50_000),
        steps=600_000,
        protocol="10-crop",
        image_size=224,
        num_classes=1000,
        stem=Stem(7, 2, True),
        widths=(64, 128, 256, 512),
        depths=tuple(LAYOUTS),
        layout=_table1,
        v15=True,
    ),
    "cifar10": Family(
        title="CIFAR-10",
        examples=(50_000, 10_000),
        steps=64_000,
        protocol="single",
        image_size=32,
        num_classes=10,
        stem=Stem(3, 1, False),
        widths=(16, 32, 64),
        depths=(20, 32, 44, 56, 110, 1202),
        layout=_six_n_plus_two,
        v15=False,
    ),
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network of the paper. depth: weight layers; shortcut: "none" is the plain net; v15: stride in the 3x3.

    v1.5 differs from the paper in the bottlenecks only. It is allowed at 18 and 34 layers, where it is the same
    network, because torchvision's five networks are then one row of names. ValueError for what does not exist.
    """

    family: str
    depth: int
    shortcut: Shortcut
    v15: bool = False

    def __post_init__(self) -> None:
        """Refuse what the paper's grammar cannot say."""
        if self.family not in FAMILIES:
            raise ValueError(f"family must be {_either(FAMILIES)}, not {self.family!r}")
        if self.shortcut not in ("none", "A", "B", "C"):
            raise ValueError(f"shortcut must be none, A, B or C, not {self.shortcut!r}")
        if self.v15 and not FAMILIES[self.family].v15:
            raise ValueError(f"-v1.5 is for imagenet, {self.family} has no bottleneck whose stride could move")
        _ = self.layout

    @property
    def layout(self) -> Layout:
        """Kind and number of the blocks, per stage."""
        return FAMILIES[self.family].layout(self.depth)

    @property
    def parts(self) -> tuple[str, ...]:
        """stem and stages, from input to output, by the names that modules and weights have: layer1 is conv2_x."""
        return ("stem", *(f"layer{number}" for number, _ in enumerate(self.layout.counts, start=1)))

    @property
    def name(self) -> str:
        """The canonical name: a residual network always says its shortcut, a plain one has none to say."""
        kind, letter = ("plain", "") if self.shortcut == "none" else ("resnet", f"-{self.shortcut}")
        return f"{self.family}-{kind}{self.depth}{letter}{'-v1.5' if self.v15 else ''}"


def parse_network(name: str) -> Architecture:
    """The network of a name, e.g. `imagenet-resnet50-B`, `cifar10-plain20`, `imagenet-resnet18-B-v1.5`.

    Without a letter a residual network has the paper's shortcut: B for imagenet 50, 101 and 152, else A. A ValueError
    says in one sentence what is wrong, what is allowed and, for a slip of the pen, which name is near.
    """
    match = GRAMMAR.fullmatch(name)
    if match is None:
        raise ValueError(f"network must be {SYNTAX}, e.g. imagenet-resnet50-B, not {name!r}{_hint(name)}")
    family, kind, depth, letter, v15 = match.groups()
    if family not in FAMILIES:
        raise ValueError(f"network {name!r}: family must be {_either(FAMILIES)}, not {family!r}{_hint(name)}")
    if kind == "plain" and letter:
        raise ValueError(f"network {name!r}: a plain network has no shortcut, so no letter A, B or C, got {letter!r}")
    try:
        shortcut = "none" if kind == "plain" else letter or FAMILIES[family].layout(int(depth)).shortcut
        return Architecture(family, int(depth), cast(Shortcut, shortcut), v15 is not None)
    except ValueError as error:
        raise ValueError(f"network {name!r}: {error}") from None


def names() -> tuple[str, ...]:
    """The canonical names: every imagenet network, and cifar10 at the paper's depths (any depth 6n+2 >= 8 parses)."""
    shortcuts: tuple[Shortcut, ...] = ("none", "A", "B", "C")
    return tuple(
        Architecture(family, depth, shortcut, v15).name
        for family, row in FAMILIES.items()
        for depth in row.depths
        for shortcut in shortcuts
        for v15 in ((False, True) if row.v15 else (False,))
    )


def _hint(name: str) -> str:
    """A nearest name as the end of a sentence, or nothing where none is near (0.55: `resnet50` is, `vgg16` is not)."""
    near = {known.lower(): known for full in names() for known in (full, re.sub("-[ABC]", "", full))}
    found = difflib.get_close_matches(name.lower(), near, n=1, cutoff=0.55)
    return f"; did you mean {near[found[0]]!r}?" if found else ""


def _either(values: Mapping[int, Layout] | Mapping[str, Family]) -> str:
    """`a, b or c`."""
    *head, last = map(str, values)
    return f"{', '.join(head)} or {last}"
