"""Many files or byte ranges of a source, read ahead by threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import pyarrow as pa

from pipelines.storage import READERS, Folder

AHEAD = 2**24, 64  # at most so many bytes and images are read at once, twice over
EACH = {True: 64, False: 1}  # images that a thread reads in one go, by Folder.is_local: a disk gains nothing from more
OPEN_FILES = 128  # archives that a task keeps open
FileRange = tuple[str, int, int]  # path, offset, size


def read_files(source: Folder, rows: pa.Table) -> Iterator[bytes]:
    """The images of rows whose file is the image, in order."""

    def read(place: FileRange) -> bytes:
        path, _, size = place
        return _complete(source.read(path), path, size)

    return _read_ahead(source, rows, read)


def read_ranges(source: Folder, rows: pa.Table) -> Iterator[bytes]:
    """The images of rows that are `size` bytes at `offset` of their file, in order."""
    opened = lru_cache(OPEN_FILES)(source.open)

    def read(place: FileRange) -> bytes:
        path, offset, size = place
        return _complete(opened(path).read_at(size, offset), path, size)

    return _read_ahead(source, rows, read)


def _complete(data: bytes, path: str, size: int) -> bytes:
    if len(data) != size:
        raise ValueError(f"{path} changed while it was read: {size} bytes were listed, {len(data)} are there")
    return data


def _read_ahead(source: Folder, rows: pa.Table, read: Callable[[FileRange], bytes]) -> Iterator[bytes]:
    """The image at each row, in order, while threads read what comes next. Memory: twice AHEAD."""
    parts = _parts(rows)
    with ThreadPoolExecutor(READERS[source.is_local]) as pool:
        try:
            coming = [_submit(pool, source, part, read) for part in itertools.islice(parts, 1)]
            while coming:
                coming += [_submit(pool, source, part, read) for part in itertools.islice(parts, 1)]
                yield from _images(coming.pop(0))
        finally:
            pool.shutdown(cancel_futures=True)


def _parts(rows: pa.Table) -> Iterator[pa.Table]:
    """Stretches of rows within AHEAD, one row at least."""
    sizes, start = rows["size"].to_numpy(), 0
    while start < len(sizes):
        bytes_before = np.cumsum(sizes[start : start + AHEAD[1]])
        count = max(1, int(np.searchsorted(bytes_before, AHEAD[0], side="right")))
        yield rows.slice(start, count)
        start += count


def _submit(
    pool: ThreadPoolExecutor, source: Folder, part: pa.Table, read: Callable[[FileRange], bytes]
) -> list[Future[dict[int, bytes]]]:
    """Reads of a stretch in the order of places, which a disk likes; each result is by the number of the row."""
    places = list(zip(part["path"].to_pylist(), part["offset"].to_pylist(), part["size"].to_pylist(), strict=True))
    order = sorted(range(len(places)), key=places.__getitem__)
    each = EACH[source.is_local]
    return [
        pool.submit(lambda rows: {i: read(places[i]) for i in rows}, order[start : start + each])
        for start in range(0, len(order), each)
    ]


def _images(futures: list[Future[dict[int, bytes]]]) -> Iterator[bytes]:
    """The images of a stretch in the order of its rows. What is handed on is held here no longer."""
    images = {i: data for future in futures for i, data in future.result().items()}
    futures.clear()
    for i in range(len(images)):
        yield images.pop(i)
