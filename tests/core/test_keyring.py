"""The keyring: what is sealed opens in its own place and nowhere else."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routines_core.errors import ConfigurationError, SecretError
from routines_core.keyring import Keyring, SecretPlace, generate_key

RING = Keyring.parse(f"{generate_key('new')},{generate_key('old')}")
PLACE = SecretPlace(1, "secret_param", uuid.UUID(int=7))


@given(st.text())
def test_what_is_sealed_opens_in_its_place(plaintext: str) -> None:
    assert RING.open(RING.seal(plaintext, PLACE), PLACE) == plaintext


@pytest.mark.parametrize(
    "elsewhere",
    [
        SecretPlace(2, "secret_param", uuid.UUID(int=7)),
        SecretPlace(1, "webhook_secret", uuid.UUID(int=7)),
        SecretPlace(1, "secret_param", uuid.UUID(int=8)),
    ],
)
def test_a_ciphertext_that_was_moved_does_not_open(elsewhere: SecretPlace) -> None:
    with pytest.raises(SecretError):
        RING.open(RING.seal("s3cret", PLACE), elsewhere)


@given(st.integers(0, 10**6))
def test_a_damaged_ciphertext_does_not_open(position: int) -> None:
    sealed = bytearray(RING.seal("s3cret", PLACE))
    sealed[position % len(sealed)] ^= 1
    with pytest.raises(SecretError):
        RING.open(bytes(sealed), PLACE)


@pytest.mark.parametrize("text", [None, "", "k1", "k1:c2hvcnQ=", ":AAAA", "k1:not base64"])
def test_a_missing_or_short_key_is_an_error(text: str | None) -> None:
    with pytest.raises(ConfigurationError, match="ROUTINES_ENCRYPTION_KEYS"):
        Keyring.parse(text)
