"""Folders by URI: a local path, file://, s3://, gs:// or any other that Arrow or fsspec opens."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from pipelines.file_names import as_path, as_text, is_odd, secret_options, without_secrets_in

READERS = {True: 1, False: 16}  # threads by Folder.is_local; they wait for the disk or the network, not for a core
OF_BUCKETS = {"s3", "gs", "gcs", "abfs", "az"}
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}  # of file systems without hard links
NOT_IMAGES = {"Thumbs.db", "desktop.ini"}  # what file managers leave behind, beside names that begin with a dot
# What Arrow says of a bucket that does not answer, or that asks to come later. Not of what it lacks or forbids.
OF_OUTAGES = re.compile(
    r"curlCode|NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|THROTTLING|REQUEST_TIMEOUT|"
    r"HTTP status (?:429|50[0234])"
)
OUTAGE, LOOK_AGAIN = 15 * 60.0, 2.0  # seconds that a bucket is waited for, and between two tries

Item = TypeVar("Item")
Result = TypeVar("Result")


def is_outage(error: BaseException) -> bool:
    """True if a bucket did not answer or asked to come later, so that another try may do."""
    return not isinstance(error, FileNotFoundError) and OF_OUTAGES.search(str(error)) is not None


def patiently(act: Callable[[], Result], uri: str) -> Result:
    """act(), tried again while the bucket of a URI is away, for OUTAGE seconds; said once. Then its error."""
    began, said = time.monotonic(), False
    while True:
        try:
            return act()
        except (OSError, ValueError) as error:  # Arrow's own errors are of these kinds
            if not is_outage(error) or time.monotonic() - began > OUTAGE:
                raise
            if not said:
                where, reason = _without_options(uri), _first_sentence(error)
                print(f"{where} is away, and waited for {OUTAGE / 60:g} minutes at most: {reason}", file=sys.stderr)
                said = True
        time.sleep(LOOK_AGAIN)


def filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of a folder, and the folder's path in it without a trailing slash. A local path becomes absolute.

    Arrow's own file systems take options in the query string: s3://bucket/x?endpoint_override=host:port&scheme=http.
    ValueError: no file system for this scheme, it does not answer, or the URI holds a secret.
    """
    scheme = uri.partition("://")[0] if "://" in uri else ""
    if scheme and (secrets := ["password"] * (urlsplit(uri).password is not None) + secret_options(uri)):
        raise ValueError(
            f"{_without_options(uri)} must be given without its {' and '.join(secrets)}, which would stand in every "
            "record; set it in the environment of all nodes, e.g. as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if scheme in OF_BUCKETS and not urlsplit(uri).netloc:
        raise ValueError(f"{_without_options(uri)} must name a bucket, as {scheme}://BUCKET/FOLDER")
    if scheme in ("", "file"):
        path = unquote(urlsplit(uri).path) if scheme else uri
        return fs.LocalFileSystem(), str(Path(path).expanduser().resolve())
    try:
        system, path = fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ImportError):  # hf:// is Hugging Face's package
        system, path = _by_fsspec(uri)
    except OSError as error:
        raise ValueError(f"cannot open {_without_options(uri)}: {_first_sentence(error)}") from None
    return system, path.rstrip("/")


