"""The roles of Routines in Postgres, as a connection meets them: sql/queries/roles.sql called from Python."""

from typing import Any

import msgspec
from psycopg import AsyncConnection

from routines_core.db.statements import Statement


class RoleReport(msgspec.Struct, frozen=True):
    """Who a connection is, and what row-level security means to it.

    Attributes:
        login: The role that it logged in as.
        bypasses_row_security: Whether no policy holds it: a superuser, or a role with BYPASSRLS.
        is_owner: Whether it owns the tables, and so sees all collections as long as it names none.
        missing_roles: Roles of Routines that the cluster does not have.
        can_take_roles: Those that a program with this login takes on.
        open_tables: Tables of tenants whose row-level security was taken off or is not forced.
    """

    login: str
    bypasses_row_security: bool
    is_owner: bool
    missing_roles: list[str]
    can_take_roles: list[str]
    open_tables: list[str]


class _Role(msgspec.Struct):
    role: str


_TAKE = Statement("roles.take_role", _Role)
_ROLE_REPORT = Statement("roles.role_report", RoleReport)


async def take_role(connection: AsyncConnection[Any], role: str) -> bool:
    """Do no more than this role from here on; False: it is not there or not for this login, and all stays as it was.

    Whoever holds the session can undo it: only a login that has no other rights is a wall.
    """
    return await _TAKE.first(connection, role=role) is not None


async def role_report(connection: AsyncConnection[Any]) -> RoleReport:
    """Who this connection is; needs an up-to-date schema."""
    return await _ROLE_REPORT.one(connection)
