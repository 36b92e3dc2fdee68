"""What migration 0019 makes of secrets that were stored before: each learns its field and its owner."""

import shutil
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path

import psycopg
import pytest

from routines_core.db import Connection, connect
from routines_core.db.migrations import migrate
from routines_core.db.statements import sql_dir
from support.rows import with_database

PARAM, HOOK, VARIABLE, OF_RUN, HOOK_OF_RUN, OF_DELETED, OF_NOBODY = (uuid.UUID(int=number) for number in range(1, 8))
BEFORE = f"""
    INSERT INTO routines.collections (name, environment_refs) VALUES ('c', '{{"V": "{VARIABLE}"}}');
    INSERT INTO routines.secrets (id, collection_id, kind, key_id, ciphertext)
    SELECT id::uuid, 1, kind, 'k1', '\\x01' FROM (VALUES
        ('{PARAM}', 'secret_param'), ('{HOOK}', 'webhook_secret'), ('{VARIABLE}', 'environment'),
        ('{OF_RUN}', 'secret_param'), ('{HOOK_OF_RUN}', 'webhook_secret'), ('{OF_DELETED}', 'secret_param'),
        ('{OF_NOBODY}', 'secret_param')) AS secret (id, kind);
    INSERT INTO routines.tasks (collection_id, name) VALUES (1, 't');
    INSERT INTO routines.task_versions (task_id, version, workflow) VALUES (1, 1, '{{}}');
    INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, secret_refs, webhook_secret_id)
    VALUES (1, 1, 'r', 'manual', '{{"A": "{PARAM}"}}', '{HOOK}');
    INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, triggered_by_routine_id,
                                       init_params, secret_refs, webhook_secret_id)
    VALUES (1, 1, 1, 'run-now', 1, '{{}}', '{{"A": "{PARAM}"}}', '{HOOK}'),
           (1, 1, 1, 'api', NULL, '{{}}', '{{"B": "{OF_RUN}"}}', '{HOOK_OF_RUN}'),
           (1, 1, 1, 'run-now', 99, '{{}}', '{{"C": "{OF_DELETED}"}}', NULL);
"""


@pytest.fixture
async def old(server_url: str, tmp_path: Path) -> AsyncGenerator[Connection]:
    """A connection to a database that knows the migrations before 0019 alone."""
    for path in (sql_dir() / "migrations").glob("*.sql"):
        if path.name < "0019":
            shutil.copy(path, tmp_path)
    name = f"routines_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"'.encode())
        async with connect(with_database(server_url, name), "tests") as connection:
            await migrate(connection, tmp_path)
            yield connection
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


async def test_each_stored_secret_learns_its_field_and_its_owner(old: Connection) -> None:
    await old.execute(BEFORE.encode())
    await migrate(old)
    rows = await (await old.execute("SELECT id, field, owner FROM routines.secrets ORDER BY id")).fetchall()
    assert rows == [
        (PARAM, "A", "routine:1"),
        (HOOK, "", "routine:1"),
        (VARIABLE, "V", ""),
        (OF_RUN, "B", "run:2"),
        (HOOK_OF_RUN, "", "run:2"),
        (OF_DELETED, "C", "routine:99"),
        (OF_NOBODY, "", ""),
    ]
