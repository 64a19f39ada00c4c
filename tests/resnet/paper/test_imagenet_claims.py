from resnet.paper.imagenet_claims import IMAGENET_CLAIMS
from resnet.paper.published import TABLE2, TABLE3, TABLE4


def test_the_published_figures_bear_out_the_claims():
    published = {
        (row.network, metric, row.protocol): getattr(row, metric)
        for row in (
            *TABLE2,
            *TABLE3,
            *TABLE4,
        )
        for metric in ("top1_error", "top5_error")
    }
    checked = 0
    for comparison in (comparison for claim in IMAGENET_CLAIMS for comparison in claim.comparisons):
        left = published.get((comparison.left, comparison.metric, comparison.protocol))
        right = published.get((str(comparison.right), comparison.metric, comparison.protocol), comparison.right)
        if left is not None and not isinstance(right, str):
            if comparison.relation == "~":
                assert abs(left - right) < (comparison.margin or 0), comparison
            else:
                assert (left < right) == (comparison.relation == "<"), comparison
            checked += 1
    assert checked == 27
