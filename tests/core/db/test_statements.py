"""Every statement of sql/queries against the migrated schema."""

import asyncio

import msgspec
import psycopg
import pytest
from psycopg._queries import PostgresQuery
from psycopg.adapt import Transformer

from routines_core.db import Connection, statements
from routines_core.db.statements import PIECE, NoRow, Statement, sql_dir, texts
from support.rows import with_database
from support.statements import DECLARED

SCRIPTS = {"migrations.create_history", "runs.listen"}  # several statements in one text, a command: nothing to describe


@pytest.mark.parametrize("name", sorted(set(DECLARED) - SCRIPTS))
def test_a_statements_columns_are_the_fields_of_its_record(name: str, server_url: str, template: str) -> None:
    statement = DECLARED[name]
    with psycopg.connect(with_database(server_url, template)) as connection:  # nothing is written to it
        query = PostgresQuery(Transformer(connection))
        names = {part.split(")s")[0] for part in statement.text.split("%(")[1:]}
        query.convert(statement.text, dict.fromkeys(names) if names else None)
        assert connection.pgconn.prepare(b"described", query.query).status == psycopg.pq.ExecStatus.COMMAND_OK, name
        described = connection.pgconn.describe_prepared(b"described")
        columns = [(described.fname(index) or b"").decode() for index in range(described.nfields)]
    if statement.record is NoRow:
        assert len(columns) <= 1
    else:
        assert sorted(columns) == sorted(field.name for field in msgspec.structs.fields(statement.record))


def test_every_statement_on_disk_is_declared_once() -> None:
    on_disk = {f"{path.stem}.{name}" for path in (sql_dir() / "queries").glob("*.sql") for name in texts(path.stem)}
    assert on_disk == set(DECLARED)


@pytest.mark.parametrize("count", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
async def test_many_rows_become_records_in_pieces_with_turns_for_others_between(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    turns, made_in = 0, []

    class Number(msgspec.Struct):
        n: int

        def __post_init__(self) -> None:
            made_in.append(turns)

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(statements, "texts", lambda _: {"all": "SELECT n FROM generate_series(1, %(count)s) AS n"})
    numbers = Statement("numbers.all", Number, literals={"undeclared": 0})
    task = asyncio.create_task(others())
    found = await numbers.all(connection, count=count)
    task.cancel()
    assert [each.n for each in found] == list(range(1, count + 1))
    assert all(made_in.count(turn) <= 2 * PIECE for turn in set(made_in))
    assert len(set(made_in)) >= count // (2 * PIECE) + (count > 0)
