"""The log of decisions: dated entries of at most twelve lines, one file a subject, all of them on the index page."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "decisions"
SUBJECTS = sorted(path for path in FOLDER.glob("*.md") if path.name != "index.md")
MOST_LINES, MOST_CHARACTERS = 12, 120


def entries(path: Path) -> dict[str, list[str]]:
    """Heading of each entry -> its lines that are not empty, without the heading."""
    found: dict[str, list[str]] = {}
    heading = None
    for line in path.read_text().splitlines():
        if line.startswith("## "):
            heading = line
            assert heading not in found, f"{path.name} has two entries {heading!r}"
            found[heading] = []
        elif heading and line.strip():
            found[heading].append(line)
    return found


@pytest.mark.parametrize("path", SUBJECTS, ids=lambda path: path.name)
def test_no_entry_has_more_than_twelve_lines(path: Path) -> None:
    assert path.read_text().startswith("# Decisions: ")
    found = entries(path)
    assert found, "a subject has an entry"
    for heading, lines in found.items():
        assert re.fullmatch(r"## \d{4}-\d\d-\d\d: \S.*", heading), f"{heading!r} must be `## DATE: what was decided`"
        assert 1 <= len(lines) <= MOST_LINES, f"{path.name}, {heading!r} has {len(lines)} lines"
        # A line that is too long would be a way around the limit.
        assert all(len(line) <= MOST_CHARACTERS for line in lines), f"{path.name}, {heading!r} has a long line"


def test_index_names_every_subject() -> None:
    named = set(re.findall(r"\]\(([\w-]+\.md)\)", (FOLDER / "index.md").read_text()))
    assert named == {path.name for path in SUBJECTS}
