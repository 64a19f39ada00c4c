"""Parts of a numbered set that are missing: by -00001-of-00003, by a gap in the numbers, or by a table of the tars."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines.listing import by_split, some, split_of
from pipelines.manifest import Split
from pipelines.storage import Folder

OF = re.compile(r"(?P<head>.*?)(?P<number>\d+)-of-(?P<total>\d+)(?P<tail>.*)")
NUMBERED = re.compile(r"(?P<head>.*?)(?P<number>\d{2,})(?P<tail>\.[^/]*)")
TABLE = "_info.json"  # what timm's sets on the hub have beside their tars
HINT = "--allow-missing goes on without"


def refuse_missing_parts(paths: Sequence[str], allowed: bool) -> None:
    """ValueError: names say that there are parts that are not here."""
    _refuse_two_sets(paths)
    missing = [] if allowed else [*_missing_of_total(paths), *_gaps(p for p in paths if not OF.fullmatch(p))]
    if missing:
        raise ValueError(f"all parts of a numbered set must be there, {some(missing)} is missing; {HINT}")


def _refuse_two_sets(paths: Sequence[str]) -> None:
    """ValueError: a part is there twice, or parts of two numberings: a set that was written over an older one."""
    totals: dict[str, str] = {}
    parts: dict[tuple[str, str], str] = {}
    for path in paths:
        if match := OF.fullmatch(path):
            other = parts.setdefault((match["head"], match["number"]), path)
            if totals.setdefault(match["head"], match["total"]) != match["total"]:
                other = next(p for p in paths if p.startswith(match["head"]))
            if other != path:
                raise ValueError(f"parts of one numbered set only must be there, {other} and {path} are of two")


def _missing_of_total(paths: Iterable[str]) -> list[str]:
    """Missing parts of sets such as train-00000-of-00003-<hash>.parquet. Numbers begin with 0 or 1."""
    sets: dict[tuple[str, str], set[int]] = {}
    tails: set[str] = set()
    for path in paths:
        if match := OF.fullmatch(path):
            sets.setdefault((match["head"], match["total"]), set()).add(int(match["number"]))
            tails.add(match["tail"])
    tail = tails.pop() if len(tails) == 1 else ""  # the hub has a hash there, another one in each name
    missing = []
    for (head, total), found in sets.items():
        count, width = int(total), len(total)
        first = 1 if count in found and 0 not in found else 0
        missing += [f"{head}{n:0{width}}-of-{total}{tail}" for n in range(first, first + count) if n not in found]
    return missing


def _gaps(paths: Iterable[str]) -> list[str]:
    """Missing numbers between the first and the last, where most are there: WordNet ids are no numbered set."""
    sets: dict[tuple[str, str, int], set[int]] = {}
    for path in paths:
        if match := NUMBERED.fullmatch(path):
            key = match["head"], match["tail"], len(match["number"])
            sets.setdefault(key, set()).add(int(match["number"]))
    missing = []
    for (head, tail, width), found in sets.items():
        span = range(min(found), max(found) + 1)
        if len(found) > 2 and 2 * len(found) > len(span):
            missing += [f"{head}{n:0{width}}{tail}" for n in span if n not in found]
    return missing


def refuse_missing_tars(
    source: Folder, names: Iterable[str], tars: Sequence[str], images: Mapping[Split, int], allowed: bool
) -> None:
    """ValueError: the table beside the tars lists others, or another number of images."""
    if TABLE not in names or allowed:
        return
    try:
        splits: Any = json.loads(source.read(TABLE))["splits"]
        files = [name for split in splits.values() for name in split.get("filenames", [])]
        counts = {name: int(split.get("num_samples", 0)) for name, split in splits.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{TABLE} must be JSON with splits and their filenames, it is not; {HINT} it") from None
    here = {path.rpartition("/")[2] for path in tars}
    kept = [f for s in images for f in by_split(files).get(s, [])]
    missing = sorted({f.rpartition("/")[2] for f in kept} - here)
    if missing:
        raise ValueError(f"all tars of {TABLE} must be there, {some(missing)} is missing; {HINT}")
    for name, count in counts.items():
        split = split_of(name)
        if split is not None and split in images and count and images[split] != count:
            raise ValueError(f"split {name} must have {count} images by {TABLE}, it has {images[split]}; {HINT}")
