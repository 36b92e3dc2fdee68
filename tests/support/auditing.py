"""Entries of the audit, and changes that leave them, in plain SQL."""

from datetime import UTC, datetime
from typing import Any

from routines_core.db import Connection

DUE = datetime(2126, 5, 6, 9, tzinfo=UTC)
"""When the routine of these tests is due."""
SECRET = """INSERT INTO routines.secrets (id, collection_id, kind, field, owner, key_id, ciphertext)
            VALUES (%s, 1, 'secret_param', 'TOKEN', '', 'k', '')"""
FIRST, SECOND = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
"""Ids of secrets."""


async def entries(connection: Connection, kind: str = "routine") -> list[tuple[Any, ...]]:
    """Return the action, before and after of each entry of this kind, oldest first."""
    found = await connection.execute(
        "SELECT action, before, after FROM routines.audit WHERE kind = %s ORDER BY id", [kind]
    )
    return await found.fetchall()


async def newest(connection: Connection, kind: str = "routine") -> tuple[Any, ...]:
    """Return the newest of them."""
    return (await entries(connection, kind))[-1]


async def change(connection: Connection, hour: int) -> None:
    """Change what the routine gives its runs."""
    await connection.execute("UPDATE routines.routines SET init_params_overrides = %s", [f'{{"size": {hour}}}'])
