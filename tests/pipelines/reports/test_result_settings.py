import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.reports.result_settings import (
    describe_setting,
    differing,
    gradient_imbalance,
    gradient_ratios,
    particulars,
    settings,
    smaller_share,
    spread,
)
from resnet.evaluation.error_summary import Response
from resnet.paper.cifar10_claims import FULL_LR
from resnet.paper.result_rows import CurveRow
from resnet.recipes.named import recipe
from resnet.training.gradient_norms import LayerNorms


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


def test_spread_is_mean_and_sample_deviation():
    assert spread([]) == "-"
    assert spread([8.754]) == "8.75"
    assert spread([1.0, 2.0, 3.0]) == "2.00 ± 1.00"


def test_a_setting_is_described_in_words(row):
    (setting,) = settings([row("cifar10-resnet20")])
    assert describe_setting(setting) == (
        "64,000 steps of 128 images on CIFAR-10 (50,000 training and 10,000 validation images), lr 0.1, times 0.1 at "
        "50 % and 75 % of the training; made by the pipeline on Ray on a machine of the tests. "
        "Precision and the images over which batch norm normalised were not recorded."
    )


def responses(*stds):
    return tuple(Response(layer=f"conv{i}", std=std) for i, std in enumerate(stds))


def test_responses_become_a_median_and_a_mean_a_run(row):
    (setting,) = settings([row("cifar10-plain20", responses=responses(1.0, 2.0, 9.0)), row("cifar10-plain20", 1)])
    found = setting.results("single")
    assert found["cifar10-plain20", "response_median"] == {0: 2.0}
    assert found["cifar10-plain20", "response_mean"] == {0: 4.0}


def test_shares_of_layers_are_kept_for_every_pair_of_a_seed(row):
    rows = [
        row("cifar10-plain20", responses=responses(1.0, 1.0, 1.0, 30.0)),
        row("cifar10-resnet20", responses=responses(2.0, 2.0, 2.0, 2.0)),
        row("cifar10-resnet20", 1, responses=responses(2.0, 2.0, 2.0, 2.0)),
    ]
    (setting,) = settings(rows)
    found = setting.results("single")
    assert found["cifar10-resnet20-A and cifar10-plain20", "smaller_responses"] == {0: 25.0}
    assert found["cifar10-plain20 and cifar10-resnet20-A", "smaller_responses"] == {0: 75.0}
    assert found["cifar10-plain20", "response_mean"][0] > 8 > found["cifar10-resnet20-A", "response_mean"][0]


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30))
def test_of_equal_depths_the_share_is_of_the_sorted_layers(stds):
    others = list(reversed([value * 1.5 - 1 for value in stds]))
    expected = 100 * np.mean(np.sort(stds) < np.sort(others))
    assert smaller_share(stds, others) == pytest.approx(expected)


def test_of_unequal_depths_equal_quantiles_are_compared():
    shallow, deep = np.linspace(1, 2, 19), np.linspace(0.9, 1.9, 55)
    assert smaller_share(list(deep), list(shallow)) == 100
    assert smaller_share(list(shallow), list(deep)) == 0


def norms(first, last):
    layers = {"conv1": (first, 5.7), "layer1.0.conv1": (9.0, 1.0), "layer3.2.conv2": (last, 9.0), "fc": (7.0, 1.0)}
    return LayerNorms(step=0, loss=2.3, layers=layers)


def test_gradients_are_balanced_where_first_and_last_convolution_are_alike(row):
    assert gradient_ratios(row("cifar10-plain20", norms=(norms(1370.0, 0.495),)))[0] == pytest.approx(1370 / 0.495)
    assert gradient_imbalance(row("cifar10-plain20", norms=(norms(10.0, 1.0),))) == pytest.approx(1)
    assert gradient_imbalance(row("cifar10-plain20", norms=(norms(1.0, 10.0),))) == pytest.approx(1)
    assert gradient_imbalance(row("cifar10-plain20")) is None


def test_the_first_half_of_a_curve_is_a_figure(row):
    curve = [CurveRow(step, 0.1, 2.0, 90.0, error) for step, error in ((16_000, 60.0), (32_000, 40.0), (64_000, 9.0))]
    (setting,) = settings([row("cifar10-plain20", curve=tuple(curve)), row("cifar10-resnet20", curve=())])
    found = setting.results("single")
    assert found["cifar10-plain20", "early_error"] == {0: 50.0}
    assert ("cifar10-resnet20-A", "early_error") not in found


def started(network, lr, error):
    paper = recipe(network)
    schedule = paper.schedule.model_copy(update={"gentle_lr": lr, "gentle_error": error})
    return paper.model_copy(update={"schedule": schedule})


def test_a_training_without_the_papers_gentle_start_is_a_sibling(row):
    rows = [row("cifar10-resnet110", top1_error=6.6), row("cifar10-resnet20", top1_error=8.8)]
    rows.append(row("cifar10-resnet110", top1_error=6.7, recipe=started("cifar10-resnet110", None, None)))
    papers, other = settings(rows)
    assert papers.is_papers
    assert not other.is_papers
    assert differing(papers, other) == ["gentle_start"]
    assert papers.results("single")[f"cifar10-resnet110-A@{FULL_LR}", "top1_error"] == {0: 6.7}
    assert not other.siblings
    assert particulars(other) == ", no gentle start"
    assert "without the gentle start" in describe_setting(other)


def test_a_gentle_start_that_the_paper_has_not_is_told(row):
    (setting,) = settings([row("cifar10-plain56", recipe=started("cifar10-plain56", 0.01, 80.0))])
    assert "after a gentle start with lr 0.01 until the training error is below 80 %" in describe_setting(setting)
    assert particulars(setting) == ", gentle start"


def test_rows_that_began_with_weights_differ_from_those_that_did_not(row):
    """Whichever stands first: an aspect that only one of two settings has is a difference."""
    scratch, begun = settings([row("cifar10-plain20"), row("cifar10-plain20", init_sha256="ab" * 32)])
    assert differing(scratch, begun) == differing(begun, scratch) == ["init"]
