import math
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipelines.result_settings import settings
from pipelines.verdicts import decide, decision, decisions, image_by_image, judge_trend, verdict
from resnet.claim_forms import Claim, Trend, alike, chain
from resnet.claims import CLAIMS
from resnet.final_test import FinalTest, packed
from resnet.results import Evaluated, Response


def claim(id):
    return next(c for c in CLAIMS if c.id == id)


def one_claim(*comparisons):
    return Claim("c", "cifar10", "A sentence.", "Table 0", comparisons)


def results(**values):
    return {(name, "top1_error"): dict(enumerate(seeds)) for name, seeds in values.items()}


# --- Comparisons ------------------------------------------------------------------------------------------------------


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
    assert verdict(one_claim(*chain("top1_error", "single", "<", "a", "b")), results(a=left, b=right)) == expected


def test_seeds_are_paired_and_lone_ones_left_out():
    found = {
        ("a", "top1_error"): {3: 1.0, 0: 5.0, 7: 90.0, 1: 2.0},
        ("b", "top1_error"): {0: 6.0, 3: 2.1, 8: 0.0, 1: 3.05},
    }
    assert verdict(one_claim(*chain("top1_error", "single", "<", "a", "b")), found) == "holds"


def test_a_number_can_be_the_right_side():
    above = one_claim(*chain("top1_error", "single", ">", "a", 60.0))
    assert verdict(above, results(a=[78.0, 80.0, 82.0])) == "holds"
    assert verdict(above, results(a=[61.0, 80.0, 20.0])) == "not decided"
    assert verdict(above, results(a=[12.0, 13.0])) == "fails"


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
    links = one_claim(*chain("top1_error", "single", ">", "a", "b", "c"))
    assert len(links.comparisons) == 2
    assert verdict(links, results(a=[3.0, 3.11], b=b, c=c)) == expected


def differing_at(p, seeds=4):
    """Differences whose two-sided paired t-test has this p-value, with a positive mean."""
    shape = np.arange(seeds) - (seeds - 1) / 2
    t = stats.t.ppf(1 - p / 2, seeds - 1)
    return list(shape + t * stats.sem(shape))


@given(st.integers(1, 6), st.floats(0.001, 0.2))
def test_fails_is_corrected_for_the_number_of_comparisons_and_holds_is_not(comparisons, p):
    """Bonferroni: a comparison refutes its claim at 5 % over their number; one that is as claimed needs 5 %."""
    left = differing_at(p)
    if min(abs(p - 0.05), abs(p - 0.05 / comparisons)) < 1e-4:
        return
    test: Any = stats.ttest_1samp(left, 0)
    assert test.pvalue == pytest.approx(p)
    larger, smaller = (chain("top1_error", "single", relation, "a", 0.0)[0] for relation in (">", "<"))
    assert decide(larger, results(a=left), comparisons) == ("holds" if p < 0.05 else "not decided")
    assert decide(smaller, results(a=left), comparisons) == ("fails" if p < 0.05 / comparisons else "not decided")


def test_one_comparison_at_the_corrected_level_makes_a_claim_fail():
    """Three comparisons, 1.67 % each: what lies between that and 5 % leaves the claim open."""
    good = [-5.0, -5.1, -4.9, -5.05]
    for p, expected in ((0.03, "not decided"), (0.01, "fails")):
        found = results(a=good, b=good, c=differing_at(p))
        links = one_claim(*(chain("top1_error", "single", "<", name, 0.0)[0] for name in "abc"))
        test: Any = stats.ttest_1samp(differing_at(p), 0)
        assert test.pvalue < 0.05
        assert verdict(links, found) == expected


def test_alike_is_a_verdict_of_two_one_sided_tests():
    near = one_claim(*alike("top1_error", "single", 0.5, ("a", "b")))
    b = [8.0, 8.2, 8.1, 8.3]
    close = [x + d for x, d in zip(b, (0.1, -0.1, 0.05, 0.02), strict=True)]
    for margin, sign in ((0.5, "less"), (-0.5, "greater")):
        test: Any = stats.ttest_rel(close, [x + margin for x in b], alternative=sign)
        assert test.pvalue < 0.05
    assert verdict(near, results(a=close, b=b)) == "alike"
    assert verdict(near, results(a=[x + 3 + d for x, d in zip(b, (0.1, 0, 0.1, 0), strict=True)], b=b)) == "fails"
    assert verdict(near, results(a=[x + d for x, d in zip(b, (1, -1, 0.9, -0.7), strict=True)], b=b)) == "not decided"
    assert verdict(near, results(a=close[:1], b=b)) == "not decided"
    mixed = one_claim(*near.comparisons, *chain("top1_error", "single", "<", "a", "c"))
    assert verdict(mixed, results(a=close, b=b, c=[9.0, 9.3, 9.2, 9.5])) == "holds"


