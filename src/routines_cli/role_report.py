"""What `routines doctor` says of roles and row-level security."""

from routines_core.db.roles import Standing

_WHERE = 'see "Roles" in docs/operations.md'


def describe(standing: Standing) -> list[str]:
    """Lines for a person: who the connection is, which roles there are, and whether tenants are kept apart for it."""
    takes = f", takes on {', '.join(standing.can_take_roles)}" if standing.can_take_roles else ""
    missing = ", ".join(standing.missing_roles)
    return [
        f"login     {standing.login}{takes}",
        f"roles     {f'missing: {missing}; {_WHERE}' if missing else 'all there'}",
        f"tenants   {_tenants(standing)}",
    ]


def _tenants(standing: Standing) -> str:
    if standing.open_tables:
        return f"NOT kept apart: row-level security is off or not forced on {', '.join(standing.open_tables)}"
    if standing.bypasses_row_security:
        if "routines_api" in standing.can_take_roles:
            return "kept apart once a program has taken on its role; this login itself bypasses row-level security"
        return f"NOT kept apart: this login bypasses row-level security and can take on no role; {_WHERE}"
    if standing.is_owner:
        return "kept apart by row-level security; this login owns the tables and sees all until it names a collection"
    return "kept apart by row-level security"
