"""Any bytes that Linux takes for a name become text that can be encoded, and the same name again."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.file_names import as_path, as_text, is_odd, is_utf8, shown_name

NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: b"/" not in name and b"\0" not in name)


def is_encodable(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(NAMES)
def test_text_can_be_encoded_and_leads_back_to_the_bytes(name: bytes) -> None:
    found = os.fsdecode(name)
    text = as_text(found)
    assert text.encode().decode() == text
    assert os.fsencode(as_path(f"/nowhere/{text}")) == b"/nowhere/" + name or is_encodable(name)
    assert (text == found) == is_encodable(name) == is_utf8(found)


@given(NAMES.filter(lambda name: not is_encodable(name)))
def test_a_name_that_is_not_utf8_is_odd_and_shown_with_percents(name: bytes) -> None:
    text = as_text(os.fsdecode(name))
    assert is_odd(text)
    shown = shown_name(text)
    assert shown.encode().decode() == shown
    assert not is_odd(shown)
    assert "%" in shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"cat.png", "cat.png"),
        (b"caf\xe9.png", "caf%E9.png"),
        ("café.png".encode(), "café.png"),
        (b"\xff\x80", "%FF%80"),
    ],
)
def test_people_see_latin_letters_as_percents_and_utf8_as_it_is(name: bytes, shown: str) -> None:
    assert shown_name(as_text(os.fsdecode(name))) == shown


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="only Linux takes such names")
def test_a_file_whose_own_name_holds_the_private_characters_is_found_first(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/\xe9"
    Path(os.fsdecode(odd)).write_text("latin")
    text = f"{tmp_path}/{as_text(os.fsdecode(odd)).rpartition('/')[2]}"
    assert Path(as_path(text)).read_text() == "latin"
    Path(text).write_text("private")
    assert Path(as_path(text)).read_text() == "private"
