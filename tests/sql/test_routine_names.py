"""Routine names have a table of their own, which always agrees with the routines."""

import uuid
from functools import partial
from typing import Any

import psycopg
import pytest

from routines_core.db import Connection
from routines_core.db.routines import delete_routine, set_paused
from routines_core.errors import NotFoundError
from support.rows import Database, at, make_key, make_routine, make_task, value
from support.stepping import running, session, until_blocked

SLOT = at("2026-05-04 09:00")
DIFFERENCES = """SELECT count(*)
                 FROM (SELECT task_id, name, id AS routine_id, collection_id FROM routines.routines) AS said
                 FULL JOIN routines.routine_names AS kept USING (task_id, name, routine_id, collection_id)
                 WHERE said IS NULL OR kept IS NULL"""
MANY = """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type)
          SELECT 1, 1, 'r' || n, 'manual' FROM generate_series(1, 5) AS n"""
MERGE = """MERGE INTO routines.routines USING (VALUES (4), (9)) AS new (id) ON routines.id = new.id
           WHEN MATCHED THEN UPDATE SET name = 'merged'
           WHEN NOT MATCHED THEN INSERT (collection_id, task_id, name, cadence_type) VALUES (1, 1, 'r9', 'manual')"""
OTHER_TASK = "INSERT INTO routines.tasks (collection_id, name) VALUES (1, 'other')"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (MANY, 5),
        (f"{MANY}; UPDATE routines.routines SET name = 'new-' || name WHERE id > 2", 5),
        (f"{MANY}; UPDATE routines.routines SET name = name, task_id = 1", 5),
        (f"{MANY}; {OTHER_TASK}; UPDATE routines.routines SET task_id = 2 WHERE id < 3", 5),
        (f"{MANY}; DELETE FROM routines.routines WHERE id < 3", 3),
        (f"{MANY}; DELETE FROM routines.routines; {MANY}", 5),
        (f"{MANY}; TRUNCATE routines.routines", 0),
        (f"{MANY}; {MERGE}", 6),
    ],
    ids=["insert", "rename", "no-change", "move", "delete", "again", "truncate", "merge"],
)
async def test_a_statement_typed_in_psql_changes_both_tables(connection: Connection, change: str, names: int) -> None:
    await make_task(connection)
    await connection.execute(change.encode())
    assert await value(connection, DIFFERENCES) == 0
    assert await value(connection, "SELECT count(*) FROM routines.routine_names") == names


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (MANY, "routines_name_key"),
        ("UPDATE routines.routines SET name = 'r2' WHERE id = 1", "routines_name_key"),
        (
            "INSERT INTO routines.routines (collection_id, task_id, name, cadence_type) VALUES (1, 7, 'x', 'manual')",
            "routines_task_fkey",
        ),
        ("DELETE FROM routines.tasks", "routines_task_fkey"),
    ],
    ids=["insert", "rename", "no-task", "task-in-use"],
)
async def test_a_statement_that_would_break_a_rule_changes_nothing(
    connection: Connection, change: str, rule: str
) -> None:
    await make_task(connection)
    await connection.execute(MANY.encode())
    with pytest.raises(psycopg.IntegrityError) as refused:
        await connection.execute(change.encode())
    assert refused.value.diag.constraint_name == rule
    assert await value(connection, DIFFERENCES) == 0
    assert await value(connection, "SELECT count(*) FROM routines.routines") == 5


@pytest.mark.parametrize("call", ["pause", "delete"])
async def test_a_statement_that_waited_while_its_routine_was_renamed_finds_nothing(
    connection: Connection, database: Database, call: str
) -> None:
    routine = await make_routine(connection, await make_task(connection), SLOT)
    await make_key(connection, "my-org")
    path: dict[str, Any] = {"key_id": 1, "task": "echo", "name": "morning"}
    async with session(database, "renames") as renames, session(database, "waits") as waits:
        await renames.execute("BEGIN")
        await renames.execute("UPDATE routines.routines SET name = 'evening'")
        step = (
            partial(set_paused, waits, paused=True, **path)
            if call == "pause"
            else partial(delete_routine, waits, **path)
        )
        async with running(step) as waiting:
            await until_blocked(connection, waits)
            await renames.execute("COMMIT")
            with pytest.raises(NotFoundError):
                await waiting
    assert await value(connection, "SELECT paused FROM routines.routines WHERE id = %s", routine) is False


async def test_the_table_that_every_fire_writes_has_two_indexes(connection: Connection) -> None:
    """Any other would get an entry for each fire, except those of the few routines paused by strikes or with an end."""
    cursor = await connection.execute(
        """SELECT indexname FROM pg_indexes WHERE schemaname = 'routines' AND tablename = 'routines'
           AND indexname NOT IN ('routines_struck_idx', 'routines_paused_until_idx') ORDER BY 1"""
    )
    assert await cursor.fetchall() == [("routines_next_run_at_idx",), ("routines_pkey",)]


@pytest.mark.parametrize("column", ["webhook_secret_id", "secret_refs"])
@pytest.mark.parametrize("collection", ["nobody", "other"])
async def test_a_routine_can_refer_only_to_secrets_of_its_collection(
    connection: Connection, column: str, collection: str
) -> None:
    await make_routine(connection, await make_task(connection), SLOT)
    secret = uuid.uuid4()
    if collection == "other":
        await connection.execute("INSERT INTO routines.collections (name) VALUES ('other')")
        await connection.execute(
            """INSERT INTO routines.secrets (id, collection_id, kind, field, owner, key_id, ciphertext)
               VALUES (%s, 2, 'webhook_secret', '', '', 'k1', '')""",
            [secret],
        )
    new = f"'{secret}'" if column == "webhook_secret_id" else f"""'{{"KEY": "{secret}"}}'"""
    with pytest.raises(psycopg.errors.ForeignKeyViolation) as refused:
        await connection.execute(f"UPDATE routines.routines SET {column} = {new}".encode())
    assert refused.value.diag.constraint_name == "routines_secrets_are_there"


async def test_no_foreign_key_of_a_table_that_grows_lacks_an_index(connection: Connection) -> None:
    """Otherwise each row deleted from the other table scans this one. Collections and peppers are not deleted."""
    cursor = await connection.execute(
        """SELECT conrelid::regclass::text, conname FROM pg_constraint
           WHERE contype = 'f' AND connamespace = 'routines'::regnamespace
             AND confrelid NOT IN ('routines.collections'::regclass, 'routines.peppers'::regclass)
             AND NOT EXISTS (SELECT FROM pg_index
                             WHERE indrelid = conrelid AND indpred IS NULL AND indkey[0] = ANY (conkey))"""
    )
    assert await cursor.fetchall() == []
