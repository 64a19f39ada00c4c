"""What a figure was made on: by number, not only by a name that several generations share."""

from pathlib import Path

import pytest
import torch

from resnet.host import hardware
from resnet.training.conditions import conditions

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


def test_conditions_say_what_may_move_a_figure() -> None:
    threads = torch.get_num_threads()
    found = conditions(
        torch.device("cpu"), step=5, world_size=2, precision="float32", bn_batch=32, versions={"ray": "2.60.0"}
    )
    assert torch.get_num_threads() == threads, "measured with one thread, and as before after it"
    assert set(found.gflops) == {"float32", "bfloat16"}
    assert all(value > 0 for value in found.gflops.values())
    assert found.versions["torch"] == torch.__version__
    assert {"onednn", "python", "ray"} <= found.versions.keys()
    assert found.is_as(found.model_copy(update={"step": 9, "gflops": {}}))
    assert not found.is_as(found.model_copy(update={"hardware": "another"}))
    assert all(isinstance(value, str) for value in found.tags().values())
