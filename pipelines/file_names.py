"""Names of local files as text: Linux allows any bytes in a name, Arrow's columns and JSON hold UTF-8 only.

And names below a folder that is given by URI, and URIs as people may see them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator

from resnet.host.home_folder import UPLOADED

# Where a byte that is not UTF-8 goes while a name is text: a private area of Unicode, as Cygwin and Darwin use it.
_FIRST = 0xF700
_TO_TEXT = {0xDC00 + byte: chr(_FIRST + byte) for byte in range(0x80, 0x100)}
_TO_SYSTEM = {_FIRST + byte: chr(0xDC00 + byte) for byte in range(0x80, 0x100)}
_TO_PERCENT = {_FIRST + byte: f"%{byte:02X}" for byte in range(0x80, 0x100)}


def as_text(name: str) -> str:
    """A name as os.scandir gives it -> text that can be encoded; the same for all names that are UTF-8."""
    return name if name.isascii() else name.translate(_TO_TEXT)


def is_odd(name: str) -> bool:
    """True if as_text changed the name."""
    return not name.isascii() and name.translate(_TO_SYSTEM) != name


def as_path(name: str) -> str:
    """The name that the system knows, for open(). A file whose own name holds such characters is found first."""
    return name if not is_odd(name) or os.path.lexists(name) else name.translate(_TO_SYSTEM)


def shown_name(name: str) -> str:
    """A name for people and keys: bytes that are not UTF-8 become %XX."""
    return name if name.isascii() else name.translate(_TO_PERCENT)


def is_utf8(path: str) -> bool:
    """True if a path from the command line can be encoded."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


# Options of a URI whose value lets somebody in: Arrow's, fsspec's, and those of links that AWS, Google and Azure sign.
_SECRET = re.compile(
    r"secret|token|passw|signature|^sig$|^se$|credential$|access_?key|account_?key|^key$", re.IGNORECASE
)
_URI = re.compile(r"\b([a-z][a-z0-9+.-]*://)(?:[^\s/?#'\"]*@)?([^\s?#'\"]*)(\?[^\s'\",;)]*)?", re.IGNORECASE)


def below(uri: str, name: str) -> str:
    """The path or URI of a name in a folder. Options such as ?endpoint_override=HOST stay at the end."""
    place, mark, options = uri.partition("?") if "://" in uri else (uri, "", "")
    return f"{place.rstrip('/')}/{name}{mark}{options}"


def absolute(place: str) -> str:
    """A folder as every process understands it, or a URI: workers, tasks and trials run in folders of their own."""
    return place if "://" in place else str(Path(place).expanduser().resolve())


def require_lasting(place: str) -> str:
    """A place to write to. ValueError: it lies in the copy of the working directory that a Ray job runs in."""
    if "://" not in place and not Path(place).expanduser().is_absolute() and UPLOADED in os.getcwd():
        raise ValueError(
            f"must be an absolute path or a URI in a Ray job, whose working directory is a copy that Ray removes, "
            f"got {place}"
        )
    return place


Output = Annotated[str, AfterValidator(require_lasting)]  # a place that a job writes to


def secret_options(uri: str) -> list[str]:
    """Names of the options of a URI that hold a secret."""
    return [name for name, _ in parse_qsl(urlsplit(uri).query, keep_blank_values=True) if _SECRET.search(name)]


def without_secrets_in(text: str) -> str:
    """A text whose URIs have no credentials and no options."""
    return _URI.sub(r"\1\2", text)