def test_nothing_is_claimed_without_results():
    assert {verdict(claim, {}) for claim in CLAIMS} == {"not run"}


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=2, max_size=6))
def test_the_opposite_relation_has_the_opposite_verdict(pairs):
    left, right = (list(values) for values in zip(*pairs, strict=True))
    (smaller,), (larger,) = (chain("top1_error", "1-crop", relation, "a", "b") for relation in ("<", ">"))
    found = results(a=left, b=right)
    opposite = {"holds": "fails", "fails": "holds"}
    outcome = decide(smaller, found)
    assert decide(larger, found) == opposite.get(outcome, outcome)


# --- Claims in a setting ----------------------------------------------------------------------------------------------


def test_a_claim_is_decided_by_seeds_in_pairs(row):
    rows = []
    for seed, (shallow, deep) in enumerate([(9.0, 12.1), (9.5, 12.4), (8.8, 12.0)]):
        rows.append(row("cifar10-plain20", seed, top1_error=shallow, train_error=shallow - 8))
        rows.append(row("cifar10-plain56", seed, top1_error=deep, train_error=deep - 8))
    (setting,) = settings(rows)
    found = decision(setting, claim("cifar10-56-plain-degrades"))
    assert found.verdict == "holds"
    assert [len(e.differences) for e in found.evidence] == [3, 3]
    assert found.evidence[1].mean == pytest.approx(statistics.fmean([3.1, 2.9, 3.2]))
    welch = stats.ttest_ind([12.1, 12.4, 12.0], [9.0, 9.5, 8.8], equal_var=False).confidence_interval()
    assert found.evidence[1].welch == pytest.approx((welch.low, welch.high))
    paired = stats.ttest_rel([12.1, 12.4, 12.0], [9.0, 9.5, 8.8]).confidence_interval()
    assert found.evidence[1].interval == pytest.approx((paired.low, paired.high))
    assert decision(setting, claim("cifar10-plain-degrades")).verdict == "not run"
    (alone,) = settings(rows[:2])
    assert decision(alone, claim("cifar10-56-plain-degrades")).verdict == "not decided"
    assert len(decisions(None, "imagenet")) + len(decisions(None, "cifar10")) == len(CLAIMS)


def test_only_what_is_counted_is_decided_without_trainings():
    decided = {d.claim.id: d.verdict for family in ("imagenet", "cifar10") for d in decisions(None, family)}
    assert {id for id, outcome in decided.items() if outcome != "not run"} == {"152-is-cheaper-than-vgg"}
    assert decided["152-is-cheaper-than-vgg"] == "holds"


def test_imagenets_claims_want_the_papers_protocol(row):
    def trained(network, seed, error, protocols):
        evaluations = tuple(
            Evaluated(protocol=p, top1_error=error, top5_error=9, examples=50_000, precision="float32")
            for p in protocols
        )
        return row(network, seed, protocol="1-crop", top1_error=error, evaluations=evaluations)

    for protocols, expected in (((), "not run"), (("10-crop",), "holds"), (("multi-scale",), "not run")):
        rows = [
            trained(network, seed, error + 0.1 * seed**2, protocols)
            for network, error in (("imagenet-plain18", 27.9), ("imagenet-plain34", 28.5))
            for seed in (0, 1)
        ]
        rows[3] = trained("imagenet-plain34", 1, 28.61, protocols)
        (setting,) = settings(rows)
        assert decision(setting, claim("imagenet-plain-degrades")).verdict == expected


def test_published_figures_judge_the_papers_setting_only(row):
    def trained(**changes):
        return [row("cifar10-plain110", s, top1_error=e, train_error=e + 1, **changes) for s, e in ((0, 80.0), (1, 82))]

    (papers,), (other,) = settings(trained()), settings(trained(engine="single", steps=64_000, commit="x"))
    assert decision(papers, claim("cifar10-plain110-is-lost")).verdict == "holds"
    assert decision(other, claim("cifar10-plain110-is-lost")).verdict == "holds"
    short = papers.rows[0].recipe.model_copy(update={"steps": 640})
    (shortened,) = settings(trained(recipe=short, steps=640, total=640))
    assert decision(shortened, claim("cifar10-plain110-is-lost")).verdict == "not run"


def test_three_times_the_iterations_are_judged_where_they_were_trained(row):
    for times, expected in ((1, "not run"), (3, "holds")):
        total = 600_000 * times
        rows = []
        for network, error in (("imagenet-plain18", 25.0), ("imagenet-plain34", 26.0)):
            longer = row(network).recipe.model_copy(update={"steps": total})
            rows += [
                row(network, s, recipe=longer, steps=total, total=total, train_error=error + d, protocol="1-crop")
                for s, d in ((0, 0.0), (1, 0.01 * error))
            ]
        (setting,) = settings(rows)
        assert decision(setting, claim("imagenet-longer-is-no-cure")).verdict == expected


