"""Open stored secrets as the programs do: by what refers to them, never by the columns of their own rows."""

from typing import Any, NamedTuple
from uuid import UUID

from routines_core.db import Connection
from routines_core.errors import SecretError
from routines_core.keyring import Keyring, SecretContext, owner_of_routine, owner_of_run

REFERENCES = """
    SELECT collection_id, id, NULL::bigint, key, value::uuid, 'secret_param'
    FROM routines.routines, jsonb_each_text(secret_refs)
    UNION ALL
    SELECT collection_id, id, NULL, '', webhook_secret_id, 'webhook_secret'
    FROM routines.routines WHERE webhook_secret_id IS NOT NULL
    UNION ALL
    SELECT collection_id, triggered_by_routine_id, id, key, value::uuid, 'secret_param'
    FROM routines.trajectories, jsonb_each_text(secret_refs)
    UNION ALL
    SELECT collection_id, triggered_by_routine_id, id, '', webhook_secret_id, 'webhook_secret'
    FROM routines.trajectories WHERE webhook_secret_id IS NOT NULL AND ended_at IS NULL
    UNION ALL
    SELECT id, NULL, NULL, key, value::uuid, 'environment'
    FROM routines.collections, jsonb_each_text(environment_refs)
"""


class Reference(NamedTuple):
    """A reference to a secret: who refers to it, and as what."""

    collection_id: int
    routine_id: int | None
    run_id: int | None
    field: str
    secret_id: UUID
    kind: str

    @property
    def context(self) -> SecretContext:
        if self.run_id is not None:
            owner = owner_of_run(self.run_id, self.routine_id)
        else:
            owner = "" if self.routine_id is None else owner_of_routine(self.routine_id)
        return SecretContext(self.collection_id, self.kind, self.field, owner, self.secret_id)


async def references(connection: Connection) -> list[Reference]:
    """Return every reference to a secret by a routine, a run or an environment."""
    return [Reference(*row) for row in await (await connection.execute(REFERENCES.encode())).fetchall()]


async def open_all(connection: Connection, keyring: Keyring) -> dict[Reference, str | None]:
    """Return the plaintext that each reference opens, or None if it does not open."""
    rows: list[Any] = await (await connection.execute("SELECT id, ciphertext FROM routines.secrets")).fetchall()
    stored: dict[UUID, bytes] = dict(rows)
    return {found: _open(keyring, stored[found.secret_id], found.context) for found in await references(connection)}


def _open(keyring: Keyring, ciphertext: bytes, context: SecretContext) -> str | None:
    try:
        return keyring.open(ciphertext, context)
    except SecretError:
        return None
