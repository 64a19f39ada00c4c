"""What a training ran on, as far as it may move a figure."""

import torch

from resnet.training.conditions import conditions


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
