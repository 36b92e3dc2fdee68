"""What `routines doctor` says of roles and row-level security."""

from routines_core.db.roles import RoleReport

_WHERE = 'see "Roles" in docs/operations.md'


def describe(report: RoleReport) -> list[str]:
    """Lines for a person: who the connection is, which roles there are, and whether tenants are kept apart for it."""
    takes = f", takes on {', '.join(report.can_take_roles)}" if report.can_take_roles else ""
    missing = ", ".join(report.missing_roles)
    return [
        f"login     {report.login}{takes}",
        f"roles     {f'missing: {missing}; {_WHERE}' if missing else 'all there'}",
        f"tenants   {_tenants(report)}",
    ]


def _tenants(report: RoleReport) -> str:
    if report.open_tables:
        return f"NOT kept apart: row-level security is off or not forced on {', '.join(report.open_tables)}"
    if report.bypasses_row_security:
        if "routines_api" in report.can_take_roles:
            return "kept apart once a program has taken on its role; this login itself bypasses row-level security"
        return f"NOT kept apart: this login bypasses row-level security and can take on no role; {_WHERE}"
    if report.is_owner:
        return "kept apart by row-level security; this login owns the tables and sees all until it names a collection"
    return "kept apart by row-level security"
