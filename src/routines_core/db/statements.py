"""Named statements: each is written once in sql/queries/*.sql and declared once in Python.

A declaration names the file, the statement and the msgspec struct that its columns fill. A test compares the columns
with the fields.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
from psycopg import AsyncConnection, AsyncCursor, DatabaseError
from psycopg.rows import BaseRowFactory, kwargs_row

from routines_core.errors import NotFoundError, StatementTimeoutError, UnauthorizedError

Row = TypeVar("Row")
_PACKAGE = Path(__file__).resolve().parent.parent
_NAME_LINE = "-- name:"
KEY_OPENS_NOTHING = "RT401"
"""The SQLSTATE that routines.collection_of_key raises."""
FEED_OPENS_NOTHING = "RT404"
"""The SQLSTATE that routines.feed_slots raises."""
CANCELLED = "57014"
"""The SQLSTATE of a statement that was cancelled, by `statement_timeout` or by an operator."""
PIECE = 1000
"""How many rows become records before others get their turn on the event loop: a few milliseconds."""


@cache
def sql_dir() -> Path:
    """Return the directory `sql/`: routines_core/sql in a wheel, the root of the checkout in an editable install."""
    shipped = _PACKAGE / "sql"
    return shipped if shipped.is_dir() else _PACKAGE.parent.parent / "sql"


@cache
def texts(aggregate: str) -> Mapping[str, str]:
    """Return the statements of sql/queries/<aggregate>.sql by name, each with the comments below its name."""
    found: dict[str, str] = {}
    for block in (sql_dir() / "queries" / f"{aggregate}.sql").read_text("utf-8").split(f"\n{_NAME_LINE}")[1:]:
        name, _, text = block.partition("\n")
        found[name.strip()] = text.strip()
    return found


class Statement(Generic[Row]):
    """A statement of sql/queries and the record that each of its rows becomes.

    Attributes:
        name: `<aggregate>.<name>`, as in `tick.tick`.
        text: The SQL with its named parameters, `%(name)s`.
        record: The struct whose fields are the statement's columns; None for one that returns no rows.
    """

    declared: ClassVar[dict[str, "Statement[Any]"]] = {}

    def __init__(self, name: str, record: type[Row], *, literals: Mapping[str, int] | None = None) -> None:
        """Declare a statement; `literals` are numbers that take the place of parameters, for the planner to see."""
        aggregate, _, own_name = name.partition(".")
        self.name = name
        self.record = record
        self.text = texts(aggregate)[own_name]
        for parameter, number in (literals or {}).items():
            self.text = self.text.replace(f"%({parameter})s", str(number))
        self._sql = self.text.encode()
        self._row_factory: BaseRowFactory[Row] = kwargs_row(_maker(record))
        if not literals:
            Statement.declared[name] = self

    async def all(self, connection: AsyncConnection[Any], **parameters: Any) -> list[Row]:
        """Execute and return all rows.

        Raises:
            UnauthorizedError: The API key parameter is revoked or has expired.
            StatementTimeoutError: Postgres cancelled the statement because it took too long.
        """
        async with connection.cursor(row_factory=self._row_factory) as cursor:
            await self._execute(cursor, parameters)
            rows = await cursor.fetchmany(PIECE)
            while len(rows) % PIECE == 0 and (piece := await cursor.fetchmany(PIECE)):
                rows += piece
                await asyncio.sleep(0)
            return rows

    async def first(self, connection: AsyncConnection[Any], **parameters: Any) -> Row | None:
        """Execute and return the first row, or None."""
        async with connection.cursor(row_factory=self._row_factory) as cursor:
            await self._execute(cursor, parameters)
            return await cursor.fetchone()

    async def one(self, connection: AsyncConnection[Any], **parameters: Any) -> Row:
        """Execute and return the first row.

        Raises:
            NotFoundError: There are no rows.
        """
        row = await self.first(connection, **parameters)
        if row is None:
            raise NotFoundError(self.name)
        return row

    async def run(self, connection: AsyncConnection[Any], **parameters: Any) -> int:
        """Execute for its effect. Returns the number of affected rows."""
        async with connection.cursor() as cursor:
            await self._execute(cursor, parameters)
            return cursor.rowcount

    async def _execute(self, cursor: AsyncCursor[Any], parameters: dict[str, Any]) -> None:
        if "key_id" in parameters:
            # As untyped text, which Postgres reads as a routines.caller before it plans the statement. Reading it names
            # the collection that row-level security then shows.
            parameters["key_id"] = str(parameters["key_id"])
        try:
            await cursor.execute(self._sql, parameters)
        except DatabaseError as error:
            if error.sqlstate == KEY_OPENS_NOTHING:
                raise UnauthorizedError from None
            if error.sqlstate == FEED_OPENS_NOTHING:
                raise NotFoundError from None
            if error.sqlstate == CANCELLED:
                raise StatementTimeoutError(self.name) from error
            raise


def _maker(record: type[Any]) -> Callable[..., Any]:
    """Return a function that builds a record from a row: the struct, or one that first decodes its nested structs.

    A nested struct comes as one jsonb column, for example a routine's cadence.
    """
    nested = {
        field.name: field.type
        for field in msgspec.structs.fields(record)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)
    }
    if not nested:
        return record

    def make(**columns: Any) -> Any:
        return record(**columns | {name: msgspec.convert(columns[name], kind) for name, kind in nested.items()})

    return make


class NoRow(msgspec.Struct):
    """The record of a statement that is executed for its effect."""
