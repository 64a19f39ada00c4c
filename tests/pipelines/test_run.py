"""How many workers a run has, and what each trains of a batch."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.order import Order
from pipelines.run import Run, Scaling, standard


def run(**scaling: Any) -> Run:
    """The demonstration, whose batch is 64 images."""
    fields: dict[str, Any] = standard("cifar10-resnet8", data_is_given=False).model_dump()
    fields["scaling"] = scaling
    return Run(**fields)


@pytest.mark.parametrize(
    ("workers", "least", "most"), [(None, 1, 1), (3, 3, 3), ("4", 4, 4), ("2:2", 2, 2), ("1:4", 1, 4)]
)
def test_workers_are_a_number_or_a_range(workers: int | str | None, least: int, most: int) -> None:
    scaling = Scaling(workers=workers)
    assert (scaling.least, scaling.most, scaling.is_elastic) == (least, most, least < most)
    assert Scaling(**scaling.model_dump()) == scaling


def test_a_range_needs_room_for_its_least() -> None:
    resolved = Scaling(workers="1:4").resolve(2, 0)
    assert (resolved.workers, resolved.cpus_per_worker, resolved.threads) == ("1:4", 0.25, 1)
    assert Scaling(workers="1:4", gpu=True).resolve(8, 1).most == 4
    with pytest.raises(ValueError, match=r"scaling.workers must be at most the cluster's 1 GPUs, got 2:4"):
        Scaling(workers="2:4", gpu=True).resolve(8, 1)


def test_a_pass_is_a_workers_part_of_the_batch_unless_it_is_given() -> None:
    assert [run(**s).part for s in ({"workers": 2}, {"workers": "1:4"}, {"workers": 2, "micro_batch": 8})] == [
        32,
        16,
        8,
    ]


@given(st.integers(1, 8), st.integers(1, 8), st.data())
def test_ranks_share_a_batch_by_whole_parts_as_evenly_as_can_be(parts: int, part: int, data: st.DataObject) -> None:
    world_size = data.draw(st.integers(1, parts))
    order = Order((64,), parts * part, 1, 0, part)
    places = [range(order.batch_size)[order.slice(rank, world_size)] for rank in range(world_size)]
    assert [place for rank in places for place in rank] == list(range(order.batch_size))
    sizes = [len(rank) for rank in places]
    assert all(size % part == 0 for size in sizes)
    assert max(sizes) - min(sizes) <= part
    assert sizes == [order.local(rank, world_size) for rank in range(world_size)]
