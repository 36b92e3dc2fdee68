"""Commands that work on the stored secrets. They count secrets and never show them."""

from collections import Counter

from routines_cli.connecting import connected
from routines_core.db import Connection
from routines_core.db.rotation import Rotated, examine_secrets, rotate_secrets
from routines_core.errors import ConfigurationError, SecretError
from routines_core.keyring import load_keyring
from routines_core.settings import Settings

SHOWN_IDS = 5
"""How many ids of secrets that cannot be decrypted are listed."""


async def rotate(settings: Settings) -> None:
    """Encrypt every stored secret under the first key and print which keys are still needed.

    Raises:
        SecretError: Some secrets cannot be decrypted; they were left unchanged.
    """
    keyring = load_keyring(settings)
    async with connected(settings, "secrets") as connection:
        rotated = await rotate_secrets(connection, keyring, tell=_tell)
        examined = await examine_secrets(connection, keyring)
    print(f"{rotated.replaced} secrets are now under {keyring.first_key_id!r}")
    print(_needed(keyring.key_ids, examined.by_key_id))
    if examined.unopened:
        listed = ", ".join(map(str, examined.unopened[:SHOWN_IDS]))
        raise SecretError(f"{len(examined.unopened)} secrets cannot be decrypted and were left unchanged: {listed}.")


async def examine(settings: Settings, connection: Connection) -> tuple[str, bool]:
    """Return a line on the stored secrets, and whether all of them can be decrypted."""
    try:
        keyring = load_keyring(settings)
    except ConfigurationError as error:
        return f"not examined: {error}", False
    examined = await examine_secrets(connection, keyring)
    total, closed = examined.by_key_id.total(), len(examined.unopened)
    keys = ", ".join(f"{count} under {key_id!a}" for key_id, count in sorted(examined.by_key_id.items()))
    opened = f"{total - closed} of {total} can be decrypted" if closed else f"all {total} can be decrypted"
    return f"{opened}{f' ({keys})' if keys else ''}", not closed


def _tell(rotated: Rotated) -> None:
    print(f"{rotated.replaced} rotated, {len(rotated.unopened)} cannot be decrypted", flush=True)


def _needed(key_ids: list[str], by_key_id: Counter[str]) -> str:
    """Say which of the configured keys are still needed and which may be removed."""
    first, *older = key_ids
    needed = [key_id for key_id in older if by_key_id[key_id]]
    if needed:
        return f"still needed: {', '.join(map(repr, needed))}. Run this again once every program has {first!r} first."
    if older:
        return (
            f"no stored secret needs {', '.join(map(repr, older))}: remove it from the keys once every `routines api` "
            f"has {first!r} first and you have run this again; keep it as long as your backups"
        )
    return f"all of them need {first!r}"
