"""Tables of plain text, for a terminal and for log files."""

from __future__ import annotations

import io
from collections.abc import Sequence

GAP = 2  # blanks between two columns


def text_table(align: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: columns as wide as their longest cell, never wrapped, without colour.

    align: one letter a column, l or r. header: empty for none.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows and not header:
        return []
    table = Table(box=None, show_header=bool(header), pad_edge=False, padding=(0, GAP, 0, 0))
    for place, letter in enumerate(align):
        title = Text(header[place]) if header else ""
        table.add_column(title, justify="left" if letter == "l" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # a Text, for in a str [brackets] would be markup
    lines = [header, *rows] if header else rows
    width = sum(max(len(line[place]) for line in lines) + GAP for place in range(len(align)))
    page = io.StringIO()
    Console(file=page, width=2 * width + 1, color_system=None, force_terminal=False).print(table)  # 2: wide letters
    return [line.rstrip() for line in page.getvalue().splitlines()]
