"""Masking takes time linear in the text, whatever the secrets are, and leaves none of them readable."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routines_core.mask import MASK
from routines_engine.steps.masking import MIN_LENGTH, Masker

MIB = 1024 * 1024
HOSTILE = {
    "a secret that begins with the mask": (["********a"], "********" + "a" * MIB),
    "secrets nested in one another": (["a" * length for length in range(4, 204)], "a" * MIB),
    "a thousand secrets": ([f"secret-{number:04}-{number * 7919}" for number in range(1000)], "secret-" * (MIB // 7)),
    "a text of nothing but secrets": (["abcd"], "abcd" * (MIB // 4)),
    "a long secret that almost matches everywhere": (["a" * 60_000 + "b"], "a" * MIB),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_mebibyte_of_hostile_text_is_masked_in_less_than_two_seconds(name: str) -> None:
    secrets, text = HOSTILE[name]
    masker = Masker()
    began = time.process_time()
    for secret in secrets:
        masker.add(secret)
    masked = masker.mask(text)
    assert time.process_time() - began < 2
    assert not [secret for secret in secrets[:50] if secret in masked]


@given(st.lists(st.text("ab*", min_size=MIN_LENGTH, max_size=8), min_size=1, max_size=4), st.text("ab*x", max_size=40))
def test_no_secret_is_left_in_a_masked_text(secrets: list[str], text: str) -> None:
    masker = Masker()
    for secret in secrets:
        masker.add(secret)
    masked = masker.mask(text)
    assert not [secret for secret in secrets if secret.strip("*") and secret in masked]


def test_secrets_that_overlap_in_a_text_are_both_masked_whole() -> None:
    masker = Masker()
    masker.add("abcd")
    masker.add("bcdefgh")
    assert masker.mask("x abcdefgh y") == f"x {MASK} y"
