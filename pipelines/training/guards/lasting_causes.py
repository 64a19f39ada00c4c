"""Errors of a worker that another try would meet again, told from those that a restart mends."""

from __future__ import annotations

import contextlib
import errno
import re
import traceback
from collections.abc import Iterator

from pipelines.progress import postings
from resnet.training.finite_loss import NotFinite

# Mistakes in the data, the settings or the program.
MISTAKES = (TypeError, LookupError, AttributeError, NameError, ImportError, AssertionError)
# Of files and folders. A lost connection is none of them.
OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ENAMETOOLONG}
# torch raises RuntimeError for these too.
SHAPES = re.compile(r"size mismatch|must match the (?:existing )?size|shapes? .*(?:cannot be multiplied|is invalid)")
# What a rank says when another one is gone, or its connection.
OF_PEERS = re.compile(r"gloo|nccl|connection|peer|broken pipe|timed? ?out|store|socket|rank", re.IGNORECASE)


class CannotSave(RuntimeError):
    """The state of a training cannot be written, and was not for as long as the run waits."""


@contextlib.contextmanager
def told_to_the_driver(run: str) -> Iterator[None]:
    """Within: an error that another try would meet again is posted for the driver, and the next try ends at once."""
    try:
        yield
    except Exception as error:
        if (reason := lasting(run, error)) is not None:
            postings.fail(run, reason)
        raise


def lasting(run: str, error: Exception) -> str | None:
    """Why another try would end the same way, as a sentence; None: it may not."""
    if isinstance(error, ValueError | NotFinite | CannotSave):
        return str(error)
    if isinstance(error, MISTAKES):
        return f"{error!r} ({where(error)})"
    if isinstance(error, OSError) and error.errno in OF_THE_DISK:
        return f"{error.strerror}: {error.filename or 'a file'} ({where(error)})"
    if not isinstance(error, RuntimeError):
        return None
    text = first_lines(error)
    if type(error).__name__ == "OutOfMemoryError":
        return f"out of memory: {text}; a smaller recipe.bn_batch takes less"
    if SHAPES.search(text):
        return f"{text} ({where(error)})"
    if OF_PEERS.search(text):
        return None
    same = postings.note_error(run, f"{text} ({where(error)})")
    return f"{text} ({where(error)}), twice" if same else None


def where(error: BaseException) -> str:
    """File and line of ours that an error came through last."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if re.search(r"/(?:resnet|pipelines|serve|jobs)/[^:]*\.py$", f.filename)] or frames
    if not ours:
        return "nowhere"
    name = re.sub(r"^.*/(?=(?:resnet|pipelines|serve|jobs)/)", "", ours[-1].filename)
    return f"{name}:{ours[-1].lineno}"


def first_lines(error: BaseException, most: int = 300) -> str:
    """An error's text in one line."""
    return " ".join(str(error).split())[:most] or type(error).__name__
