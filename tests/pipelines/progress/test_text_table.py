import pytest

from pipelines.progress.text_table import text_table


def test_columns_are_aligned_and_two_blanks_apart() -> None:
    lines = text_table("lr", ("network", "error %"), [("plain-20", "9.10"), ("r", "12.75")])
    assert lines == ["network   error %", "plain-20     9.10", "r           12.75"]


def test_cells_stand_as_they_are() -> None:
    """Neither brackets nor colons are markup, and nothing is wrapped or cut."""
    cell = "[bold]C:\\dir[/bold] :smile: " + "x" * 500
    assert text_table("l", (), [(cell,)]) == [cell]


def test_wide_letters_take_their_two_places() -> None:
    assert text_table("lr", (), [("猫", "1"), ("abcd", "2")]) == ["猫    1", "abcd  2"]


@pytest.mark.parametrize("header", [(), ("a", "b")])
def test_an_empty_table(header: tuple[str, ...]) -> None:
    assert text_table("ll", header, []) == (["a  b"] if header else [])