def _by_fsspec(uri: str) -> tuple[fs.FileSystem, str]:
    """A file system that only fsspec knows. Its package must be installed, e.g. adlfs for abfs://."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(uri)
    except Exception as error:  # each of its file systems raises errors of its own library
        raise ValueError(f"cannot open {_without_options(uri)}: {_first_sentence(error)}") from None
    return fs.PyFileSystem(fs.FSSpecHandler(system)), path


def _without_options(uri: str) -> str:
    """A URI without credentials and options."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _first_sentence(error: BaseException) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return without_secrets_in(lines[0].partition(" (Request ID")[0])


class Entry(NamedTuple):
    """A file or folder inside a folder. size: bytes of a file."""

    name: str
    is_folder: bool
    size: int


def is_hidden(name: str) -> bool:
    """True if file managers hide a name or made it."""
    return name.startswith(".") or name in NOT_IMAGES


def _local_entries(path: str) -> list[Entry]:
    """Contents of a local folder; none where it is absent. Links are followed, size 0 where they lead nowhere."""
    try:
        with os.scandir(path) as found:
            return [_entry(e) for e in found]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _entry(entry: os.DirEntry[str]) -> Entry:
    try:
        is_folder = entry.is_dir()
        return Entry(as_text(entry.name), is_folder, 0 if is_folder else entry.stat().st_size)
    except OSError:  # a link that leads nowhere or round
        return Entry(as_text(entry.name), False, 0)


@dataclass(frozen=True)
class Folder:
    """A folder by URI. Paths are relative to it, with forward slashes."""

    uri: str

    @cached_property
    def place(self) -> tuple[fs.FileSystem, str]:
        """File system, and the folder's path in it."""
        return filesystem(self.uri)

    def __reduce__(self) -> tuple[Any, ...]:
        """To a Ray task it travels by its URI alone; a local path becomes absolute, for a task's folder is another."""
        return Folder, (self.place[1] if self.is_local else self.uri,)

    @property
    def shown(self) -> str:
        """The place for a record: an absolute path, or the URI without credentials and options."""
        return self.place[1] if self.is_local else _without_options(self.uri)

    @property
    def is_local(self) -> bool:
        """On a file system of this machine, where small reads are cheap and a rename is atomic."""
        return isinstance(self.place[0], fs.LocalFileSystem)

    def path(self, name: str = "") -> str:
        """The path of a name in the file system."""
        return f"{self.place[1]}/{name}" if name else self.place[1]

    def kind(self, name: str = "") -> fs.FileType:
        """File, Directory or NotFound."""
        return self.place[0].get_file_info(self.path(name)).type

    @property
    def is_file(self) -> bool:
        """True where a file lies at the place, and no folder."""
        system, path = self.place
        return system.get_file_info(path).type == fs.FileType.File

    def entries(self, name: str = "", hidden: bool = False) -> list[Entry]:
        """Contents of a folder, sorted by name; empty where there is no such folder."""
        if self.is_local:
            return sorted(e for e in _local_entries(as_path(self.path(name))) if hidden or not is_hidden(e.name))
        selector = fs.FileSelector(self.path(name), allow_not_found=True)
        infos = self.place[0].get_file_info(selector)
        found = (Entry(i.base_name, i.type == fs.FileType.Directory, i.size or 0) for i in infos)
        return sorted(e for e in found if hidden or not is_hidden(e.name))

    def files(self) -> list[str]:
        """Names of all files in the folder and below it, sorted; none where there is no such folder."""
        system, root = self.place
        infos = system.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        return sorted(info.path.removeprefix(f"{root}/") for info in infos if info.type == fs.FileType.File)

    def open(self, name: str) -> pa.NativeFile:
        """A file for reading at any place."""
        if self.is_local and is_odd(name):
            return pa.PythonFile(open(as_path(self.path(name)), "rb"))  # it closes what it wraps
        return self.place[0].open_input_file(self.path(name))

    def read(self, name: str) -> bytes:
        """A whole file."""
        if self.is_local and is_odd(name):
            return Path(as_path(self.path(name))).read_bytes()
        with self.place[0].open_input_stream(self.path(name), compression=None) as stream:
            return stream.read()

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes] | pa.NativeFile]:
        """A new file. On a local disk it appears whole or not at all, and replaces what was there.

        An object store shows an upload when it is complete, so there the stream goes to the name itself.
        """
        system, path = self.place[0], self.path(name)
        if not self.is_local:
            with system.open_output_stream(path, compression=None) as stream:
                yield stream
            return
        part = f"{path}.{uuid.uuid4().hex[:8]}.part"
        Path(part).parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            Path(part).unlink(missing_ok=True)

    def create(self, name: str, data: bytes) -> bool:
        """Write a new file on a local disk, whole, unless there is one of this name: of several at once one writes."""
        part = Path(f"{self.path(name)}.{uuid.uuid4().hex[:8]}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            os.link(part, self.path(name))
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            with contextlib.suppress(FileExistsError), open(self.path(name), "xb") as file:
                file.write(data)
                return True
            return False
        finally:
            part.unlink(missing_ok=True)
        return True

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all it holds; nothing happens where there is none."""
        kind = self.kind(name)
        if kind == fs.FileType.Directory:
            # On gs:// a folder is its files; when they are gone Arrow misses an entry for the folder itself.
            with contextlib.suppress(FileNotFoundError):
                self.place[0].delete_dir(self.path(name))
        elif kind == fs.FileType.File:
            self.place[0].delete_file(self.path(name))

    def holds(self, other: Folder) -> bool:
        """True if another folder is this one or lies in it."""
        mine, others = self.place, other.place
        return mine[0] == others[0] and f"{others[1]}/".startswith(f"{mine[1]}/")

    def needs_bucket(self) -> str | None:
        """The name of the bucket that this folder lies in and that does not exist, else None."""
        system, path = self.place
        if system.type_name not in ("s3", "gcs"):
            return None
        bucket = path.partition("/")[0]
        return bucket if system.get_file_info(bucket).type == fs.FileType.NotFound else None


def side_by_side(folder: Folder, task: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """task(item) of each item, by threads where it waits for a network. On a local disk parsing is the work."""
    if folder.is_local:
        return [task(item) for item in items]
    with ThreadPoolExecutor(READERS[False]) as pool:
        return list(pool.map(task, items))
