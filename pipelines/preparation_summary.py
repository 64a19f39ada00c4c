"""The last lines of a preparation: what was passed over, rejected, converted, and what a person should look at."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.listing import some
from pipelines.manifest import Manifest


def lines(manifest: Manifest) -> Iterator[str]:
    """One sentence for each kind of thing, with its count and the first names."""
    for passed in manifest.passed_over:
        yield f"passed over: {passed.count:,} {passed.what}: {_few(passed.names, passed.count)}"
    if manifest.rejected:
        keys = [f"{r.key} ({r.reason})" for r in manifest.rejected]
        yield f"rejected: {len(keys):,} images that cannot be decoded: {some(keys)}"
    for unusual in manifest.unusual:
        yield f"unusual: {unusual.count:,} images, {unusual.what}: {_few(unusual.keys, unusual.count)}"
    if manifest.reencoded:
        yield f"converted: {manifest.reencoded:,} images were re-encoded"
    yield from _duplicates(manifest)
    if manifest.only_in_train:
        names = _few(manifest.only_in_train, len(manifest.only_in_train))
        yield f"warning: {len(manifest.only_in_train):,} classes have no image in val: {names}"
    if len(manifest.classes) < 2:
        yield "warning: all images are of one class"


def _duplicates(manifest: Manifest) -> Iterator[str]:
    found = manifest.duplicates
    if found is None:
        return
    pair = f", e.g. {found.pairs[0][0]} and {found.pairs[0][1]}" if found.pairs else ""
    for split, count in found.in_train.items():
        yield f"warning: {count:,} of {manifest.examples(split):,} images of {split} are in train too{pair}"
    if found.other_class:
        yield f"warning: {found.other_class:,} images have a twin of the same bytes in another class{pair}"
    for split, count in found.within.items():
        yield f"duplicates: {count:,} images of {split} are copies of others of {split}{pair}"


def _few(names: tuple[str, ...], count: int) -> str:
    more = count - min(3, len(names))
    return ", ".join(names[:3]) + (f" and {more:,} more" if more else "")
