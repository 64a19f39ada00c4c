"""The share of a canary, the counts of all replicas together, and the verdict."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.versions import traffic
from serve.versions.traffic import Canary, CanaryComparison, Side, Traffic, Version, judge, together


def test_a_canary_is_one_of_the_versions_and_is_shown_with_its_share():
    stable, beside = Version(version="1", checkpoint="/a"), Canary(version="2", checkpoint="/b", percent=12.5)
    alone, both = Traffic(stable=stable), Traffic(stable=stable, canary=beside)
    assert (alone.versions, alone.shown) == ([stable], "version 1")
    assert both.versions == [stable, Version(version="2", checkpoint="/b")]
    assert both.shown == "version 1; 12.5 % of the images: version 2"


@pytest.mark.parametrize("percent", [0, 100, -1])
def test_a_share_is_between_none_and_all(percent: float):
    with pytest.raises(ValueError, match="percent"):
        Canary(version="2", checkpoint="/b", percent=percent)


def test_quantiles_are_of_the_sorted_latencies_in_milliseconds():
    side = Side(version="1", seconds=(0.4, 0.1, 0.3, 0.2))
    assert [side.quantile(q) for q in (0.0, 0.5, 0.99)] == pytest.approx([100, 300, 400])
    assert Side(version="1").quantile(0.5) == 0.0


@given(st.binary(max_size=200), st.floats(0.1, 99.9), st.floats(0.1, 99.9))
def test_a_larger_share_keeps_what_a_smaller_one_had(data: bytes, one: float, two: float):
    assert traffic.to_canary(data, min(one, two)) <= traffic.to_canary(data, max(one, two))


def test_the_share_is_the_share():
    hits = sum(traffic.to_canary(i.to_bytes(4, "big"), 10) for i in range(20_000))
    assert abs(hits / 20_000 - 0.1) < 0.01  # 4.7 standard deviations


def sides(requests: int, errors: int, slower: float) -> CanaryComparison:
    old = Side(version="1", requests=500, errors=0, seconds=(0.01,) * 500)
    new = Side(version="2", requests=requests, errors=errors, seconds=(0.01 * slower,) * (requests - errors))
    return CanaryComparison(stable=old, canary=new, compared=50, agreed=40)


@pytest.mark.parametrize(
    ("found", "good", "words"),
    [
        (sides(50, 0, 1), None, "undecided, 50 of 100"),
        (sides(200, 10, 1), False, "5.0 % of its requests fail"),
        (sides(200, 0, 2), False, "2.0 times as long"),
        (sides(200, 0, 1.2), True, "good.*80.0 % of 50 images"),
    ],
)
def test_the_verdict(found: CanaryComparison, good: bool | None, words: str):
    told = judge(found)
    assert told.good is good
    assert re.search(words, told.sentence)
    twice = together([found, found])
    assert (twice.canary.requests, twice.compared) == (2 * found.canary.requests, 100)
