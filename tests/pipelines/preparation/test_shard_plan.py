"""A plan is a partition of the listing into whole row groups, shuffled by the seed alone."""

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.preparation.listing import Listing, classes_of, listed
from pipelines.preparation.shard_plan import default_row_group_size, fingerprint, plan, shuffled
from pipelines.storage import Folder


def made_up(images: int, classes: int, size: int, units: int | None) -> Listing:
    rows = [(f"{i}", i * classes // max(1, images), "file", i, size) for i in range(images)]
    table = listed(rows)
    if units:
        table = table.append_column("unit", pa.array([i // units for i in range(images)], pa.int64()))
    return Listing("folders", Folder("x"), classes_of([str(i) for i in range(classes)]), {"train": table, "val": table})


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(1, 700),
    row_group=st.integers(1, 130),
    shard_bytes=st.integers(1, 10_000),
    units=st.none() | st.integers(1, 50),
    seed=st.integers(0, 5),
)
def test_a_plan_is_a_partition_into_whole_row_groups(
    images: int, row_group: int, shard_bytes: int, units: Any, seed: int
) -> None:
    listing = made_up(images, 3, 10, units)
    plans = plan(listing, row_group, shard_bytes, seed)
    assert [p.rows.tolist() for p in plans] == [p.rows.tolist() for p in plan(listing, row_group, shard_bytes, seed)]
    for split in ("train", "val"):
        mine = [p for p in plans if p.split == split]
        assert sorted(np.concatenate([p.rows for p in mine]).tolist()) == list(range(images))
        assert all(len(p.rows) % row_group == 0 for p in mine[:-1])
        assert all(len(p.rows) for p in mine)
        assert [p.file for p in mine] == [f"{split}-{i:05d}-of-{len(mine):05d}.parquet" for i in range(len(mine))]


def test_each_row_group_is_a_random_sample_of_its_split() -> None:
    """Chi-square of classes by row groups, of a source that is sorted by class, stays within 5 sigma of its mean."""
    listing = made_up(12_800, 10, 100_000, None)
    counts = []
    for p in plan(listing, 128, 2**25, 0):
        if p.split == "train":
            labels = listing.splits["train"]["label"].to_numpy()[p.rows].reshape(-1, 128)
            counts += [np.bincount(group, minlength=10) for group in labels]
    table = np.asarray(counts)
    expected = table.sum(0) / len(table)
    chi2, freedom = ((table - expected) ** 2 / expected).sum(), (len(table) - 1) * 9
    assert table.shape == (100, 10)
    assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom)


def test_row_groups_are_larger_for_many_small_images() -> None:
    assert default_row_group_size(made_up(25_000, 10, 3072, None)) == 512
    assert default_row_group_size(made_up(1437, 10, 64, None)) == 128
    assert default_row_group_size(made_up(25_000, 10, 100_000, None)) == 128


def test_the_fingerprint_sees_sizes_labels_keys_and_the_order() -> None:
    listing = made_up(200, 5, 10, None)
    plans = plan(listing, 8, 1000, 0)
    seen = {fingerprint(listing, plans), fingerprint(listing, plan(listing, 8, 1000, 1))}
    seen |= {fingerprint(listing, plan(listing, 8, 100, 0)), fingerprint(made_up(200, 4, 10, None), plans)}
    assert len(seen | {fingerprint(made_up(200, 5, 11, None), plans)}) == 5
    assert fingerprint(made_up(200, 5, 10, None), plan(listing, 8, 1000, 0)) == fingerprint(listing, plans)


@settings(max_examples=60, deadline=None)
@given(units=st.lists(st.integers(0, 9), max_size=80), seed=st.integers(0, 3))
def test_rows_of_one_unit_stay_together_when_shuffled(units: list[int], seed: int) -> None:
    rows = listed([(f"{i}", 0, "file", i, 1) for i in range(len(units))])
    table = rows.append_column("unit", pa.array(units, pa.int64()))
    order = shuffled(table, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(units)))
    changes = np.count_nonzero(np.diff(np.asarray(units, int)[order]))
    assert changes == max(0, len(set(units)) - 1)
    assert shuffled(table, np.random.default_rng(seed)).tolist() == order.tolist()
