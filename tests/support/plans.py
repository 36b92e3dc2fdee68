"""Plans of our statements, as Postgres explains them after it has executed them."""

from collections.abc import Generator
from typing import Any

from routines_core.db import Connection
from routines_core.db.statements import Statement

Plan = dict[str, Any]


async def explained(connection: Connection, statement: str, **parameters: Any) -> Plan:
    """The plan of a statement, named as it was declared; it is executed."""
    cursor = await connection.execute(
        f"EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT JSON) {Statement.declared[statement].text}".encode(), parameters
    )
    row = await cursor.fetchone()
    assert row
    return row[0][0]["Plan"]


def nodes(plan: Plan) -> Generator[Plan]:
    """Every node of a plan, the plan itself first."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def buffers(plan: Plan) -> int:
    """How many pages it read."""
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
