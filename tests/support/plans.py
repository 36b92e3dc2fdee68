"""Execute our statements under EXPLAIN ANALYZE and read the plans."""

from collections.abc import Generator
from typing import Any

from routines_core.db import Connection
from routines_core.db.statements import Statement

Plan = dict[str, Any]


async def explained(connection: Connection, statement: str, **parameters: Any) -> Plan:
    """Execute the statement declared under this name and return its plan."""
    cursor = await connection.execute(
        f"EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT JSON) {Statement.declared[statement].text}".encode(), parameters
    )
    row = await cursor.fetchone()
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
