"""The job that writes the report: from rows that are kept, and of nothing."""

import json
from pathlib import Path

import pytest

from jobs import write_report

RESULTS = Path(__file__).resolve().parents[2] / "results" / "trainings"


def test_rows_that_are_kept_become_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = write_report.job(["--out", str(tmp_path), "--results", str(RESULTS)])
    rows = len(list(RESULTS.glob("*.json")))
    assert rows > 0
    assert outcome == {"report": str(tmp_path / "report.html"), "trainings": rows, "docs": None}
    assert f"{rows} trainings: " in capsys.readouterr().err
    names = {json.loads(path.read_text())["recipe"]["network"] for path in RESULTS.glob("*.json")}
    page = (tmp_path / "report.md").read_text()
    assert all(name in page for name in names)


@pytest.mark.parametrize(
    ("made", "sentence"),
    [("", "which is no folder"), ("empty", "which is a folder without a finished training")],
)
def test_a_report_of_nothing_is_a_sentence(made: str, sentence: str, tmp_path: Path) -> None:
    if made:
        (tmp_path / made).mkdir()
    with pytest.raises(ValueError, match=sentence):
        write_report.job(["--out", str(tmp_path / "report"), "--runs", str(tmp_path / (made or "nothing"))])
    assert not (tmp_path / "report").exists()
