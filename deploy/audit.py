"""Look the pinned packages up among known vulnerabilities: `make audit`, or python deploy/audit.py [LOCK ...]

pip-audit asks the advisory service of PyPI, and ends well where that knows nothing of a package (a mirror without
advisories): here that counts as not audited. Exit status 0: all were looked up, none is vulnerable; 1: one is; 3:
some were not looked up.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.txt", "requirements-run.txt")
TOOL = "pip-audit==2.10.1"  # in an environment of its own, by uv: no dependency of the project
ALLOWED = 300  # seconds


def verdict(lock: str, dependencies: list[dict[str, Any]]) -> tuple[int, list[str]]:
    """Exit status and lines for pip-audit's findings about one lock."""
    lines = []
    for package in dependencies:
        for found in package.get("vulns", []):
            fixed = ", ".join(found.get("fix_versions", [])) or "no version yet"
            lines.append(f"{lock}: {package['name']} {package['version']} has {found['id']}, mended in {fixed}")
    skipped = [package for package in dependencies if "skip_reason" in package]
    if skipped or not dependencies:
        why = skipped[0]["skip_reason"] if skipped else "pip-audit named no package"
        lines.append(f"{lock}: NOT AUDITED: {len(skipped)} of {len(dependencies)} packages ({why})")
    else:
        lines.append(f"{lock}: {len(dependencies)} packages were looked up")
    vulnerable = any(package.get("vulns") for package in dependencies)
    return (1 if vulnerable else 3 if skipped or not dependencies else 0), lines


def look_up(lock: str) -> tuple[int, list[str]]:
    """Ask about one lock; not audited where the service, or pip-audit itself, cannot be reached."""
    uv = ROOT / ".venv" / "bin" / "uv"
    command = [uv, "tool", "run", "--quiet", "--from", TOOL, "pip-audit", "--requirement", ROOT / lock, "--disable-pip"]
    try:
        done = subprocess.run(
            [*map(str, command), "--require-hashes", "--progress-spinner", "off", "--format", "json"],
            capture_output=True, text=True, timeout=ALLOWED,
        )  # fmt: skip
        return verdict(lock, json.loads(done.stdout)["dependencies"])
    except (OSError, subprocess.TimeoutExpired) as error:
        return 3, [f"{lock}: NOT AUDITED: {error}"]
    except (ValueError, KeyError):  # no report at all
        said = (done.stderr or done.stdout).strip().splitlines() or [f"pip-audit ended with status {done.returncode}"]
        return 3, [f"{lock}: NOT AUDITED: {said[-1]}"]


def main(locks: list[str]) -> int:
    """Print the findings of every lock; the worst status, a vulnerability before what was not audited."""
    statuses = []
    for lock in locks or LOCKS:
        status, lines = look_up(lock)
        statuses.append(status)
        print(*lines, sep="\n")
    return 1 if 1 in statuses else max(statuses)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
