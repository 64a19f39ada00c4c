"""The index of rows names tests that are there."""

import ast
from pathlib import Path

import pytest

from tests.real_world.rows import ROWS, main

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("number", ROWS)
def test_every_test_of_a_row_exists(number: int) -> None:
    for node in ROWS[number][1]:
        path, _, name = node.partition("::")
        assert (ROOT / path).is_file(), path
        tree = ast.parse((ROOT / path).read_text())
        names = {each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert not name or name in names, node


def test_an_unknown_row_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["999"]) == 2
    assert "a row must be one of 1, 2, 3" in capsys.readouterr().err
