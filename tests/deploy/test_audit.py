"""What counts as audited: pip-audit ends well where it could look nothing up."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "deploy" / "audit.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CLEAN = {"name": "numpy", "version": "2.4.6", "vulns": []}
UNKNOWN = {"name": "ray", "skip_reason": "Dependency not found on PyPI and could not be audited: ray (2.60.0)"}
BAD = {"name": "pillow", "version": "9.0.0", "vulns": [{"id": "PYSEC-2022-10", "fix_versions": ["9.0.1"]}]}


def test_all_looked_up_and_clean_is_audited(audit: ModuleType) -> None:
    assert audit.verdict("lock", [CLEAN, CLEAN]) == (0, ["lock: 2 packages were looked up"])


def test_a_package_that_was_not_looked_up_is_not_audited(audit: ModuleType) -> None:
    status, lines = audit.verdict("lock", [CLEAN, UNKNOWN])
    assert status == 3
    assert lines == [f"lock: NOT AUDITED: 1 of 2 packages ({UNKNOWN['skip_reason']})"]
    assert audit.verdict("lock", [])[0] == 3


def test_a_vulnerability_is_named_with_what_mends_it_and_comes_first(audit: ModuleType) -> None:
    status, lines = audit.verdict("lock", [BAD, UNKNOWN])
    assert status == 1
    assert lines[0] == "lock: pillow 9.0.0 has PYSEC-2022-10, mended in 9.0.1"


def test_a_lock_that_is_absent_is_not_audited(audit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "ROOT", ROOT / "absent")  # no uv there either
    status, lines = audit.look_up("requirements.txt")
    assert status == 3
    assert lines[0].startswith("requirements.txt: NOT AUDITED: ")
