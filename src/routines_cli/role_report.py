"""What `routines doctor` says about roles and row-level security."""

from routines_core.db.roles import RoleReport

_WHERE = "see docs/run/roles.md"


def describe(report: RoleReport) -> list[str]:
    """Describe the login, the roles, and whether row-level security isolates the tenants for this login."""
    may_become = f", can take on {', '.join(report.can_take_roles)}" if report.can_take_roles else ""
    missing = ", ".join(report.missing_roles)
    return [
        f"login     {report.login}{may_become}",
        f"roles     {f'missing: {missing}; {_WHERE}' if missing else 'all present'}",
        f"tenants   {_tenants(report)}",
        f"temporary {_temporary(report)}",
    ]


def _tenants(report: RoleReport) -> str:
    if report.open_tables:
        return f"NOT isolated: row-level security is off or not forced on {', '.join(report.open_tables)}"
    if report.bypasses_row_security:
        if "routines_api" in report.can_take_roles:
            return "isolated once a program takes on its role; this login itself bypasses row-level security"
        return f"NOT isolated: this login bypasses row-level security and cannot take on a role; {_WHERE}"
    if report.is_owner:
        return "isolated by row-level security; this login owns the tables and sees all until it names a collection"
    return "isolated by row-level security"


def _temporary(report: RoleReport) -> str:
    if report.lets_create_temporary_tables:
        return (
            "tables can be created by every login, and could shadow tables of the catalogue: as the owner of "
            f'the database, REVOKE TEMPORARY ON DATABASE "{report.database}" FROM PUBLIC'
        )
    return "tables are refused to the logins of the programs"
