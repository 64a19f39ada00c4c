"""Output to a reader that has gone, as `head` or a pager that was left: no traceback."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_when_closed() -> Iterator[None]:
    """Within: leave the block quietly where the reader of standard output has closed it; the program goes on."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere
