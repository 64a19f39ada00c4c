"""Offline prediction by Ray Data: a folder of images, or shards, through one model, into a folder of Parquet parts.

The work is cut into parts once, from the sorted list of the images. A part is there whole or not at all, so a run that
was killed goes on with the parts that are missing, and a finished one does nothing. How the model computes is handed in
(a Predictor): the endpoint's own code, hence the endpoint's own numbers.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from pipelines.cluster import connection, shared_places
from pipelines.cluster.planning.known_nodes import known_nodes
from pipelines.cluster.planning.resource_plan import actor_shares, holders
from pipelines.cluster.planning.waiting import shortage_of_room
from pipelines.prediction.prediction_worker import PredictionJob, PredictionPart, Predictor, Worker, part_name
from pipelines.progress.status import LINE, clock
from pipelines.shards.manifest import MANIFEST, read_manifest
from pipelines.storage import NOT_IMAGES, Folder
from resnet.frozen import Frozen

PATIENCE = 3600  # seconds without a block that end a prediction: a part on one slow core
PARTS, LEAST_IN_A_PART, MOST_IN_A_PART = 64, 64, 1024
PLAN = "_plan.json"  # readers of Parquet folders pass over names that begin with _


class PredictionOutcome(Frozen):
    """images: all, predicted and failed; failed: those without a prediction, their reason is in column `error`."""

    out: str
    model: str
    version: str
    images: int
    failed: int
    parts: int
    parts_written: int
    seconds: float
    images_per_second: float


def predict(
    asked: PredictionJob, model: tuple[str, str], open_predictor: Callable[..., Predictor], show: bool = True
) -> PredictionOutcome:
    """Write the parts that are missing. model: name and version, for the record; show: progress on stderr.

    open_predictor: called in each worker with device="cuda" or "cpu".

    ValueError: no images, or a folder that holds something else. Ray is not touched where nothing is to be done.
    """
    began = time.monotonic()
    out = Folder(asked.out)
    parts, digest = list_parts(asked)
    size = part_size(asked, sum(part.images for part in parts))
    _claim(out, asked.model_copy(update={"part_images": size}), model, digest)
    there = {entry.name for entry in out.entries()}
    missing = [part for part in parts if part_name(part.number) not in there]
    if missing:
        _write_all(missing, asked, open_predictor, show)
    failed = sum(_failed(out, part, show) for part in parts)
    if failed == (images := sum(part.images for part in parts)):
        raise ValueError(f"images must be such, none of {images:,} could be predicted: column error of {out.shown}")
    seconds, written = time.monotonic() - began, sum(part.images for part in missing)
    return PredictionOutcome(
        out=out.shown,
        model=model[0],
        version=model[1],
        images=images,
        failed=failed,
        parts=len(parts),
        parts_written=len(missing),
        seconds=seconds,
        images_per_second=written / seconds,
    )


def list_parts(asked: PredictionJob) -> tuple[list[PredictionPart], str]:
    """All parts, and a digest of what they hold. ValueError: there are no images."""
    source, out = Folder(asked.images), Folder(asked.out)
    if source.is_file:
        raise ValueError(f"images must be a folder, or its URI, got a file: {asked.images}")
    if source.holds(out):
        raise ValueError(f"out must not be inside images {asked.images}, got {asked.out}")
    sharded = any(entry.name == MANIFEST for entry in source.entries())
    if asked.split is not None and not sharded:
        raise ValueError(f"split is for shards, and {asked.images} holds none")
    parts = list(_of_shards(asked) if sharded else _of_files(source, asked))
    if not parts:
        raise ValueError(f"images must hold at least one image, got none in {asked.images}")
    return parts, hashlib.sha256(json.dumps([part.model_dump() for part in parts]).encode()).hexdigest()


def part_size(asked: PredictionJob, images: int) -> int:
    """Images of a part: as asked for, else as the parts have that are there, else by the number of all images."""
    if asked.part_images is not None:
        return asked.part_images
    known = (_plan_of(Folder(asked.out)) or {}).get("part_images")
    return min(MOST_IN_A_PART, max(LEAST_IN_A_PART, images // PARTS)) if known is None else int(known)


def _plan_of(out: Folder) -> dict[str, Any] | None:
    """The plan of a folder of predictions, or None."""
    return json.loads(out.read(PLAN)) if any(entry.name == PLAN for entry in out.entries()) else None


def _of_shards(asked: PredictionJob) -> Iterator[PredictionPart]:
    manifest = read_manifest(asked.images)
    splits = [asked.split] if asked.split else ["train", "val"]
    groups = [
        (shard.file, group, rows)
        for shard in manifest.shards
        if shard.split in splits
        for group, rows in enumerate(shard.row_groups)
    ]
    per_part = max(1, part_size(asked, sum(rows for *_, rows in groups)) // manifest.row_group_size)
    for number, start in enumerate(range(0, len(groups), per_part)):
        some = groups[start : start + per_part]
        yield PredictionPart(number=number, images=sum(g[2] for g in some), groups=tuple(g[:2] for g in some))


def _of_files(source: Folder, asked: PredictionJob) -> Iterator[PredictionPart]:
    """Every file in the folder and below it, but hidden ones: what is no image is listed as such, not passed over."""
    keys = [n for n in source.files() if not any(p.startswith(".") or p in NOT_IMAGES for p in n.split("/"))]
    per_part = part_size(asked, len(keys))
    for number, start in enumerate(range(0, len(keys), per_part)):
        some = tuple(keys[start : start + per_part])
        yield PredictionPart(number=number, images=len(some), keys=some)


def _claim(out: Folder, asked: PredictionJob, model: tuple[str, str], digest: str) -> None:
    """Note what the folder is for. ValueError: it holds predictions of another model, of other images or of another
    kind, or other files."""
    fields = ("images", "split", "top_k", "embeddings", "thumbnails", "network", "precision", "part_images")
    plan = {"model": list(model), "listing": digest} | asked.model_dump(include=set(fields))
    if (known := _plan_of(out)) is not None:
        changed = [name for name in plan if known.get(name) != plan[name]]
        if changed:
            name = changed[0]
            raise ValueError(f"{asked.out} holds predictions with {name} {known.get(name)}, got {plan[name]}")
        return
    if out.entries():
        raise ValueError(f"out must be empty or hold predictions of the same kind, got {asked.out}")
    if not out.is_local:
        out.place[0].create_dir(out.path(), recursive=True)
    with out.writing(PLAN) as stream:
        stream.write(json.dumps(plan, indent=2).encode())


def _write_all(
    missing: list[PredictionPart], asked: PredictionJob, open_predictor: Callable[..., Predictor], show: bool
) -> None:
    """Ray Data: an actor for each worker holds the model; a part is one item."""
    connection.connect()  # before ray.data is imported: it sets how Ray behaves
    import ray

    from pipelines.cluster.data_execution import settle

    settle(PATIENCE)
    with shared_places.trial_file("out", Folder(asked.out)) as written:
        shared_places.require_everywhere([*shared_places.SharedPlace.of("images", Folder(asked.images)), *written])
    holding = holders(known_nodes(), asked.gpu)
    on_gpu = holding[0].gpus >= 1 if asked.gpu is None else asked.gpu
    room = sum(int(node.gpus if on_gpu else node.cpus) for node in holding)
    workers = min(asked.workers or max(1, room), len(missing))
    share, _ = actor_shares(holding, workers, on_gpu, 0.9)
    dataset = ray.data.from_items([{"part": p.model_dump_json()} for p in missing], override_num_blocks=len(missing))
    dataset = dataset.map_batches(
        Worker,
        batch_size=1,
        fn_constructor_args=(asked, partial(open_predictor, device="cuda" if on_gpu else "cpu")),
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=min(1.0, share),
        num_gpus=1 if on_gpu else 0,
    )
    note = shortage_of_room(min(1.0, share), float(on_gpu), ray.available_resources(), PATIENCE)
    if show and note is not None:
        print(note, file=sys.stderr)
    began, shown, done, total = time.monotonic(), 0.0, 0, sum(part.images for part in missing)
    blocks: Any = dataset.iter_batches(batch_size=None, batch_format="numpy")
    for block in blocks:
        done += sum(block["images"].tolist())
        now = time.monotonic()
        if show and (now - shown > LINE or done == total):
            left = clock((now - began) / done * (total - done))
            print(f"{done:,} of {total:,} images  {done / (now - began):,.1f} img/s  {left} left", file=sys.stderr)
            shown = now


def _failed(out: Folder, part: PredictionPart, show: bool) -> int:
    """Images of a part that have no prediction; the first three are named. RuntimeError: an image did not come once."""
    from pyarrow import parquet

    with out.open(part_name(part.number)) as stream:
        rows = parquet.read_table(stream, columns=["key", "error"])
    if rows.num_rows != part.images:
        raise RuntimeError(f"{part_name(part.number)} must have {part.images} rows, got {rows.num_rows}")
    failed = rows.filter(rows["error"].is_valid())
    for row in failed.slice(0, 3).to_pylist() if show else []:
        print(f"no prediction for {row['key']}: {row['error']}", file=sys.stderr)
    return failed.num_rows
