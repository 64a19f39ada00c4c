"""Names of local files as text: Linux allows any bytes in a name, Arrow's columns and JSON hold UTF-8 only."""

from __future__ import annotations

import os

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
