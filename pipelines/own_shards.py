"""Shards of this project as a source, e.g. to write them again with smaller images: their classes and keys are kept."""

from __future__ import annotations

from dataclasses import replace

from pipelines.listing import Listing
from pipelines.manifest import MANIFEST, read_manifest


def with_their_classes(listing: Listing) -> Listing:
    """The listing with the classes of the manifest beside its Parquet files; as it is where there is none of ours."""
    if MANIFEST not in {entry.name for entry in listing.source.entries()}:
        return listing
    try:
        manifest = read_manifest(listing.source.uri)
    except ValueError:
        return listing  # another program's, which may be anything
    return replace(listing, classes=manifest.classes)
