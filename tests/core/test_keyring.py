"""The keyring: a ciphertext opens in its own context and nowhere else."""

import itertools
import shlex
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routines_core.errors import ConfigurationError, SecretError
from routines_core.keyring import (
    Keyring,
    LocalKeys,
    SecretContext,
    generate_key,
    key_id_of,
    load_keyring,
    owner_of_routine,
    owner_of_run,
)
from routines_core.settings import Settings

RING = Keyring.parse(f"{generate_key('new')},{generate_key('old')}")
CONTEXT = SecretContext(1, "secret_param", "TOKEN", "routine:42", uuid.UUID(int=7))
CONTEXTS = [
    SecretContext(*parts, uuid.UUID(int=number))
    for parts in itertools.product(
        (1, 2, 12),
        ("secret_param", "webhook_secret", "environment"),
        ("", "TOKEN", "TOKE", 'N", "'),
        ("", "routine:4", "routine:42", "run:42"),
    )
    for number in (7, 8)
]


@given(st.text())
def test_a_ciphertext_opens_in_its_own_context(plaintext: str) -> None:
    assert RING.open(RING.seal(plaintext, CONTEXT), CONTEXT) == plaintext


def test_a_ciphertext_that_was_moved_does_not_open() -> None:
    """Moved to another row, field, owner, kind or tenant, or to several of these."""
    for context in CONTEXTS:
        sealed = RING.seal("s3cret", context)
        for elsewhere in CONTEXTS:
            if elsewhere != context:
                with pytest.raises(SecretError):
                    RING.open(sealed, elsewhere)


def test_a_ciphertext_with_any_bit_flipped_does_not_open() -> None:
    sealed = RING.seal("s3cret", CONTEXT)
    for position, bit in itertools.product(range(len(sealed)), range(8)):
        damaged = bytearray(sealed)
        damaged[position] ^= 1 << bit
        with pytest.raises(SecretError):
            RING.open(bytes(damaged), CONTEXT)


def test_a_truncated_or_extended_ciphertext_does_not_open() -> None:
    sealed = RING.seal("s3cret", CONTEXT)
    for length in range(len(sealed)):
        for part in (sealed[:length], sealed[len(sealed) - length :]):
            with pytest.raises(SecretError):
                RING.open(part, CONTEXT)
    with pytest.raises(SecretError):
        RING.open(sealed + b"\0", CONTEXT)


@given(st.binary(max_size=200))
def test_bytes_that_were_never_sealed_do_not_open(garbage: bytes) -> None:
    with pytest.raises(SecretError):
        RING.open(garbage, CONTEXT)
    assert isinstance(key_id_of(garbage), str)


def test_a_ciphertext_with_a_changed_key_id_does_not_open() -> None:
    key = {"aaa": bytes(32), "bbb": bytes(32)}
    sealed = Keyring(key).seal("s3cret", CONTEXT)
    assert Keyring(key).open(sealed, CONTEXT) == "s3cret"
    with pytest.raises(SecretError):
        Keyring(key).open(sealed.replace(b"aaa", b"bbb", 1), CONTEXT)


def test_an_error_names_the_missing_key_and_nothing_else() -> None:
    with pytest.raises(SecretError, match="needs encryption key 'new'") as caught:
        Keyring.parse(generate_key("other")).open(RING.seal("s3cret", CONTEXT), CONTEXT)
    assert "s3cret" not in str(caught.value)


def test_a_run_uses_the_secrets_of_its_routine_or_else_its_own() -> None:
    assert owner_of_run(9, 42) == owner_of_routine(42) == "routine:42"
    assert owner_of_run(9, None) == "run:9"


@pytest.mark.parametrize(
    "text",
    ["", " ", "k1", "k1:", "k1:c2hvcnQ=", ":AAAA", "k1:not base64", ",".join([generate_key("k1")] * 2)],
    ids=["none", "blank", "id", "id:", "short", "no id", "no base64", "twice"],
)
def test_a_missing_short_or_repeated_key_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="ROUTINES_ENCRYPTION_KEYS"):
        Keyring.parse(text)


def test_errors_about_keys_never_show_a_key() -> None:
    bare = generate_key().partition(":")[2]
    for text in (bare, f"k1:{bare}x", f"k1:{bare[:-8]}"):
        with pytest.raises(ConfigurationError) as caught:
            LocalKeys(text).keys()
        assert bare[:-8] not in str(caught.value)


def test_keys_come_from_the_setting_a_file_or_the_data_directory(tmp_path: Path) -> None:
    given, filed, kept = generate_key("given"), generate_key("filed"), generate_key("kept")
    file = tmp_path / "keys"
    file.write_text(f"{filed}\n{kept}\n", "ascii")
    (tmp_path / "encryption.key").write_text(kept, "ascii")
    for each in (file, tmp_path / "encryption.key"):
        each.chmod(0o400)
    assert load_keyring(Settings(data_dir=tmp_path, encryption_keys=given)).key_ids == ["given"]
    assert load_keyring(Settings(data_dir=tmp_path, encryption_keys_file=file)).key_ids == ["filed", "kept"]
    assert load_keyring(Settings(data_dir=tmp_path)).key_ids == ["kept"]


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640])
def test_a_key_file_may_be_read_by_its_owner_and_group(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "keys"
    file.write_text(generate_key("k1"), "ascii")
    file.chmod(mode)
    assert load_keyring(Settings(data_dir=tmp_path, encryption_keys_file=file)).key_ids == ["k1"]


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o606, 0o460, 0o401, 0o666])
@pytest.mark.parametrize("name", ["encryption.key", "my keys"])
def test_a_key_file_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int, name: str) -> None:
    file = tmp_path / name
    file.write_text(generate_key("k1"), "ascii")
    file.chmod(mode)
    settings = Settings(data_dir=tmp_path, encryption_keys_file=None if name == "encryption.key" else file)
    with pytest.raises(ConfigurationError) as caught:
        load_keyring(settings)
    assert f"(mode {mode:04o}): run chmod 0400 {shlex.quote(str(file))}." in str(caught.value)


def test_missing_keys_two_sources_and_an_unreadable_file_are_refused(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    for changed in ({}, {"encryption_keys_file": absent}, {"encryption_keys": "x", "encryption_keys_file": absent}):
        with pytest.raises(ConfigurationError):
            load_keyring(Settings.model_validate({"data_dir": tmp_path, **changed}))


def test_the_settings_do_not_print_the_keys() -> None:
    key = generate_key()
    assert key not in repr(Settings(encryption_keys=key))
