import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipelines.verdicts import decision, decisions, describe, interval, settings, spread
from resnet.claims import CLAIMS
from resnet.recipe import recipe
from resnet.results import Evaluated, Response


def claim(id):
    return next(c for c in CLAIMS if c.id == id)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8, unique=True))
def test_the_interval_agrees_with_scipys_paired_t_test(differences):
    low, high = interval(differences)
    if stats.sem(differences) < 1e-9:
        return
    test = stats.ttest_rel(differences, [0.0] * len(differences))
    expected = test.confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high))
    assert (test.pvalue < 0.05) == (not low <= 0 <= high) or math.isclose(test.pvalue, 0.05, rel_tol=1e-6)


def test_equal_differences_and_single_seeds_decide_nothing():
    assert all(math.isnan(end) for end in interval([1.0, 1.0, 1.0]))
    assert all(math.isnan(end) for end in interval([1.0]))


def test_rows_are_compared_within_their_setting_only(row):
    tenth = {"steps": 6_400, "total": 6_400}

    def short(network, seed=0):
        return row(network, seed, recipe=recipe(network).model_copy(update={"steps": 6_400}), **tenth)

    rows = [row("cifar10-plain20"), short("cifar10-plain20"), short("cifar10-plain56"), row("cifar10-resnet20")]
    found = settings(rows)
    assert [s.is_papers for s in found] == [True, False]
    assert [s.networks for s in found] == [
        ("cifar10-plain20", "cifar10-resnet20-A"),
        ("cifar10-plain20", "cifar10-plain56"),
    ]
    single = settings([*rows, row("cifar10-plain20", engine="single")])
    assert len(single) == 3


def test_of_two_rows_of_a_run_the_later_counts(row):
    (found,) = settings([row("cifar10-plain20", top1_error=50.0), row("cifar10-plain20", top1_error=40.0)])
    assert found.errors("cifar10-plain20", "single") == ([40.0], [5.0])


def test_a_claim_is_decided_by_seeds_in_pairs(row):
    rows = []
    for seed, (shallow, deep) in enumerate([(9.0, 12.1), (9.5, 12.4), (8.8, 12.0)]):
        rows.append(row("cifar10-plain20", seed, top1_error=shallow, train_error=shallow - 8))
        rows.append(row("cifar10-plain56", seed, top1_error=deep, train_error=deep - 8))
    (setting,) = settings(rows)
    found = decision(setting, claim("cifar10-56-plain-degrades"))
    assert found.verdict == "holds"
    assert [e.n for e in found.evidence] == [3, 3]
    assert found.evidence[1].mean == pytest.approx(statistics.fmean([3.1, 2.9, 3.2]))
    assert decision(setting, claim("cifar10-plain-degrades")).verdict == "not run"
    (alone,) = settings(rows[:2])
    assert decision(alone, claim("cifar10-56-plain-degrades")).verdict == "not decided"
    assert {d.verdict for d in decisions(None, "imagenet")} == {"not run"}
    assert len(decisions(None, "imagenet")) + len(decisions(None, "cifar10")) == len(CLAIMS)


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


def test_responses_become_one_number_a_run(row):
    def responses(*stds):
        return tuple(Response(layer=f"conv{i}", std=std) for i, std in enumerate(stds))

    (setting,) = settings([row("cifar10-plain20", responses=responses(1.0, 2.0)), row("cifar10-plain20", 1)])
    assert setting.results("single")["cifar10-plain20", "response_std"] == {0: 1.5}


def test_spread_is_mean_and_sample_deviation():
    assert spread([]) == "-"
    assert spread([8.754]) == "8.75"
    assert spread([1.0, 2.0, 3.0]) == "2.00 ± 1.00"


def test_a_setting_is_described_in_words(row):
    (setting,) = settings([row("cifar10-resnet20")])
    assert describe(setting) == (
        "64,000 steps of 128 images on CIFAR-10 (50,000 training and 10,000 validation images), lr 0.1, times 0.1 at "
        "50 % and 75 % of the training; made by the pipeline on Ray on a machine of the tests. "
        "Precision and the images over which batch norm normalised were not recorded."
    )
