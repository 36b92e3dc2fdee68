"""Secrets of runs and collections, stored as the API stores them."""

from uuid import UUID

from routines_core.db import Connection
from routines_core.db.secrets import seal
from routines_core.keyring import owner_of_run
from support.rows import KEYRING


async def store(connection: Connection, secret: str, name: str, run: int | None) -> UUID:
    """Store a secret param of the run, or an environment variable of collection 1 without a run. Returns its id."""
    kind, owner = ("environment", "") if run is None else ("secret_param", owner_of_run(run, None))
    sealed = seal(KEYRING, secret, collection_id=1, kind=kind, field=name, owner=owner)
    await connection.execute(
        """INSERT INTO routines.secrets (id, collection_id, kind, field, owner, key_id, ciphertext)
           VALUES (%s, 1, %s, %s, %s, %s, %s)""",
        [sealed.id, kind, name, owner, sealed.key_id, sealed.ciphertext],
    )
    return sealed.id


async def give(connection: Connection, run: int, name: str, secret: str) -> UUID:
    """Give the run a secret param. Returns the secret's id."""
    secret_id = await store(connection, secret, name, run)
    await refer(connection, run, name, secret_id)
    return secret_id


async def refer(connection: Connection, run: int, name: str, secret_id: UUID) -> None:
    await connection.execute(
        """UPDATE routines.trajectories SET secret_refs = secret_refs || jsonb_build_object(%s::text, %s::text)
           WHERE id = %s""",
        [name, secret_id, run],
    )
