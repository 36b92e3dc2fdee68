"""Masking leaves no secret in any of its likely spellings."""

import base64
import json
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routines_core.mask import MASK
from routines_engine.steps.masking import MIN_LENGTH, Masker

secrets = st.text(min_size=MIN_LENGTH, max_size=40).filter(lambda text: text.strip("*"))
pieces = st.text(max_size=12)
WRITERS = [
    lambda text: text,
    json.dumps,
    lambda text: json.dumps(text, ensure_ascii=False),
    lambda text: quote(text, safe="", errors="surrogatepass"),
    lambda text: quote_plus(text, errors="surrogatepass"),
    lambda text: base64.b64encode(text.encode("utf-8", "surrogatepass")).decode(),
    lambda text: base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode(),
    lambda text: text.encode("utf-8", "surrogatepass").hex(),
    lambda text: text.encode("utf-8", "surrogatepass").hex().upper(),
    repr,
    ascii,
    lambda text: repr(text.encode("utf-8", "surrogatepass")),
    lambda text: repr(f"'{text}\""),
]


def masker(*known: str) -> Masker:
    made = Masker()
    for secret in known:
        made.add(secret)
    return made


@given(secrets, pieces, pieces, st.sampled_from(WRITERS))
def test_no_spelling_of_a_secret_is_left_anywhere(secret: str, before: str, after: str, write: Any) -> None:
    text = before + write(secret) + after
    masked = masker(secret).mask({text: [text]})
    [(key, [value])] = masked.items()
    assert key == value
    assert MASK in value
    assert write(secret).strip('"') not in value
    assert secret not in value


@given(st.lists(secrets, min_size=1, max_size=4), st.text(max_size=60))
def test_masking_twice_changes_nothing(known: list[str], text: str) -> None:
    made = masker(*known)
    once = made.mask(text)
    assert made.mask(once) == once
    assert not any(secret in once for secret in known)


@given(st.lists(secrets, min_size=2, max_size=4))
def test_the_order_in_which_secrets_are_added_does_not_matter(known: list[str]) -> None:
    text = "|".join([*known, "".join(known)])
    assert masker(*known).mask(text) == masker(*reversed(known)).mask(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_a_value_without_a_secret_is_unchanged(value: Any) -> None:
    assert masker().mask(value) == value
    assert masker("\N{SNOWMAN}" * 30).mask(value) == value


def test_a_secret_within_another_does_not_leave_the_rest_of_it() -> None:
    assert masker("pass", "password-1").mask("password-1") == MASK


def test_short_secrets_are_not_masked_and_longer_ones_are() -> None:
    assert masker("abc").mask("abcabc") == "abcabc"
    assert masker("abcd").mask("abcde") == MASK + "e"


@pytest.mark.parametrize(
    ("value", "expected"), [(1234, MASK), (12345, 12345), (12.5, 12.5), (True, True), (None, None), (1234.0, 1234.0)]
)
def test_a_number_that_is_a_secret_is_masked(value: Any, expected: Any) -> None:
    assert masker("1234").mask([value]) == [expected]


def test_a_mask_and_the_text_beside_it_cannot_spell_a_secret() -> None:
    assert "ab**" not in masker("ab**").mask("abab**")
    assert masker("*" * 9).mask("*" * 9) == "*" * 9


@given(
    st.text(max_size=6),
    secrets.filter(lambda text: len(text.encode("utf-8", "surrogatepass")) > 6),
    st.text(max_size=6),
)
def test_the_base64_of_a_longer_text_does_not_reveal_the_secret(before: str, secret: str, after: str) -> None:
    whole = base64.b64encode((before + secret + after).encode("utf-8", "surrogatepass")).decode()
    masked = masker(secret).mask(f"Basic {whole}")
    assert MASK in masked
    # Only the bits that share a character with the neighbouring text are left of the secret.
    around = len(f"Basic {MASK}") + sum(
        len(base64.b64encode(text.encode("utf-8", "surrogatepass"))) for text in (before, after)
    )
    assert len(masked) <= around + 4
