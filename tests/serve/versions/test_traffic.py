"""The share of a canary, the counts of all replicas together, and the verdict."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.versions.traffic import (
    Canary,
    CanaryComparison,
    Side,
    Traffic,
    Version,
    answering,
    judge,
    shadows,
    together,
)


def test_a_canary_is_one_of_the_versions_and_is_shown_with_its_share():
    stable, beside = Version(version="1", checkpoint="/a"), Canary(version="2", checkpoint="/b", percent=12.5)
    copy = Canary(version="3", checkpoint="/c", percent=100, shadow=True)
    alone, all_ = Traffic(stable=stable), Traffic(stable=stable, beside=(beside, copy))
    assert (alone.versions, alone.shown) == ([stable], "version 1")
    assert all_.versions == [stable, Version(version="2", checkpoint="/b"), Version(version="3", checkpoint="/c")]
    told = "version 1; 12.5 % of the images: version 2; copies of 100 % of the images: version 3"
    assert all_.shown == told
    assert Traffic.model_validate_json(all_.model_dump_json()) == all_


@pytest.mark.parametrize("percent", [0, 100.1, -1])
def test_a_share_is_between_none_and_all(percent: float):
    with pytest.raises(ValueError, match="percent"):
        Canary(version="2", checkpoint="/b", percent=percent)


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        (["2", "2"], "version 2 2 times"),
        (["1"], "version 1 2 times"),
        (["2", "3"], "must be less than 100 % together, got 120 %"),
    ],
)
def test_versions_are_named_once_and_leave_the_stable_one_a_share(beside: list[str], words: str):
    candidates = [Canary(version=version, checkpoint="/b", percent=60) for version in beside]
    with pytest.raises(ValueError, match=words):
        Traffic(stable=Version(version="1", checkpoint="/a"), beside=tuple(candidates))


def test_quantiles_are_of_the_sorted_latencies_in_milliseconds():
    side = Side(version="1", seconds=(0.4, 0.1, 0.3, 0.2))
    assert [side.quantile(q) for q in (0.0, 0.5, 0.99)] == pytest.approx([100, 300, 400])
    assert Side(version="1").quantile(0.5) == 0.0


def beside(*shares: float, shadow: bool = False) -> list[Canary]:
    return [Canary(version=f"{i}", checkpoint="/b", percent=p, shadow=shadow) for i, p in enumerate(shares, 2)]


@given(st.binary(max_size=200), st.floats(0.1, 99.9), st.floats(0.1, 99.9))
def test_a_larger_share_keeps_what_a_smaller_one_had(data: bytes, one: float, two: float):
    small, large = (answering(data, beside(share)) is not None for share in sorted((one, two)))
    assert small <= large


def test_the_shares_are_the_shares_and_no_image_has_two_versions():
    images = [i.to_bytes(4, "big") for i in range(20_000)]
    found = [answering(data, [*beside(10, 25), *beside(50, shadow=True)]) for data in images]
    for percent in (10, 25):
        hits = sum(each is not None and each.percent == percent for each in found)
        assert abs(hits / 20_000 - percent / 100) < 0.015  # 4.9 standard deviations of a quarter
    assert not any(each is not None and each.shadow for each in found)


def test_a_shadow_has_its_share_of_what_canaries_answer_and_of_the_rest():
    images = [i.to_bytes(4, "big") for i in range(20_000)]
    copied = [bool(list(shadows(data, beside(50, shadow=True)))) for data in images]
    answered = [answering(data, beside(50)) is not None for data in images]
    both = sum(a and b for a, b in zip(copied, answered, strict=True))
    assert abs(sum(copied) / 20_000 - 0.5) < 0.018
    assert abs(both / 20_000 - 0.25) < 0.016
    assert list(shadows(images[0], beside(50))) == []
    assert len(list(shadows(images[0], beside(100, 100, shadow=True)))) == 2


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
