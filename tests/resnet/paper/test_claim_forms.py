from dataclasses import FrozenInstanceError
from itertools import pairwise

import pytest

from resnet.paper.claim_forms import Claim, Comparison, Trend, alike, chain


def test_a_chain_compares_neighbours_and_may_end_at_a_number():
    found = chain("top1_error", "10-crop", ">", "a", "b", "c", 20.5)
    assert [(c.left, c.right) for c in found] == list(pairwise(["a", "b", "c", 20.5]))
    assert {(c.relation, c.metric, c.protocol, c.margin) for c in found} == {(">", "top1_error", "10-crop", None)}
    assert chain("top1_error", "single", "<", "a") == ()


def test_networks_are_alike_within_the_margin_of_their_claim():
    found = alike("top5_error", "1-crop", 0.5, ("a", "b"), ("c", "d"))
    assert found == (
        Comparison("a", "~", "b", "top5_error", "1-crop", 0.5),
        Comparison("c", "~", "d", "top5_error", "1-crop", 0.5),
    )


def test_a_claims_protocol_is_that_of_its_figures():
    trend = Trend("none", "rises", "train_error", "10-crop", 20, 110)
    compared = chain("top1_error", "multi-scale", "<", "a", "b")
    words = ("id", "imagenet", "a sentence", "Table 0")
    assert Claim(*words, compared).protocol == "multi-scale"
    assert Claim(*words, trend=trend).protocol == "10-crop"
    assert Claim(*words).protocol == "single", "nothing is judged"


def test_a_claim_cannot_be_edited_by_who_judges_it():
    claim = Claim("id", "cifar10", "a sentence", "Table 6")
    with pytest.raises(FrozenInstanceError):
        claim.judged_in = "nowhere"  # pyright: ignore[reportAttributeAccessIssue]
