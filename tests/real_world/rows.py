#!/usr/bin/env python3
"""What real users' inputs, clients and hosts broke once, row by row, with the tests that hold the right outcome.

    python tests/real_world/rows.py               run all rows and print a table; the exit status is 1 if one fails
    python tests/real_world/rows.py 28 29         some rows only
    python tests/real_world/rows.py --reports A B     of runs of the suite: pytest --junitxml=A -o junit_family=xunit1

The tests lie beside the modules that they hold; faults.py and siblings.py are their index. A row's number is that of
the list of faults; from 101 on they are siblings, which no list names.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.real_world.faults import FAULTS  # noqa: E402
from tests.real_world.siblings import SIBLINGS  # noqa: E402

ROWS = dict(sorted((FAULTS | SIBLINGS).items()))


def tested(numbers: list[int]) -> Path:
    """Run the tests of these rows: pytest's report."""
    report = ROOT / "runs" / "real-world.xml"
    nodes = sorted({node for number in numbers for node in ROWS[number][1]})
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", "-o", "junit_family=xunit1", *nodes],
        cwd=ROOT,
        check=False,
    )
    return report


def outcomes(numbers: list[int], reports: list[Path]) -> dict[int, tuple[int, int, int]]:
    """Passed, failed and skipped tests of each row."""
    cases = [case for report in reports for case in ElementTree.parse(report).getroot().iter("testcase")]
    found = [(f"{case.get('file')}::{(case.get('name') or '').partition('[')[0]}", case) for case in cases]
    rows: dict[int, tuple[int, int, int]] = {}
    for number in numbers:
        wanted = ROWS[number][1]
        mine = [case for name, case in found if any(name == node or name.startswith(f"{node}::") for node in wanted)]
        failed = sum(case.find("failure") is not None or case.find("error") is not None for case in mine)
        skipped = sum(case.find("skipped") is not None for case in mine)
        rows[number] = (len(mine) - failed - skipped, failed, skipped)
    return rows


def main(words: list[str]) -> int:
    """Run rows, or read reports of tests, and print their table."""
    if words[:1] == ["--reports"]:
        return shown(outcomes(list(ROWS), [Path(word) for word in words[1:]]))
    unknown = [word for word in words if not word.isdigit() or int(word) not in ROWS]
    if unknown:
        print(f"rows.py: a row must be one of {', '.join(map(str, ROWS))}, got {unknown[0]}", file=sys.stderr)
        return 2
    numbers = [int(word) for word in words] or list(ROWS)
    return shown(outcomes(numbers, [tested(numbers)]))


def shown(rows: dict[int, tuple[int, int, int]]) -> int:
    """Print the table; 1 if a row fails, or has no test that passed."""
    for number, (passed, failed, skipped) in rows.items():
        word = "fails" if failed or not passed else "holds"
        print(f"{number:>3}  {word}  {passed:>3} passed {failed:>2} failed {skipped:>2} skipped  {ROWS[number][0]}")
    return 1 if any(failed or not passed for passed, failed, _ in rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
