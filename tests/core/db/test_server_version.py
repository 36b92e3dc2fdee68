"""A server that is too old is refused before anything is changed in its database."""

import pytest

from routines_core.db import Connection, migration_files
from routines_core.db.migrations import migrate
from routines_core.errors import DatabaseError


async def test_a_server_that_is_too_old_is_refused_with_its_version(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Sessions let nobody pretend another version, so the limit is raised instead.
    monkeypatch.setattr(migration_files, "OLDEST_SERVER_VERSION", 990_000)
    with pytest.raises(DatabaseError, match=r"The database is Postgres [0-9.]+.*; Routines needs 15 or newer."):
        await migrate(connection)
