"""The tables of the report, cell by cell."""

import numpy as np
import pytest
from scipy import stats

from pipelines.reports.result_settings import settings
from pipelines.reports.significance import mcnemar
from pipelines.reports.tables import beside, by_image, claims, evidence, networks, power, reasons, runs, three_digits
from pipelines.reports.verdicts import VERDICTS, TwoNetworks, decisions, evidence_of
from resnet.paper import published
from resnet.paper.claim_forms import alike, chain


def test_differences_are_ours_less_the_papers_mean(row):
    (setting,) = settings([row("cifar10-resnet110", seed, top1_error=e) for seed, e in ((0, 6.5), (1, 6.9))])
    cells = {r[0]: r for r in beside("Table 6", published.TABLE6, setting).rows}
    assert cells["ResNet-110"][1:5] == ["2", "6.43 (6.61 ± 0.16)", "6.70 ± 0.28", "+0.09"]
    assert cells["ResNet-20"][3] == "not run"
    assert cells["Maxout"][1:5] == ["", "9.38", "", ""]


def found(comparison, left, right=()):
    """Evidence of seeds 0, 1, ... of one comparison."""
    metric = comparison.metric
    results = {(name, metric): dict(enumerate(values)) for name, values in
               ((comparison.left, left), (str(comparison.right), right))}  # fmt: skip
    return evidence_of(comparison, results)


SHALLOW, DEEP = "cifar10-plain20", "cifar10-plain56"


def test_evidence_is_a_line_with_difference_interval_and_seeds():
    (c,) = chain("top1_error", "single", ">", DEEP, SHALLOW)
    test = stats.ttest_rel((10.11, 10.41, 10.2), (9.11, 9.31, 9.3)).confidence_interval()
    assert evidence(found(c, (10.11, 10.41, 10.2), (9.11, 9.31, 9.3))) == (
        f"plain-56 - plain-20, top-1 error: +1.00 [{test.low:+.2f}, {test.high:+.2f}], 3 seeds"
    )
    assert evidence(found(c, (10.0,), (9.5,))) == "plain-56 - plain-20, top-1 error: +0.50, 1 seed"
    assert evidence(found(c, (10.0,))) == "", "not run"
    (c,) = chain("train_error", "single", "<", DEEP, 0.1)
    assert evidence(found(c, (0.05,))) == "plain-56 - 0.1, training error: -0.05, 1 seed"


def test_evidence_of_gradients_is_a_factor_and_of_alike_networks_has_the_test():
    (c,) = chain("gradient_imbalance", "single", ">", DEEP, 1.0)
    assert evidence(found(c, (3.0, 3.0))) == (
        "plain-56: first and last gradient differ by a factor of 1,000, bound 10, 2 seeds"
    )
    (c,) = alike("top1_error", "single", 0.5, (DEEP, SHALLOW))
    left, right = (8.1, 8.1, 8.15), (8.0, 8.2, 8.1)
    p = max(
        stats.ttest_rel(left, [x + margin for x in right], alternative=side).pvalue
        for margin, side in ((-0.5, "greater"), (0.5, "less"))
    )
    assert evidence(found(c, left, right)).endswith(f"3 seeds; within ± 0.5: p = {p:.2g}")


@pytest.mark.parametrize(
    ("value", "shown"), [(2776.4, "2,780"), (0.12345, "0.123"), (10.0, "10"), (1234567, "1,230,000"), (9.996, "10")]
)
def test_three_digits_are_shown(value, shown):
    assert three_digits(value) == shown


def test_half_widths_are_those_of_students_table():
    """Quantiles 0.975 of t with 1, 2, 4, 9 and 19 degrees of freedom, as printed in any book."""
    quantiles = (12.706, 4.303, 2.776, 2.262, 2.093)
    expected = [f"{t * 0.25 / n**0.5:.2f}" for t, n in zip(quantiles, (2, 3, 5, 10, 20), strict=True)]
    assert list(power().rows[0]) == ["0.25", *expected] == ["0.25", "2.25", "0.62", "0.31", "0.18", "0.12"]


def test_two_trained_networks_are_compared_image_by_image():
    right = np.arange(1000) % 10 > 0
    better = right.copy()
    better[np.flatnonzero(~right)[:60]] = True
    pairs = [TwoNetworks(DEEP, SHALLOW, seed, mcnemar(right, other)) for seed, other in ((0, better), (1, right))]
    table = by_image(pairs, "Two networks")
    p = stats.binomtest(0, 60).pvalue
    assert list(table.rows) == [
        ("plain-56 and plain-20", "2", "0", "0 to 60", f"{p:.2g} to 1", "plain-20 in 1 of 2"),
    ]
    assert table.caption == "Two networks, at 2.5 % each"


def test_networks_and_runs_of_a_setting_are_listed_with_their_figures(row):
    rows = [row(SHALLOW, seed, top1_error=9.0 + seed, cpu_seconds=5400.0, note="first") for seed in (0, 1)]
    (setting,) = settings(rows)
    (cells,) = networks(setting, "A caption").rows
    assert cells[:5] == ("plain-20", "2", "40.00 ± 0.00", "9.50 ± 0.71", "5.00 ± 0.00")
    table = runs(rows[::-1], {rows[0].setting: "1"})
    assert [r[0] for r in table.rows] == ["cifar10-plain20.s0", "cifar10-plain20.s1"], "in order"
    assert table.rows[0][1:] == ("1", "ray", "000000000", "64,000", "40.00", "9.00", "1.50", "first")


def test_a_claims_lines_say_what_is_known_and_claims_are_counted(row):
    (setting,) = settings([row(name, seed, top1_error=e + seed) for name, e in ((SHALLOW, 8.0), (DEEP, 9.0))
                           for seed in (0, 1)])  # fmt: skip
    decided = decisions(setting, "cifar10")
    table = claims(decided, "Claims", "digits")
    assert len(table.rows) == len(decided)
    tally = {name: sum(d.verdict == name for d in decided) for name in VERDICTS}
    assert table.caption == f"Claims ({', '.join(f'{name}: {n}' for name, n in tally.items() if n)})"
    assert "CIFAR-10" not in " ".join(cell for cells in table.rows for cell in cells[:1])
    assert [cells[3] == "-" for cells in table.rows] == [not reasons(d) for d in decided]
