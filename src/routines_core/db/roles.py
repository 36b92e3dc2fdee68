"""The roles of Routines in Postgres, as a connection sees them: sql/queries/roles.sql called from Python."""

from typing import Any

import msgspec
from psycopg import AsyncConnection

from routines_core.db.statements import Statement


class RoleReport(msgspec.Struct, frozen=True):
    """The login of a connection, and how row-level security applies to it.

    Attributes:
        login: The role that it logged in as.
        bypasses_row_security: True if policies do not apply: a superuser, or a role with BYPASSRLS.
        is_owner: True if it owns the tables, and so sees all collections until it names one.
        missing_roles: Roles of Routines that the cluster does not have.
        can_take_roles: Roles that a program with this login switches to.
        lets_create_temporary_tables: True if every login of the database may create temporary tables.
        database: The database's name.
        open_tables: Tenant tables whose row-level security is disabled or not forced.
    """

    login: str
    bypasses_row_security: bool
    is_owner: bool
    missing_roles: list[str]
    can_take_roles: list[str]
    lets_create_temporary_tables: bool
    database: str
    open_tables: list[str]


_ROLE_REPORT = Statement("roles.role_report", RoleReport)


async def role_report(connection: AsyncConnection[Any]) -> RoleReport:
    """Return the role report of this connection. Needs an up-to-date schema."""
    return await _ROLE_REPORT.one(connection)
