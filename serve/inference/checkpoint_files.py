"""The files of a checkpoint wherever it lies: a local folder, s3://, gs://, abfs://, http(s)://.

Buckets are read by Arrow, which is installed and has no packages beside it, web addresses by Python itself; any other
scheme by fsspec, which names the package that it lacks. pipelines/storage.py reads the same places, with what shards
and trainings need beside; serve may not import it.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from resnet.training.checkpoint import FILES

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

WEB = ("http", "https")
TIMEOUT = 60.0  # seconds without a byte from a web server


@contextlib.contextmanager
def local(place: str, names: Sequence[str] = FILES) -> Iterator[Path]:
    """A local folder with those of the files that there are. It is a temporary copy where the place is a URI.

    ValueError: the place cannot be read; OSError where the copy cannot be written.
    """
    if is_local(place):
        yield _local_path(place)
        return
    with tempfile.TemporaryDirectory(prefix="resnet-checkpoint-") as folder:
        for name in names:
            _fetch(place, name, Path(folder, name))
        yield Path(folder)


def is_local(place: str) -> bool:
    """True if a place is a folder of this machine."""
    return "://" not in place or place.startswith("file://")


def _local_path(place: str) -> Path:
    return Path(unquote(urlsplit(place).path)) if "://" in place else Path(place).expanduser()


def require(place: str, what: str = "checkpoint") -> None:
    """ValueError where a place surely holds no checkpoint: a wrong folder or bucket, said before Ray starts.

    what: the setting that names it. What only the nodes of a cluster can reach, or have keys for, is theirs to say.
    """
    if is_local(place):
        if not (_local_path(place) / "model.safetensors").is_file():
            raise ValueError(f"{what} must be a folder with model.safetensors, got {place}")
        return
    with tempfile.TemporaryDirectory(prefix="resnet-checkpoint-") as folder, contextlib.suppress(OSError):
        if not _fetch(place, "progress.json", Path(folder, "progress.json")):
            raise ValueError(f"{what} must be a folder with model.safetensors, got {shown_uri(place)}")


def sizes(place: str, names: Sequence[str] = FILES) -> dict[str, int]:
    """Bytes of those files of a checkpoint that are there, without reading them. {}: the place does not say."""
    if is_local(place):
        files = {name: _local_path(place) / name for name in names}
        return {name: file.stat().st_size for name, file in files.items() if file.is_file()}
    if urlsplit(place).scheme in WEB:
        return {}
    try:
        system, root = file_system(place)
        found = system.get_file_info([f"{root}/{name}" for name in names])
    except OSError:
        return {}
    return {name: info.size for name, info in zip(names, found, strict=True) if info.is_file}


def shown_uri(place: str) -> str:
    """A URI without credentials and options."""
    parts = urlsplit(place)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _fetch(place: str, name: str, target: Path) -> bool:
    """Copy a file, if there is one. Unreadable: OSError with the place; a scheme that nobody reads: ValueError."""
    try:
        if urlsplit(place).scheme in WEB:
            return _fetch_from_web(place, name, target)
        system, root = file_system(place)
        with system.open_input_stream(f"{root}/{name}", compression=None) as stream, target.open("wb") as file:
            shutil.copyfileobj(stream, file, 2**20)
    except FileNotFoundError:
        return False
    except OSError as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise OSError(f"checkpoint {shown_uri(place)} cannot be read: {first}") from None
    return True


def _fetch_from_web(place: str, name: str, target: Path) -> bool:
    parts = urlsplit(place)
    address = parts._replace(path=f"{parts.path.rstrip('/')}/{name}").geturl()
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer, target.open("wb") as file:
            shutil.copyfileobj(answer, file, 2**20)
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            return False
        raise OSError(f"{error.code} {error.reason}") from None
    return True


def file_system(place: str) -> tuple[FileSystem, str]:
    """Arrow's file system of a URI, and the path in it. ValueError: nothing that is installed reads such a URI."""
    import pyarrow as pa
    from pyarrow import fs

    if urlsplit(place).password:
        raise ValueError(f"checkpoint must be given without its password, got one in {shown_uri(place)}")
    try:
        system, path = fs.FileSystem.from_uri(place)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        system, path = _by_fsspec(place)
    return system, path.rstrip("/")


def _by_fsspec(place: str) -> tuple[Any, str]:
    import fsspec
    from pyarrow import fs

    try:
        system, path = fsspec.core.url_to_fs(place)
    except (ValueError, ImportError) as error:
        raise ValueError(
            f"checkpoint must be a folder or URI that can be opened, got {shown_uri(place)}: {error}"
        ) from None
    return fs.PyFileSystem(fs.FSSpecHandler(system)), path
