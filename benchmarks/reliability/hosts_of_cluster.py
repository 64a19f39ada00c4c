"""Claim: on several hosts a training ends as if nothing had happened to them; what each fault costs, in seconds.

Runs the scenarios of tests/cluster (network namespaces, as root) and writes their rows. One that fails has none.

    python benchmarks/reliability/hosts_of_cluster.py [--only WORDS] [--out results/cluster.json]

--only: pytest's -k; rows of other scenarios in the file stay. The table for docs/cluster.md goes to stderr; the last
line of stdout is JSON. Exit status 1 where a scenario failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pipelines import provenance
from resnet.host.hardware import describe_hardware

ROOT = Path(__file__).resolve().parents[2]


def scenarios(only: str) -> tuple[int, list[dict[str, Any]]]:
    """Pytest's exit status, and a row for each scenario that held."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        words = ["-m", "cluster", "-q", "tests/cluster", *(["-k", only] if only else [])]
        environment = os.environ | {"RESNET_CLUSTER_RESULTS": str(file)}
        done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=ROOT, env=environment, stdout=sys.stderr)
        return done.returncode, json.loads(file.read_text()) if file.exists() else []


def table(rows: list[dict[str, Any]]) -> str:
    """For docs/cluster.md. lost: from the fault to the next new step."""
    lines = [
        "| what happens | seconds lost | after Ray's notice | steps made twice | bit-identical |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        figures = [row.get(name) for name in ("seconds", "after_notice", "steps_again")]
        shown = ["" if figure is None else f"{figure:g}" for figure in figures]
        lines.append(f"| {row['scenario']} | {' | '.join(shown)} | {'yes' if row['identical'] else 'no'} |")
    return "\n".join(lines)


def main() -> None:
    """Run, merge, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path, default=None)
    asked = parser.parse_args()
    status, rows = scenarios(asked.only)
    conditions = {"commit": provenance.git_commit(), "hardware": describe_hardware(), "load": os.getloadavg()[1]}
    known = json.loads(asked.out.read_text())["rows"] if asked.out and asked.out.exists() else []
    kept = {row["test"]: row for row in known} | {row["test"]: row | conditions for row in rows}
    result = {"rows": list(kept.values()), "failed": bool(status)}
    print(table(result["rows"]), file=sys.stderr)
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    sys.exit(bool(status))


if __name__ == "__main__":
    main()
