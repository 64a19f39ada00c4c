"""The output folder of a preparation: whose it is, what is finished in it, and the manifest at the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyarrow.fs import FileType
from pydantic import BaseModel, ValidationError

from pipelines.preparation.listing import some
from pipelines.preparation.shard_writer import NAMED
from pipelines.shards.manifest import FOLD, LEDGER, MANIFEST, Finished, Manifest, Unusual, read_manifest
from pipelines.storage import Folder

PLAN = "plan.json"  # in the ledger: the manifest that is to be, without shards
COMPARED = (
    "source.kind",
    "encoding.shorter_side",
    "encoding.quality",
    "encoding.grey_range",
    "row_group_size",
    "shuffle_seed",
    "splitting",
    "targets",
    "source.images",
    "source.fingerprint",
)


def refuse_other_use(out: Folder) -> None:
    """ValueError: the folder cannot be one of shards: it has no bucket, is a file, or holds other things."""
    bucket = out.needs_bucket()
    if bucket:
        raise ValueError(f"out must lie in a bucket that exists, {bucket} does not")
    if out.kind() == FileType.File:
        raise ValueError(f"out must be a folder, {out.uri} is a file")
    names = [entry.name for entry in out.entries(hidden=True)]
    if names and MANIFEST not in names and LEDGER not in names:
        raise ValueError(f"out must be empty or hold shards, {out.uri} holds {some(names)}")


def refuse_other_than_folds(out: Folder, folds: int) -> None:
    """ValueError: the folder of so many folds holds other things, such as one set of shards or other folds."""
    mine = {f"{FOLD}{n}" for n in range(1, folds + 1)}
    if others := sorted({entry.name for entry in out.entries(hidden=True)} - mine):
        raise ValueError(f"out must be empty or hold the {folds} folds, {out.uri} holds {some(others)}")


def resume_preparation(out: Folder, wanted: Manifest) -> dict[str, Finished] | None:
    """The finished shards by name; None: the manifest is there. ValueError: another preparation's folder."""
    sizes = {entry.name: entry.size for entry in out.entries(hidden=True)}
    if MANIFEST in sizes:
        _refuse_difference(read_manifest(out.uri), wanted, out)
        return None
    ledger = {entry.name for entry in out.entries(LEDGER)}
    if PLAN not in ledger:
        with out.writing(f"{LEDGER}/{PLAN}") as stream:
            stream.write(wanted.model_dump_json(indent=1).encode())
        return {}
    _refuse_difference(Manifest.model_validate_json(out.read(f"{LEDGER}/{PLAN}")), wanted, out)
    found = [_read(out, f"{LEDGER}/{name}") for name in ledger if name.endswith(".parquet.json")]
    return {f.shard.file: f for f in found if f is not None and sizes.get(f.shard.file) == f.shard.bytes}


def _read(out: Folder, name: str) -> Finished | None:
    """An entry of the ledger; None where a kill left half of it."""
    try:
        return Finished.model_validate_json(out.read(name))
    except ValidationError:
        return None


def _refuse_difference(old: Manifest, wanted: Manifest, out: Folder) -> None:
    """ValueError: what is in the folder was made from another source, or in another way."""
    for name in COMPARED:
        was, now = _value(old, name), _value(wanted, name)
        if was == now:
            continue
        change = f"with {name} {_shown(was)}, now it is {_shown(now)}"
        if name == "source.fingerprint":
            change = "from other images, or in another order, than source.path gives now"
        raise ValueError(f"out {out.uri} was written {change}; choose another out, or delete it")


def _value(manifest: Manifest, name: str) -> Any:
    value: Any = manifest
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _shown(value: Any) -> str:
    """A value in a sentence: of a model the fields that are set."""
    if isinstance(value, BaseModel):
        return ", ".join(f"{k} {v}" for k, v in value.model_dump().items() if v is not None)
    return str(value)


def finish(out: Folder, wanted: Manifest, done: list[Finished], max_rejected: float) -> Manifest:
    """Write the manifest and clear the ledger. ValueError: too many images were rejected."""
    rejected = tuple(r for f in done for r in f.rejected)
    if len(rejected) > max_rejected * wanted.source.images:
        few = some([f"{r.key} ({r.reason})" for r in rejected])
        raise ValueError(
            f"max_rejected must be at least {len(rejected) / wanted.source.images:.4g} for the {len(rejected)} of "
            f"{wanted.source.images} images that cannot be decoded, got {max_rejected:g}: {few}"
        )
    manifest = wanted.model_copy(
        update={
            "shards": tuple(f.shard for f in done),
            "rejected": rejected,
            "unusual": _together([*wanted.unusual, *(u for f in done for u in f.unusual)]),
            "reencoded": sum(f.reencoded for f in done),
        }
    )
    return written(out, manifest)


def written(out: Folder, manifest: Manifest) -> Manifest:
    """The manifest, after it is in its folder and the ledger is cleared."""
    with out.writing(MANIFEST) as stream:
        stream.write(manifest.model_dump_json(indent=1).encode())
    clear(out)
    return manifest


def clear(out: Folder) -> None:
    """Remove the ledger, and what killed tasks left."""
    out.remove(LEDGER)
    for entry in out.entries():
        if entry.name.endswith(".part"):
            out.remove(entry.name)


def _together(parts: Iterable[Unusual]) -> tuple[Unusual, ...]:
    """One entry for each kind of unusual image, the most frequent first."""
    by_kind: dict[str, list[Unusual]] = {}
    for part in parts:
        by_kind.setdefault(part.what, []).append(part)
    merged = [
        Unusual(what=what, count=sum(p.count for p in found), keys=tuple(k for p in found for k in p.keys)[:NAMED])
        for what, found in by_kind.items()
    ]
    return tuple(sorted(merged, key=lambda u: (-u.count, u.what)))
