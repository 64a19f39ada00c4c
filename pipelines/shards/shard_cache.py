"""A cache of shards on a node's own disk, shared by all ranks, epochs and runs on that node.

An entry is a whole shard under the name of its sha256, which is compared when it is fetched; every page is compared
with its checksum when it is read. What is not there the first who asks fetches, while others read from the bucket.
Nothing here can stop a training: where the cache has no room, or its disk is full, rows come from the bucket as ever.

A training goes through all shards in another order each epoch. With room for half of them, each read once an epoch, and
the least recently used making room, 15 % would be found; where what is there stays it is 50 %. So only shards of other
data make room, the oldest first, and of data larger than the cache the part that fits stays.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipelines.data_settings import Data
from resnet.host.home_folder import home_folder

log = logging.getLogger(__name__)

PIECE = 2**25  # bytes of one request
SPARED = 2**30  # bytes of the disk that are left to others
AGAIN = 600.0  # seconds until a disk that was full is tried again
SUFFIX, BEGUN, LOCK = ".parquet", ".part", "lock"
FULL = {errno.ENOSPC, errno.EDQUOT}


class SourceError(Exception):
    """A shard cannot be read from where it lies."""


@dataclass(frozen=True)
class ShardCache:
    """The cache of each node.

    most: bytes of all its entries; folder: None: cache/ in the node's $RESNET_HOME; mine: sha256 of all shards of the
    data that are read through it, which make no room.
    """

    most: int
    folder: str | None = None
    mine: frozenset[str] = frozenset()

    @classmethod
    def of(cls, data: Data) -> ShardCache | None:
        """As a run asks for it, or None."""
        return None if data.cache_size is None else cls(int(data.cache_size * 2**30), data.cache_path)

    @property
    def place(self) -> Path:
        """The folder on this node."""
        return Path(self.folder) if self.folder is not None else home_folder() / "cache"

    @property
    def shown(self) -> str:
        """The folder for a sentence, where there may be no home that can be written."""
        return self.folder or "cache/ of $RESNET_HOME"

    def entry(self, sha256: str) -> Path:
        """The file of a shard, which may be absent."""
        return self.place / f"{sha256}{SUFFIX}"

    def path(self, sha256: str, size: int, source: Callable[[], Any]) -> Path | None:
        """A shard on this node's disk, fetched if need be; None: read it from where it lies.

        size: its bytes; source: opens it, with `read(n)` and `close()`.
        """
        try:
            entry = self.entry(sha256)
            if _is_whole(entry, size):
                os.utime(entry)
                return entry
            if any(time.monotonic() < _off_until.get(key, 0.0) for key in (self.shown, sha256)):
                return None
            return self._fetch(entry, sha256, size, source)
        except SourceError:  # whoever reads the shard itself waits for its bucket, or says what is wrong
            return None
        except (OSError, ValueError) as error:
            full = isinstance(error, OSError) and error.errno in FULL
            why = "its disk is full" if full else str(error)
            log.warning("the cache of shards in %s is not used, shards are streamed: %s", self.shown, why)
            _off_until[self.shown] = time.monotonic() + AGAIN
            return None

    def drop(self, sha256: str) -> None:
        """Remove an entry that cannot be read."""
        with contextlib.suppress(OSError):
            self.entry(sha256).unlink()
            log.warning("a damaged shard in %s is fetched again: %s", self.shown, sha256)

    def _fetch(self, entry: Path, sha256: str, size: int, source: Callable[[], Any]) -> Path | None:
        """Copy a shard here, unless another process does so or there is no room. It appears whole or not at all."""
        part = entry.with_suffix(BEGUN)
        self.place.mkdir(parents=True, exist_ok=True)
        with _locked(part, wait=False) as file:
            if file is None:
                return None
            try:
                if _is_whole(entry, size):
                    return entry
                file.truncate(0)
                if self._reserve(file, size) and _copied(source, file) == sha256:
                    os.replace(part, entry)
                    return entry
                # No room, or not what the manifest says, of which whoever reads the shard itself will tell.
                _off_until[sha256] = time.monotonic() + AGAIN
                return None
            finally:
                if _is_at(file, part):
                    part.unlink()

    def _reserve(self, part: IO[bytes], size: int) -> bool:
        """Make room, and take it on the disk before the first byte comes. False: there is none. OSError: disk full."""
        with _locked(self.place / LOCK, wait=True):
            held = sorted(self._held(), key=lambda file: file[2])
            used = sum(bytes_of for _, bytes_of, _ in held)
            others = [file for file in held if file[0].suffix == SUFFIX and file[0].stem not in self.mine]
            if used - sum(file[1] for file in others) + size > self.most:
                return False
            for path, bytes_of, _ in others:
                if used + size <= self.most:
                    break
                path.unlink(missing_ok=True)
                used -= bytes_of
            if shutil.disk_usage(self.place).free < size + SPARED:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            _take(part, size)
            return True

    def _held(self) -> Iterator[tuple[Path, int, float]]:
        """Path, bytes and last use of what is here, and of what is being fetched."""
        with os.scandir(self.place) as found:
            for file in found:
                with contextlib.suppress(FileNotFoundError):
                    if file.name.endswith((SUFFIX, BEGUN)):
                        state = file.stat()
                        yield Path(file.path), state.st_size, state.st_mtime


_off_until: dict[str, float] = {}  # folder or sha256 -> when it is tried again, on this process's clock


def _is_whole(entry: Path, size: int) -> bool:
    """True if an entry is there with all its bytes."""
    try:
        return entry.stat().st_size == size
    except OSError:
        return False


def _take(file: IO[bytes], size: int) -> None:
    """Take room on the disk for a file. OSError: there is none."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:  # macOS
        os.truncate(file.fileno(), size)


def _copied(source: Callable[[], Any], file: IO[bytes]) -> str:
    """Copy a source into a file; the sha256 of what came. SourceError: it cannot be read."""
    digest = hashlib.sha256()
    for piece in _pieces(source):
        digest.update(piece)
        file.write(piece)
    file.flush()
    return digest.hexdigest()


def _pieces(source: Callable[[], Any]) -> Iterator[bytes]:
    try:
        with contextlib.closing(source()) as stream:
            while piece := stream.read(PIECE):
                yield piece
    except (OSError, ValueError) as error:  # Arrow's own errors are of these kinds
        raise SourceError from error


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[IO[bytes] | None]:
    """Within: a file that no other process holds, or None where one does and is not waited for."""
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        # Its last holder may meanwhile have given the file its final name, or removed it.
        yield file if _is_at(file, path) else None


def _is_at(file: IO[bytes], path: Path) -> bool:
    """True if an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
