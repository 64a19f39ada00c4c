"""What a figure was made on: by number, not only by a name that several generations share."""

from pathlib import Path

import pytest

from resnet.host import hardware

CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 26
model\t\t: 2
model name\t: AMD EPYC 9R14
stepping\t: 1

processor\t: 1
cpu family\t: 1
"""


def test_a_processor_has_family_model_and_stepping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    monkeypatch.setattr(hardware, "Path", lambda _: tmp_path / "cpuinfo")
    assert hardware.cpu() == "AMD EPYC 9R14, family 26 model 2 stepping 1"
    (tmp_path / "cpuinfo").write_text("Processor: an ARM\n")
    assert "family" not in hardware.cpu()
