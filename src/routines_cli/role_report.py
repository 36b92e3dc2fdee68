"""What `routines doctor` says about roles and row-level security."""

from collections.abc import Mapping, Sequence

from routines_core.db.roles import RoleReport

_WHERE = "see docs/run/roles.md"


def describe(report: RoleReport, lacking: Mapping[str, Sequence[str]]) -> list[str]:
    """Describe the login, the roles, and whether row-level security isolates the tenants for this login.

    Args:
        report: The role report.
        lacking: The rights that each role lacks.
    """
    may_become = f", can take on {', '.join(report.can_take_roles)}" if report.can_take_roles else ""
    return [
        f"login     {report.login}{may_become}",
        f"roles     {_roles(report, lacking)}",
        f"tenants   {_tenants(report)}",
        f"temporary {_temporary(report)}",
    ]


def are_tenants_isolated(report: RoleReport) -> bool:
    """Return whether a program with this login sees only the collection that it has named."""
    return not report.open_tables and (not report.bypasses_row_security or "routines_api" in report.can_take_roles)


def _roles(report: RoleReport, lacking: Mapping[str, Sequence[str]]) -> str:
    without = [f"{role}: {'; '.join(rights)}" for role, rights in lacking.items() if rights]
    missing = f"missing: {', '.join(report.missing_roles)}; {_WHERE}" if report.missing_roles else "all present"
    if without:
        return (
            f"{missing}. LACKING RIGHTS: {' | '.join(without)}. As the login that ran `routines migrate`: "
            f"SELECT routines.set_up_roles(); {_WHERE}"
        )
    return missing


def _tenants(report: RoleReport) -> str:
    if report.open_tables:
        return f"NOT isolated: row-level security is off or not forced on {', '.join(report.open_tables)}"
    if not are_tenants_isolated(report):
        return f"NOT isolated: this login bypasses row-level security and cannot take on a role; {_WHERE}"
    if report.bypasses_row_security:
        return "isolated once a program takes on its role; this login itself bypasses row-level security"
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
