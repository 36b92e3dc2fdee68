"""Apply the chapters of sql/schema to a database of their own, without the migrations."""

import uuid
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

import psycopg

from routines_core.db import Connection
from routines_core.db.statements import sql_dir, texts
from support.rows import Database, with_database


def chapters() -> list[Path]:
    """Return the chapters in their order."""
    return sorted((sql_dir() / "schema").glob("*.sql"))


@contextmanager
def empty_database(server_url: str) -> Generator[Database]:
    """Yield a new database, and drop it afterwards."""
    name = f"routines_book_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
        yield Database(with_database(server_url, name))
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


async def apply(connection: Connection, texts_of_chapters: Iterable[str]) -> None:
    """Build the schema from these texts."""
    await connection.execute(texts("migrations")["create_history"].encode())
    for text in texts_of_chapters:
        await connection.execute(text.encode())
