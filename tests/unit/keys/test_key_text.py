"""Text of keys: its form, its checksum, and what logs may show of it."""

from __future__ import annotations

import re
import string

from hypothesis import given
from hypothesis import strategies as st

from inference.keys.key_text import KEY_PATTERN, claimed_id, digest_of, id_of, is_well_formed, new_key_text

#: A key like those that are created.
KEY = "rk_aB3dE6gH9k_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG5e75596b"
CHARACTERS = string.ascii_letters + string.digits + "_- "


def test_new_key_has_the_form_that_scanners_look_for() -> None:
    text = new_key_text()
    assert re.fullmatch(KEY_PATTERN, text)
    assert is_well_formed(text)
    assert (claimed_id(text), len(id_of(text))) == (id_of(text), 10)


def test_new_keys_differ_in_id_and_secret() -> None:
    texts = {new_key_text() for _ in range(100)}
    assert len(texts) == len({id_of(text) for text in texts}) == len({text[14:57] for text in texts}) == 100


def test_form_stays_as_it_is() -> None:
    assert is_well_formed(KEY)
    assert digest_of(KEY).hex() == "30036f7c2eb6be8bc93a29d0eb3e45a673c56f50204cc55c4656d1e9ac32ff3b"


@given(place=st.integers(0, len(KEY) - 1), character=st.sampled_from(CHARACTERS) | st.characters())
def test_one_wrong_character_is_found(place: int, character: str) -> None:
    wrong = KEY[:place] + character + KEY[place + 1 :]
    assert is_well_formed(wrong) is (wrong == KEY)


@given(place=st.integers(0, len(KEY) - 2))
def test_two_characters_in_the_wrong_order_are_found(place: int) -> None:
    wrong = KEY[:place] + KEY[place + 1] + KEY[place] + KEY[place + 2 :]
    assert is_well_formed(wrong) is (wrong == KEY)


@given(st.text())
def test_any_other_text_is_malformed(text: str) -> None:
    assert not is_well_formed(text)
    assert not is_well_formed(KEY + text) or not text


@given(st.integers(0, len(KEY)), st.text())
def test_claimed_id_is_an_id_or_empty(length: int, text: str) -> None:
    assert re.fullmatch("(?:[A-Za-z][A-Za-z0-9]{9})?", claimed_id(KEY[:length] + text))


def test_claimed_id_of_a_key_with_a_wrong_end() -> None:
    assert claimed_id(KEY[:20]) == "aB3dE6gH9k"
    assert claimed_id(KEY[14:]) == claimed_id("") == claimed_id(f"Bearer {KEY}") == ""
