"""API keys: their format, their hash, and the commands that manage them."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routines_core.db import Connection
from routines_core.db.keys import (
    authenticate,
    checksum,
    create_key,
    hash_of,
    list_keys,
    parse_token,
    revoke_key,
)
from routines_core.db.peppers import Peppers
from routines_core.errors import MistypedKeyError, NotFoundError, SecretError, UnauthorizedError
from routines_core.keyring import Keyring, generate_key
from support.command import routines
from support.rows import ENCRYPTION_KEYS, Database, value

RING = Keyring.parse(ENCRYPTION_KEYS)
FORM = r"rtn_[1-9][0-9]*_[A-Za-z0-9_-]{43}[0-9A-Za-z]{6}"
ALPHABET = string.ascii_letters + string.digits + "_-"
SECRETS = st.text(ALPHABET, min_size=43, max_size=43)


def token(key_id: int, secret: str) -> str:
    unchecked = f"rtn_{key_id}_{secret}"
    return unchecked + checksum(unchecked)


def test_the_checksum_is_what_a_secret_scanner_computes() -> None:
    assert checksum("rtn_1_" + "a" * 43) == "4fY7yP"  # by gzip and perl


@given(st.integers(1, 10**17), SECRETS)
def test_parsing_a_token_returns_its_key_id_and_secret(key_id: int, secret: str) -> None:
    parsed = parse_token(token(key_id, secret))
    assert (parsed.key_id, parsed.secret) == (key_id, secret)
    assert secret not in repr(parsed)


@given(st.integers(1, 10**6), SECRETS, st.data())
def test_a_typo_is_detected_without_the_database(key_id: int, secret: str, data: st.DataObject) -> None:
    right = token(key_id, secret)
    position = data.draw(st.integers(len("rtn_"), len(right) - 1))
    wrong = right[:position] + data.draw(st.sampled_from(ALPHABET)) + right[position + 1 :]
    if wrong != right:
        with pytest.raises(UnauthorizedError):
            parse_token(wrong)


def test_two_swapped_characters_are_reported_as_a_typo() -> None:
    right = token(12, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ")
    for position in range(7, len(right) - 1):
        wrong = right[:position] + right[position + 1] + right[position] + right[position + 2 :]
        if wrong != right:
            with pytest.raises(MistypedKeyError):
                parse_token(wrong)


@pytest.mark.parametrize("text", ["", "rtn_", "rtn_1_short", "rtn_0_" + "a" * 43, "rtn_1_" + "a" * 43, "x" * 10_000])
def test_a_text_that_is_not_a_key_is_refused(text: str) -> None:
    with pytest.raises(UnauthorizedError):
        parse_token(text)


async def test_only_a_keyed_hash_of_a_key_is_stored(connection: Connection) -> None:
    key = await create_key(connection, "my-org", Peppers(RING))
    assert re.fullmatch(FORM, key)
    stored = await value(connection, "SELECT secret_hash FROM routines.api_keys")
    assert stored != hash_of(parse_token(key).secret)
    assert await value(connection, "SELECT count(*) FROM routines.peppers") == 1
    assert (await authenticate(connection, key, Peppers(RING))).collection_name == "my-org"


async def test_all_keys_share_a_pepper_that_only_the_encryption_key_opens(connection: Connection) -> None:
    key, _ = [await create_key(connection, "my-org", Peppers(RING)) for _ in range(2)]
    assert await value(connection, "SELECT count(*) FROM routines.peppers") == 1
    with pytest.raises(SecretError):
        await authenticate(connection, key, Peppers(Keyring.parse(generate_key())))


@pytest.mark.parametrize("change", ["expires_at = now()", "revoked_at = now()", "secret_hash = sha256('x')"])
async def test_an_expired_revoked_or_wrong_key_is_refused(connection: Connection, change: str) -> None:
    key = await create_key(connection, "my-org", Peppers(RING))
    await connection.execute(f"UPDATE routines.api_keys SET {change}".encode())
    with pytest.raises(UnauthorizedError):
        await authenticate(connection, key, Peppers(RING))


async def test_a_key_can_expire(connection: Connection, database: Database) -> None:
    made = routines(database, "keys", "create", "--collection", "my-org", "--expires-in", "30")
    assert made.returncode == 0, made.stderr
    assert re.fullmatch(FORM, made.stdout.strip())
    days = "SELECT expires_at BETWEEN now() + interval '29 days' AND now() + interval '31 days' FROM routines.api_keys"
    assert await value(connection, days) is True
    for wrong in ("0", "-1", "soon"):
        assert routines(database, "keys", "create", "--collection", "my-org", "--expires-in", wrong).returncode != 0


async def test_a_rotated_key_and_its_replacement_both_work_during_the_grace_period(
    connection: Connection, database: Database
) -> None:
    old = await create_key(connection, "my-org", Peppers(RING))
    made = routines(database, "keys", "rotate", "1", "--grace", "2")
    assert made.returncode == 0, made.stderr
    new = made.stdout.strip()
    for key in (old, new):
        assert (await authenticate(connection, key, Peppers(RING))).collection_name == "my-org"
    first, second = await list_keys(connection)
    assert first.expires_at
    assert 1.9 < (first.expires_at - first.created_at).total_seconds() / 86_400 < 2.1
    assert (second.expires_at, second.state) == (None, "active")


async def test_the_grace_period_does_not_extend_the_life_of_a_key(connection: Connection, database: Database) -> None:
    await create_key(connection, "my-org", Peppers(RING), expires_in_seconds=3600)
    assert routines(database, "keys", "rotate", "1").returncode == 0
    assert await value(connection, "SELECT expires_at < now() + interval '2 hours' FROM routines.api_keys WHERE id = 1")
    assert routines(database, "keys", "rotate", "2", "--grace", "0").returncode == 0
    assert routines(database, "keys", "rotate", "2").returncode == 1  # it is no longer active
    assert "There is no active key 99." in routines(database, "keys", "rotate", "99").stderr


async def test_the_list_shows_expiry_last_use_and_state_and_no_secret(
    connection: Connection, database: Database
) -> None:
    keys = [await create_key(connection, "my-org", Peppers(RING), expires_in_seconds=9000) for _ in range(3)]
    keys.append(await create_key(connection, "my-org", Peppers(RING)))
    await revoke_key(connection, 1)
    await connection.execute("UPDATE routines.api_keys SET expires_at = now() WHERE id = 2")
    await connection.execute("UPDATE routines.api_keys SET last_used_at = '2026-05-04 09:00Z' WHERE id = 3")
    lines = [line.split("\t") for line in routines(database, "keys", "list").stdout.splitlines()]
    assert [line[-1] for line in lines] == ["revoked", "expired", "active", "active"]
    assert [line[4] for line in lines] == ["never used", "never used", "used 2026-05-04 09:00", "never used"]
    assert [line[3].split()[0] for line in lines] == ["expires", "expires", "expires", "never"]
    assert not [key for key in keys if parse_token(key).secret in str(lines)]


async def test_no_key_is_created_if_the_pepper_cannot_be_decrypted(connection: Connection, database: Database) -> None:
    await create_key(connection, "my-org", Peppers(RING))
    refused = routines(database, "keys", "create", "--collection", "my-org", keys=generate_key("other"))
    assert (refused.returncode, refused.stdout, len(refused.stderr.splitlines())) == (1, "", 1)
    assert await value(connection, "SELECT count(*) FROM routines.api_keys") == 1


async def test_a_missing_key_cannot_be_revoked(connection: Connection) -> None:
    with pytest.raises(NotFoundError):
        await revoke_key(connection, 99)
