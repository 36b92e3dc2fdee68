"""Execute our statements under EXPLAIN ANALYZE and read the plans."""

import re
from collections.abc import Generator, Mapping
from typing import Any

from psycopg import sql

from routines_core.db import Connection
from routines_core.db.statements import Statement
from routines_core.db.tick import PLANNED_ONCE, tick_of

Plan = dict[str, Any]


async def explained(connection: Connection, statement: str, **parameters: Any) -> Plan:
    """Execute the statement declared under this name and return its plan."""
    cursor = await connection.execute(
        f"EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT JSON) {Statement.declared[statement].text}".encode(), parameters
    )
    row = await cursor.fetchone()
    assert row
    return row[0][0]["Plan"]


async def planned_once(connection: Connection, batch_size: int) -> list[str]:
    """Plan the tick as a ticker does when it starts, as the prepared statement `once`. Returns its parameters."""
    names = await prepared_once(connection, tick_of(batch_size).text, PLANNED_ONCE)
    await connection.execute(f"EXPLAIN EXECUTE once ({', '.join(['NULL'] * len(names))})".encode())
    return names


async def prepared_once(connection: Connection, text: str, settings: Mapping[str, str]) -> list[str]:
    """Prepare the statement `once`, which is planned when it is first executed. Returns its parameters."""
    for name, setting in settings.items():
        await connection.execute("SELECT set_config(%s, %s, false)", [name, setting])
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text)))
    for number, name in enumerate(names, 1):
        text = text.replace(f"%({name})s", f"${number}")
    await connection.execute(f"PREPARE once AS {text}".encode())
    return names


async def explained_once(connection: Connection, names: list[str], **parameters: Any) -> Plan:
    """Execute the statement `once` and return its plan."""
    arguments = sql.SQL(", ").join(sql.Literal(parameters[name]) for name in names)
    given = sql.SQL("({})").format(arguments) if names else sql.SQL("")
    explain = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT JSON) EXECUTE once {}").format(given)
    row = await (await connection.execute(explain)).fetchone()
    assert row
    return row[0][0]["Plan"]


def nodes(plan: Plan) -> Generator[Plan]:
    """Yield every node of a plan, starting with the plan itself."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def buffers(plan: Plan) -> int:
    """Return the number of pages that the plan read."""
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
