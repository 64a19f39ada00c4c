"""The range of grey levels of a source whose images have more than 8 bits, measured before it is prepared."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipelines.listing import Listing
from pipelines.sources import read_images
from resnet import grey_range
from resnet.decoding import CorruptImage, grey_levels

COUNT = 256  # images that are looked at


def measured_range(listing: Listing, count: int = COUNT) -> tuple[int, int]:
    """(low, high): percentiles 0.1 and 99.9 of the pixels of some training images, spread evenly over the list.

    The same list gives the same range. Raises ValueError if none of the images is grey of more than 8 bits.
    """
    train = listing.splits["train"]
    places = np.unique(np.linspace(0, train.num_rows - 1, min(count, train.num_rows)).round().astype(np.int64))
    found = grey_range.measure(_levels(listing, train.take(pa.array(places))))
    if found is None:
        raise ValueError(
            f"measure_grey_range is for grey images of more than 8 bits, none of the {len(places)} looked at is one"
        )
    return found.low, found.high


def _levels(listing: Listing, rows: pa.Table) -> Iterator[np.ndarray]:
    for data in read_images(listing.kind, listing.source, rows):
        try:
            levels = grey_levels(data)
        except CorruptImage:  # preparation lists it with its reason
            continue
        if levels is not None:
            yield levels
