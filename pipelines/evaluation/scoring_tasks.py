"""Images through trained networks by Ray Data: tasks read row groups and cut the views, actors hold the networks.

What comes back is one row an image, put in its place by its index. Batches are cut inside a row group and never by
worker, so that the digits are the same at any number of workers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.cluster.planning.resource_plan import Node, actor_shares, holders
from pipelines.cluster.planning.waiting import shortage_of_room
from pipelines.shards.row_groups import Split
from resnet.evaluation.error_summary import Ranked
from resnet.evaluation.views import ViewProtocol, views
from resnet.host.cpu_quota import usable_cores
from resnet.recipes.recipe_settings import Images

if TYPE_CHECKING:
    from resnet.evaluation.scorer import Model

PATIENCE = 600  # seconds without a block that end a test: five scales of a row group take minutes
CHUNK = 32  # images that a task yields at once
LINE = 5.0  # seconds between two lines of progress

ColumnBlock = dict[str, np.ndarray]


@dataclass(frozen=True)
class ScoringJob:
    """The task of a test. outputs: the networks' output of each label; keys: also return each image's key.

    responses: also record the responses of the layers of the one network (Figure 7). all_scores: also return the scores
    of all labels' outputs.
    """

    __test__ = False  # no test of pytest's

    models: Sequence[Model]
    protocol: ViewProtocol
    split: Split
    outputs: Sequence[int]
    mirror: bool = False
    precision: str = "float32"
    responses: bool = False
    keys: bool = False
    all_scores: bool = False


@dataclass(frozen=True)
class Placing:
    """Actors that hold the networks, and what each has; cpus_per_task: what a task that reads and decodes reserves."""

    workers: int
    gpu: bool
    cpus: float
    threads: int
    cpus_per_task: float


@dataclass(frozen=True)
class Scored:
    """Rows of all images, in the order of the data set. precision: of the matrix products, as it was.

    keys: (N,) or None; responses: layer names, their numbers an image, (N, layers, 2) sums; or None. all_scores: (N, K)
    of the labels' outputs, or None.
    """

    ranked: Ranked
    precision: str
    keys: np.ndarray | None
    responses: tuple[tuple[str, ...], list[int], np.ndarray] | None
    all_scores: np.ndarray | None = None


def placing(nodes: Sequence[Node], workers: int | None, gpu: bool | None) -> Placing:
    """The plan of a test on the nodes of a cluster. ValueError: more workers than fit."""
    holding = holders(nodes, gpu)
    on_gpu = holding[0].gpus >= 1 if gpu is None else gpu
    count = workers or sum(int(node.gpus) if on_gpu else max(1, int(node.cpus) // 4) for node in holding)
    # The rest is for reading and decoding, or the networks wait for ever for their images.
    share, crowds = actor_shares(holding, count, on_gpu, 0.5 if on_gpu else 0.75)
    share = min(0.5, share) if on_gpu else share
    left = [node.cpus - share * crowd for node, crowd in zip(holding, crowds, strict=True)]
    left += [node.cpus for node in nodes if node not in holding]
    threads = min(int(node.cpus // max(1, crowd)) for node, crowd in zip(holding, crowds, strict=True))
    return Placing(count, on_gpu, share, max(1, threads), min(1.0, max(left) / 2))


def score_split(test: ScoringJob, where: Placing, show: bool = True) -> Scored:
    """Rows of every image of the split. show: progress on stderr. RuntimeError: an image did not come exactly once."""
    import ray

    from pipelines.cluster.data_execution import settle

    settle(PATIENCE)
    note = shortage_of_room(where.cpus, float(where.gpu), ray.available_resources(), PATIENCE)
    if show and note is not None:
        print(note, file=sys.stderr)
    items = [{"group": group} for group in range(len(test.split.rows))]
    read = partial(_read, test.split, test.models[0].images, test.protocol, test.keys)
    dataset = ray.data.from_items(items, override_num_blocks=len(items))
    dataset = dataset.map_batches(_any(read), batch_size=1, num_cpus=where.cpus_per_task)
    dataset = dataset.map_batches(
        _Worker,
        batch_size=None,
        fn_constructor_args=(ray.put(test), where.threads, where.gpu),
        compute=ray.data.ActorPoolStrategy(size=where.workers),
        num_cpus=where.cpus,
        num_gpus=1 if where.gpu else 0,
    )
    return _together(test, dataset.iter_batches(batch_size=None, batch_format="numpy"), show)


def _any(task: Any) -> Any:
    return task


def _read(split: Split, images: Images, protocol: ViewProtocol, keys: bool, item: ColumnBlock) -> Iterator[ColumnBlock]:
    """A Ray Data task: row groups -> views of their images.

    An image is one row, whatever its views' sizes: pixels (bytes of all views, one after the other) and shapes (V, 2).
    """
    for group in item["group"]:
        columns = ("image", "label", "key") if keys else ("image", "label")
        rows, first = split.read(int(group), columns), int(split.starts()[group])
        for start in range(0, len(rows["image"]), CHUNK):
            cut = [views(data, protocol, images) for data in rows["image"][start : start + CHUNK]]
            block = {
                "index": first + start + np.arange(len(cut)),
                "label": np.asarray(rows["label"][start : start + CHUNK], dtype=np.int64),
                "pixels": np.asarray([b"".join(view.tobytes() for view in own) for own in cut], dtype=object),
                "shapes": np.asarray([[view.shape[:2] for view in own] for own in cut]),
            }
            yield block | ({"key": np.asarray(rows["key"][start : start + CHUNK], dtype=object)} if keys else {})


def _unpack(pixels: bytes, shapes: np.ndarray) -> list[np.ndarray]:
    """The views of one image, (H, W, 3) uint8 each."""
    ends = np.cumsum(shapes.prod(1) * 3)
    flat = np.frombuffer(pixels, np.uint8)
    parts = np.split(flat, ends[:-1])
    return [part.reshape(height, width, 3) for part, (height, width) in zip(parts, shapes, strict=True)]


class _Worker:
    """A Ray Data actor that holds the networks: views of images -> a row an image."""

    def __init__(self, test: Any, threads: int, gpu: bool) -> None:
        import ray
        import torch

        from resnet.evaluation.scorer import Scorer
        from resnet.training.step import native_precision, require_device

        torch.set_num_threads(min(threads, usable_cores()))  # the cluster's CPUs may be those of several nodes
        device = torch.device("cuda" if gpu else "cpu")
        self.test: ScoringJob = ray.get(test)
        require_device(device, self.test.precision)
        self.precision = native_precision(device) if self.test.precision == "auto" else self.test.precision
        self.scorer = Scorer(
            self.test.models,
            self.test.protocol,
            mirror=self.test.mirror,
            device=device,
            precision=self.precision,
        )

    def __call__(self, block: ColumnBlock) -> ColumnBlock:
        own = [_unpack(pixels, shapes) for pixels, shapes in zip(block["pixels"], block["shapes"], strict=True)]
        scores, extra = self._with_responses(own) if self.test.responses else (self.scorer.score(own), {})
        ranked = Ranked.of(scores, np.asarray(self.test.outputs)[block["label"]])
        rows = {"index": block["index"], "label": ranked.labels, "top": ranked.top, "score": ranked.scores}
        keys = {"key": block["key"]} if self.test.keys else {}
        precision = np.full(len(own), self.precision)
        if self.test.all_scores:
            extra |= {"all_scores": scores[:, np.asarray(self.test.outputs)]}
        return rows | {"of_label": ranked.of_label, "precision": precision} | keys | extra

    def _with_responses(self, own: list[list[np.ndarray]]) -> tuple[np.ndarray, ColumnBlock]:
        from resnet.evaluation.layer_responses import watching

        with watching(self.scorer.nets[0]) as sums:
            scores = self.scorer.score(own)
        values = np.tile(np.asarray(sums.values), (len(own), 1))
        return scores, {"responses": np.concatenate(sums.parts), "values": values}


def _together(test: ScoringJob, blocks: Any, show: bool) -> Scored:
    """Rows from blocks in whatever order they come; each image exactly once."""
    total = test.split.examples
    tell = _teller(total) if show else lambda _: None
    parts: list[ColumnBlock] = []
    done = 0
    for block in blocks:
        parts.append(block)
        done += len(block["index"])
        tell(done)
    index = np.concatenate([part["index"] for part in parts]) if parts else np.empty(0, dtype=np.int64)
    order = np.argsort(index)
    if not np.array_equal(index[order], np.arange(total)):
        raise RuntimeError(f"the test counted {len(np.unique(index))} different images in {len(index)} rows of {total}")
    rows = {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}
    ranked = Ranked(rows["label"], rows["top"], rows["score"], rows["of_label"])
    responses = None
    if test.responses:
        from resnet.evaluation.layer_responses import measured_layers

        names = tuple(measured_layers(test.models[0].build()))
        responses = (names, [int(n) for n in rows["values"][0]], rows["responses"])
    return Scored(ranked, str(rows["precision"][0]), rows.get("key"), responses, rows.get("all_scores"))


def _teller(total: int) -> Callable[[int], None]:
    """Says on stderr how far the test is, now and then."""
    began = said = time.monotonic()

    def tell(done: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said > LINE or done == total:
            said, pace = now, done / (now - began)
            left = time.strftime("%H:%M:%S", time.gmtime((total - done) / pace))
            print(f"{done:,} of {total:,} images, {pace:,.3g} img/s, {left} left", file=sys.stderr, flush=True)

    return tell
