"""Unsubscribe links: whoever has the key makes them, nobody else can."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgdrip.errors import ConfigurationError
from pgdrip.unsubscribe import LONGEST_TOKEN, sign_unsubscribe, verify_unsubscribe

KEY = "a key of sixteen or more"
ADDRESS = "aisyah@example.org"


def token(address: str = ADDRESS, key: str = KEY) -> str:
    return sign_unsubscribe(address, key, base_url="https://x").rpartition("/")[2]


@pytest.mark.parametrize("base", ["https://example.com/u", "https://example.com/u/"])
def test_a_link_is_the_base_and_one_more_segment(base: str) -> None:
    link = sign_unsubscribe(ADDRESS, KEY, base_url=base)
    assert link == f"https://example.com/u/{token()}"
    assert ADDRESS not in link


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_link_gives_back_the_address_it_was_made_for(address: str) -> None:
    assert verify_unsubscribe(token(address), KEY) == address


@given(st.integers(0, len(token()) - 1), st.characters(codec="ascii"))
def test_a_changed_link_names_nobody(place: int, character: str) -> None:
    good = token()
    changed = good[:place] + character + good[place + 1 :]
    assert verify_unsubscribe(changed, KEY) == (ADDRESS if changed == good else None)


@given(st.text(max_size=300))
def test_no_other_text_names_anybody(text: str) -> None:
    assert verify_unsubscribe(text, KEY) is None


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a.b.c", "é.é", "\ud800", token(""), token() * 2, "A" * 99999],
)
def test_what_is_no_link_names_nobody(text: str) -> None:
    assert verify_unsubscribe(text, KEY) is None


def test_a_link_of_another_key_names_nobody() -> None:
    assert verify_unsubscribe(token(key="another key of sixteen"), KEY) is None


def test_an_overlong_link_names_nobody() -> None:
    long = token("a" * LONGEST_TOKEN)
    assert len(long) > LONGEST_TOKEN
    assert verify_unsubscribe(long, KEY) is None


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="shorter than 16"):
        token(key="fifteen letters")
    with pytest.raises(ConfigurationError, match="shorter than 16"):
        verify_unsubscribe(token(), "")
