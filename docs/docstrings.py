"""An extension of griffe: docstrings of plain text as Markdown that shows what is written.

Indented lines become code blocks also where no blank line stands before them, and <name> is not taken for a tag.
"""

import re
from typing import Any

from griffe import Extension, Object

SECTIONS = ("Args:", "Attributes:", "Example:", "Examples:", "Raises:", "Returns:", "Yields:")  # griffe's own to read


def as_markdown(text: str) -> str:
    """The docstring with a blank line before each indented block, and angle brackets escaped outside of code."""
    lines: list[str] = []
    section = False
    for line in text.splitlines():
        if not line.startswith(" "):
            section = line.strip() in SECTIONS if line.strip() else section
        starts = line.startswith("    ") and lines and lines[-1].strip() and not lines[-1].startswith("    ")
        if starts and not section:
            lines.append("")
        is_code = line.startswith("    ") and not section
        lines.append(line if is_code else re.sub(r"(`[^`]*`)|<", lambda found: found[1] or "&lt;", line))
    return "\n".join(lines)


class PlainDocstrings(Extension):
    """Applies as_markdown to every docstring."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute as it is loaded."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
