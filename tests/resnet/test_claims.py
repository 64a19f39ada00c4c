import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from resnet.claims import CLAIMS, Claim, chain, decide, verdict
from resnet.paper import TABLE2, TABLE3, TABLE4, TABLE6
from resnet.table import parse


def student(differences):
    """The 95 % confidence interval of the mean, by Student's t."""
    mean, error = sum(differences) / len(differences), stats.sem(differences)
    if error == 0:
        return mean, mean
    low, high = stats.t.interval(0.95, len(differences) - 1, mean, error)
    return float(low), float(high)


def one_claim(*comparisons):
    return Claim("c", "A sentence.", "Table 0", comparisons)


def results(**values):
    return {(name, "top1_error"): dict(enumerate(seeds)) for name, seeds in values.items()}


def test_claims_name_canonical_networks_and_their_own_ids():
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert claim.comparisons, claim
        for comparison in claim.comparisons:
            for network in (comparison.left, comparison.right):
                assert not isinstance(network, str) or parse(network).name == network
            assert (comparison.protocol == "single") == comparison.left.startswith("cifar10-")


def test_the_published_figures_bear_out_the_claims():
    published = {
        (row.network, metric, row.protocol): getattr(row, metric)
        for row in (*TABLE2, *TABLE3, *TABLE4, *TABLE6)
        for metric in ("top1_error", "top5_error")
    }
    checked = 0
    for comparison in (comparison for claim in CLAIMS for comparison in claim.comparisons):
        left = published.get((comparison.left, comparison.metric, comparison.protocol))
        right = published.get((str(comparison.right), comparison.metric, comparison.protocol))
        if left is not None and right is not None:
            assert (left < right) == (comparison.relation == "<"), comparison
            checked += 1
    assert checked == 20


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([8.0, 8.1, 8.2], [9.0, 9.2, 9.3], "holds"),
        ([9.0, 9.2, 9.3], [8.0, 8.1, 8.2], "fails"),
        ([8.0, 9.0, 8.5], [8.4, 8.6, 8.5], "not decided"),
        ([1.0, 5.0, 9.0], [1.5, 5.4, 9.6], "holds"),  # paired: seeds differ more than the networks do
        ([8.0], [9.0], "not decided"),
        ([8.0, 8.0], [8.0, 8.0], "not decided"),
        ([8.0, math.nan, 8.1], [9.0, 9.1, 9.2], "not decided"),
        ([], [9.0, 9.1], "not run"),
    ],
)
def test_a_comparison_is_decided_by_the_paired_differences(left, right, expected):
    claim = one_claim(*chain("top1_error", "single", "<", "a", "b"))
    assert verdict(claim, results(a=left, b=right), student) == expected


def test_seeds_are_paired_and_lone_ones_left_out():
    found = {("a", "top1_error"): {3: 1.0, 0: 5.0, 7: 90.0}, ("b", "top1_error"): {0: 6.0, 3: 2.1, 8: 0.0}}
    seen = []
    claim = one_claim(*chain("top1_error", "single", "<", "a", "b"))
    assert verdict(claim, found, lambda differences: (seen.extend(differences), (-2.0, -0.1))[1]) == "holds"
    assert seen == pytest.approx([-1.0, -1.1])


def test_a_number_can_be_the_right_side():
    claim = one_claim(*chain("top1_error", "single", ">", "a", 60.0))
    assert verdict(claim, results(a=[78.0, 80.0, 82.0]), student) == "holds"
    assert verdict(claim, results(a=[61.0, 80.0, 20.0]), student) == "not decided"
    assert verdict(claim, results(a=[12.0, 13.0]), student) == "fails"


@pytest.mark.parametrize(
    ("b", "c", "expected"),
    [
        ([2.0, 2.1], [1.0, 1.11], "holds"),
        ([2.0, 2.1], [3.0, 3.11], "fails"),
        ([2.0, 2.1], [], "not run"),
        ([4.0, 4.11], [], "fails"),  # refuted by one link, whatever the other would say
        ([2.0, 2.1], [1.0, 9.0], "not decided"),
    ],
)
def test_a_chain_holds_when_every_link_holds(b, c, expected):
    claim = one_claim(*chain("top1_error", "single", ">", "a", "b", "c"))
    assert len(claim.comparisons) == 2
    assert verdict(claim, results(a=[3.0, 3.11], b=b, c=c), student) == expected


def test_nothing_is_claimed_without_results():
    assert {verdict(claim, {}, student) for claim in CLAIMS} == {"not run"}


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=2, max_size=6))
def test_the_opposite_relation_has_the_opposite_verdict(pairs):
    left, right = (list(values) for values in zip(*pairs, strict=True))
    (smaller,), (larger,) = (chain("top1_error", "1-crop", relation, "a", "b") for relation in ("<", ">"))
    found = results(a=left, b=right)
    opposite = {"holds": "fails", "fails": "holds"}
    outcome = decide(smaller, found, student)
    assert decide(larger, found, student) == opposite.get(outcome, outcome)