def test_ten_layers_alone_carry_no_verdict_on_responses(row):
    """Review A2: means that ten of 55 layers make large, in a net whose other layers respond less than the ResNet's."""

    def trained(network, seed, stds):
        return row(network, seed, responses=tuple(Response(layer=f"l{i}", std=s) for i, s in enumerate(stds)))

    rows = []
    for seed in (0, 1, 2):
        noise = 0.001 * np.random.default_rng(seed).random(55)
        rows.append(trained("cifar10-plain56", seed, np.r_[np.full(10, 15.0), np.full(45, 0.6)] + noise))
        rows.append(trained("cifar10-resnet56", seed, np.full(55, 0.7) - noise))
        rows.append(trained("cifar10-plain20", seed, np.full(19, 0.9) + noise[:19]))
        rows.append(trained("cifar10-resnet20", seed, np.full(19, 0.8) - noise[:19]))
    (setting,) = settings(rows)
    found = decision(setting, claim("resnet-responds-less"))
    assert [e.verdict for e in found.evidence] == ["holds", "holds", "fails", "not decided"]
    assert found.verdict == "fails"
    assert [e.verdict for e in found.beside] == ["holds", "holds"], "the means say the opposite, and decide nothing"


# --- Trends -----------------------------------------------------------------------------------------------------------

FALLS = Trend("A", "falls", "top1_error", "single", 8, 110)


def by_depth(*seeds):
    """Errors of ResNets of 8, 14 and 20 layers, a tuple a seed."""
    return {
        (f"cifar10-resnet{depth}-A", "top1_error"): {seed: errors[i] for seed, errors in enumerate(seeds)}
        for i, depth in enumerate((8, 14, 20))
    }


def test_a_trend_goes_by_pages_test_over_seeds():
    blocks = [(12.0, 10.0, 9.0), (12.1, 10.1, 9.3), (12.4, 10.2, 9.1)]
    found = judge_trend(FALLS, by_depth(*blocks), "cifar10")
    assert found.verdict == "holds"
    assert found.p == stats.page_trend_test(blocks, predicted_ranks=[3, 2, 1]).pvalue
    expected: Any = stats.linregress(np.log2([8, 14, 20] * 3), np.ravel(blocks))
    assert found.slope is not None
    assert found.slope.value == pytest.approx(expected.slope)
    rising = by_depth(*(block[::-1] for block in blocks))
    assert judge_trend(FALLS, rising, "cifar10").verdict == "fails"
    assert judge_trend(FALLS, by_depth(*blocks[:2]), "cifar10").verdict == "not decided", "p = 1/36"


def test_a_trend_needs_three_depths_and_two_seeds():
    one = judge_trend(FALLS, by_depth((12.0, 10.0, 9.0)), "cifar10")
    assert (one.verdict, one.p, one.seeds) == ("not decided", None, 1)
    two = {key: value for key, value in by_depth((12.0, 10.0, 9.0)).items() if "20" not in key[0]}
    assert judge_trend(FALLS, two, "cifar10").verdict == "not run"


def test_a_trend_is_of_one_kind_of_network_within_its_depths():
    found = by_depth((12.0, 10.0, 9.0), (12.1, 10.1, 9.3), (12.4, 10.2, 9.1))
    plain = {(key[0].replace("resnet", "plain").removesuffix("-A"), key[1]): v for key, v in found.items()}
    deep = {("cifar10-resnet1202-A", "top1_error"): {0: 50.0, 1: 51.0, 2: 49.0}}
    imagenet = {("imagenet-resnet18-A", "top1_error"): {0: 50.0}}
    assert judge_trend(FALLS, found | plain | deep | imagenet, "cifar10").depths == (8, 14, 20)


# --- Two trained networks ---------------------------------------------------------------------------------------------


def with_test(row, network, seed, right):
    final = FinalTest(
        train_error=1.0, train_examples=9, top1_error=100 * float(1 - right.mean()), top5_error=0.0,
        examples=len(right), predictions_sha256="0" * 64, right=packed(right),
    )  # fmt: skip
    return row(network, seed, final=final)


def test_one_seed_leaves_a_claim_open_and_mcnemar_speaks_of_the_two_networks(row):
    rng = np.random.default_rng(0)
    shallow, deep = rng.random(1003) > 0.09, rng.random(1003) > 0.2
    rows = [with_test(row, "cifar10-plain20", 0, shallow), with_test(row, "cifar10-plain56", 0, deep)]
    (setting,) = settings(rows)
    assert decision(setting, claim("cifar10-56-plain-degrades")).verdict == "not decided"
    (found,) = image_by_image(setting, "cifar10")
    only_deep, only_shallow = int((deep & ~shallow).sum()), int((shallow & ~deep).sum())
    assert (found.left, found.right, found.seed) == ("cifar10-plain56", "cifar10-plain20", 0)
    assert found.found[:2] == (only_deep, only_shallow)
    assert found.found.p == stats.binomtest(only_deep, only_deep + only_shallow).pvalue < 1e-6


def test_networks_without_kept_predictions_are_not_tested_by_image(row):
    rows = [row("cifar10-plain20"), with_test(row, "cifar10-plain56", 0, np.ones(9, bool))]
    (setting,) = settings(rows)
    assert image_by_image(setting, "cifar10") == ()
