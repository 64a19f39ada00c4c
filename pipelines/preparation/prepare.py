"""Sources -> Parquet shards and manifest; verification.

A preparation lists the source, shuffles the list once, cuts it into shards, and writes each shard by a task of its own.
What is finished is noted in a ledger beside the shards, so that the same command goes on after a kill at any moment.
The manifest is written last; where it is, all is there.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pyarrow as pa

from pipelines.cluster import shared_places
from pipelines.preparation import finished_shards, free_space, preparation_summary, repair
from pipelines.preparation.grey_sampling import measured_range
from pipelines.preparation.listing import Listing, some
from pipelines.preparation.preparation_options import Preparation
from pipelines.preparation.shard_plan import SHARD_BYTES, ShardPlan, default_row_group_size, fingerprint, plan
from pipelines.preparation.shard_writer import Work, shard_problem, write_shard
from pipelines.preparation.sources import Source, list_source
from pipelines.preparation.splits import duplicates
from pipelines.preparation.splits.drawn_splits import Drawing
from pipelines.preparation.targets.stored_targets import TargetRule
from pipelines.progress.console import meter, say
from pipelines.shards.manifest import ALL_SPLITS, Encoding, Finished, Manifest, Origin, read_manifest
from pipelines.storage import READERS, Folder

IN_PROCESS = 64 * 2**20  # bytes of images below which starting Ray takes longer than the work
# benchmarks/data/ingest.py, the "grey_levels_from_pillow" of its result, 125 full-size images of ImageNet.
FIDELITY = "re-encoding changes a training crop by 4.0 grey levels on average at a shorter side of 256, 2.9 at 320"
JITTER = 480  # the largest shorter side of the paper's scale jitter (section 3.4)


def prepare(preparation: Preparation) -> dict[str, Any]:
    """Write shards, of one set or of each fold, or verify them, and say what there is. ValueError: one sentence."""
    start = time.monotonic()
    if preparation.verify:
        problems = verify(preparation.out)
        if problems:
            hint = "the command that wrote them, with --repair, writes damaged shards again"
            raise ValueError(f"{len(problems)} problems in {preparation.out}: {'; '.join(problems)}; {hint}")
        told = _told(preparation.out, read_manifest(preparation.out))
    else:
        side = preparation.encoding.shorter_side
        if side is not None:
            say(f"note: {FIDELITY}")
        if side is not None and side < JITTER:
            say(f"note: the paper's scale jitter, to shorter sides of {JITTER}, enlarges images of {side}")
        sets = preparation.each_fold
        if preparation.folds is not None:
            finished_shards.refuse_other_than_folds(Folder(preparation.out), preparation.folds)
        found = [_told(out, _written(preparation, out, drawing)) for out, drawing in sets]
        told = found[0] if preparation.folds is None else {"out": preparation.out, "folds": found}
    return told | {"seconds": round(time.monotonic() - start, 2)}


def _written(preparation: Preparation, out: str, drawing: Drawing) -> Manifest:
    """The manifest of one set, after it is written and told."""
    manifest = write_shards(
        preparation.source,
        out,
        encoding=preparation.encoding,
        row_group_size=preparation.row_group_size,
        seed=preparation.seed,
        max_rejected=preparation.max_rejected,
        measure_grey_range=preparation.measure_grey_range,
        workers=preparation.workers,
        drawing=drawing,
        repair_all=preparation.repair,
    )
    for line in preparation_summary.lines(manifest):
        say(line)
    return manifest


def _told(out: str, manifest: Manifest) -> dict[str, Any]:
    return {
        "out": out,
        "examples": {s: manifest.examples(s) for s in ALL_SPLITS if s != "test" or manifest.of_split(s)},
        "classes": len(manifest.classes),
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "reencoded": manifest.reencoded,
        "rejected": len(manifest.rejected),
        "grey_range": manifest.encoding.grey_range,
        "unusual": {unusual.what: unusual.count for unusual in manifest.unusual},
        "passed_over": {passed.what: passed.count for passed in manifest.passed_over},
        "duplicates": manifest.duplicates.model_dump(exclude={"pairs"}) if manifest.duplicates else None,
    }


def write_shards(
    source: Source,
    out: str,
    *,
    encoding: Encoding | None = None,
    row_group_size: int | None = None,
    seed: int = 0,
    max_rejected: float = 0.01,
    workers: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    measure_grey_range: bool = False,
    drawing: Drawing | None = None,
    repair_all: bool = False,
) -> Manifest:
    """Write a source as shards to a folder or URI, or finish what was begun there; a finished folder stays as it is.

    workers: Ray tasks at a time; 0: in this process, without Ray; None: Ray on all CPUs, if there is enough to do.
    max_rejected: share of the images that may fail to decode. shard_bytes: of the source's images in one shard, about.
    measure_grey_range: take encoding.grey_range from a sample of the training images.
    drawing: splits that are drawn from train. repair_all: compare the content of all shards of a finished folder;
    those that are damaged are written again, alone.
    ValueError: one sentence, before anything is written where that is possible; what is finished is kept.
    """
    try:
        folder = Folder(out)
        finished_shards.refuse_other_use(folder)
        drawing, encoding = drawing or Drawing(), encoding or Encoding()
        listing = list_source(source, drawing)
        if listing.kind != "digits" and (listing.source.holds(folder) or folder.holds(listing.source)):
            raise ValueError(f"out must lie apart from source.path, got {out} and {listing.source.uri}")
        if listing.targets is not None and encoding.shorter_side is not None:
            raise ValueError(
                f"shorter_side must be left out for images with {listing.targets}, whose places are in the images' own "
                f"pixels, got {encoding.shorter_side}"
            )
        if measure_grey_range:
            encoding = encoding.model_copy(update={"grey_range": measured_range(listing)})
            say(f"grey levels {encoding.grey_range} become 0 and 255")
        rows = row_group_size or default_row_group_size(listing)
        plans = plan(listing, rows, shard_bytes, seed)
        wanted = _wanted(listing, plans, rows, seed, encoding, drawing)
        done = finished_shards.resume_preparation(folder, wanted)
        if done is None:
            return _finished(listing, folder, plans, workers, repair_all)
        counts = ", ".join(f"{t.num_rows:,} {split}" for split, t in listing.splits.items())
        embedded = listing.kind == "digits"
        read = "handwritten digits of scikit-learn" if embedded else f"{listing.source.shown} is read as {listing.kind}"
        say(f"{read}: {counts} images of {len(listing.classes):,} classes")
        for note in listing.notes:
            say(note)
        _write_all(listing, folder, wanted, plans, done, workers)
        counted = wanted.model_copy(update={"duplicates": duplicates.count_duplicates(listing, plans, done)})
        return finished_shards.finish(folder, counted, [done[p.file] for p in plans], max_rejected)
    except OSError as error:
        if error.errno in free_space.FULL:
            raise free_space.full(error, Folder(out), "its notes", 0) from None
        raise ValueError(f"{error}; the same command goes on from the shards that are finished") from error


def _finished(listing: Listing, out: Folder, plans: list[ShardPlan], workers: int | None, repair_all: bool) -> Manifest:
    """The manifest of a folder that was finished before, after damaged shards are written again."""
    manifest = read_manifest(out.uri)
    again = repair.damaged(out, manifest, repair_all)
    if not again:
        finished_shards.clear(out)  # a kill may have come between the manifest and this
        say(f"{out.uri} is complete: nothing to do")
        return manifest
    say(f"{out.uri} is damaged: {some(again)} of {len(plans)} shards is written again")
    done = repair.kept(manifest, again)
    _write_all(listing, out, manifest, plans, done, workers)
    mended = repair.mended(out, manifest, done, again)
    if mended != manifest:
        say("warning: their bytes are others than before, by changed images or another version of Arrow")
    return mended


def _wanted(
    listing: Listing, plans: list[ShardPlan], rows: int, seed: int, encoding: Encoding, drawing: Drawing
) -> Manifest:
    """The manifest that is to be, without shards."""
    origin = Origin(
        kind=listing.kind,
        path=listing.source.shown,
        images=listing.images,
        fingerprint=fingerprint(listing, plans),
    )
    return Manifest(
        classes=listing.classes,
        shards=(),
        row_group_size=rows,
        shuffle_seed=seed,
        encoding=encoding,
        source=origin,
        unusual=listing.converted,
        passed_over=listing.passed_over,
        only_in_train=listing.only_in_train(),
        splitting=drawing.record,
        targets=listing.targets,
    )


def _write_all(
    listing: Listing,
    out: Folder,
    wanted: Manifest,
    plans: list[ShardPlan],
    done: dict[str, Finished],
    workers: int | None,
) -> None:
    """Write the shards that are not in `done`, and put them there."""
    left = [p for p in plans if p.file not in done]
    before = listing.images - sum(len(p.rows) for p in left)
    if wanted.encoding.shorter_side is None:
        sizes = {split: table["size"].to_numpy() for split, table in listing.splits.items()}
        free_space.refuse_too_little(out, sum(int(sizes[p.split][p.rows].sum()) for p in left))
    if workers is None and listing.bytes * len(left) < IN_PROCESS * len(plans):
        workers = 0
    works = _works(listing, out, wanted, left)
    results = _here(works) if workers == 0 or not left else _by_ray(works, workers, listing.source, out)
    try:
        with closing(results), meter("shards", listing.images, before) as shown:
            for finished in results:
                done[finished.shard.file] = finished
                shown.add(finished.shard.examples + len(finished.rejected))
    except KeyboardInterrupt:
        say(f"{len(done)} of {len(plans)} shards are finished; the same command goes on with the rest")
        raise


def _works(listing: Listing, out: Folder, wanted: Manifest, plans: list[ShardPlan]) -> Iterator[Work]:
    """The tasks, one at a time: each carries its rows of the listing."""
    rule = None if listing.targets is None else TargetRule(listing.targets, len(listing.classes))
    for p in plans:
        yield Work(
            kind=listing.kind,
            source=listing.source,
            out=out,
            file=p.file,
            split=p.split,
            rows=listing.splits[p.split].take(pa.array(p.rows)),
            row_group_size=wanted.row_group_size,
            encoding=wanted.encoding,
            targets=rule,
        )


def _here(works: Iterable[Work]) -> Generator[Finished]:
    for work in works:
        yield write_shard(work)


def _by_ray(works: Iterable[Work], workers: int | None, source: Folder, out: Folder) -> Generator[Finished]:
    """Connect to Ray and give the results of a task for each shard, as they come; so many tasks at a time.

    ValueError: another machine of the cluster does not see the folders.
    """
    import ray

    from pipelines.cluster.connection import connect

    ours = not ray.is_initialized()
    cpus = int(connect().get("CPU", 1))
    with shared_places.trial_file("out", out) as written:
        shared_places.require_everywhere([*shared_places.SharedPlace.of("source.path", source), *written])
    return _results(works, workers or max(1, cpus), ours)


def _results(works: Iterable[Work], most: int, ours: bool) -> Generator[Finished]:
    """The results of Ray tasks. ours: end Ray afterwards. ValueError; OSError: of a task that was tried three times."""
    import ray
    from ray.exceptions import RayTaskError

    retry: Any = [OSError]  # Ray's annotation says bool, its documentation a list too
    task = ray.remote(num_cpus=1, max_retries=2, retry_exceptions=retry)(write_shard)
    running: list[Any] = []
    try:
        for work in works:
            running.append(task.remote(work))
            if len(running) >= most:
                (ready,), running = ray.wait(running)
                yield ray.get(ready)
        while running:
            (ready,), running = ray.wait(running)
            yield ray.get(ready)
    except RayTaskError as error:
        raise error.cause from None
    finally:
        for left in running:
            ray.cancel(left, force=True)
        if ours:
            ray.shutdown()


def verify(uri: str) -> list[str]:
    """Re-read all shards at a folder or URI and compare them with the manifest; what is wrong, a sentence each.

    ValueError: no manifest that can be read.
    """
    manifest, folder = read_manifest(uri), Folder(uri)
    known = {shard.file for shard in manifest.shards}
    extra = [e.name for e in folder.entries() if e.name.endswith(".parquet") and e.name not in known]
    problems = [f"{some(extra)} is not in the manifest"] if extra else []
    total = sum(shard.examples for shard in manifest.shards)
    if total + len(manifest.rejected) != manifest.source.images:
        told = f"{total} images and {len(manifest.rejected)} rejected ones"
        problems.append(f"the manifest was edited: it counts {told}, of {manifest.source.images} in the source")
    with ThreadPoolExecutor(READERS[folder.is_local]) as pool, meter("verified", total) as shown:
        found = pool.map(lambda shard: shard_problem(folder, shard, len(manifest.classes)), manifest.shards)
        for shard, problem in zip(manifest.shards, found, strict=True):
            problems += [problem] if problem else []
            shown.add(shard.examples)
    return problems
