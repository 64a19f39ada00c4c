import pytest

from resnet.networks.architectures import parse_network
from resnet.paper.published import OTHERS, RESULTS, TABLE2, TABLE3, TABLE4, TABLE5, TABLE6


def test_the_tables_are_whole():
    assert list(map(len, (TABLE2, TABLE3, TABLE4, TABLE5, TABLE6))) == [4, 10, 10, 6, 12]
    # control sums of the printed columns, against slips of the keyboard
    sums = [sum(row.top1_error or 0 for row in table) for table in (TABLE2, TABLE3, TABLE4, TABLE5, TABLE6)]
    assert sums == pytest.approx([109.39, 220.65, 171.34, 0, 95.90])
    assert sum(row.top5_error or 0 for row in (*TABLE3, *TABLE4, *TABLE5)) == pytest.approx(76.97 + 60.59 + 34.11)


def test_rows_name_networks_canonically_and_errors_are_percent():
    for row in RESULTS:
        assert row.network is None or parse_network(row.network).name == row.network
        assert all(0 < error < 100 for error in (row.top1_error, row.top5_error, row.mean) if error is not None)
        assert row.top1_error is not None or row.top5_error is not None


def test_torchvisions_errors_are_100_less_its_accuracies():
    errors = [row.top1_error for row in OTHERS if row.source.startswith("torchvision")]
    assert errors == pytest.approx([100 - accuracy for accuracy in (69.758, 73.314, 76.130, 77.374, 78.312)])


def test_the_same_figure_in_two_tables_is_the_same():
    seen = {}
    for row in (*TABLE2, *TABLE3):
        assert seen.setdefault((row.network or row.method, row.protocol), row.top1_error) == row.top1_error
