"""The line with which each program introduces itself in the log: what it is, and what it works with."""

import asyncio

import structlog

from routines_core.db import connect
from routines_core.db.standing import Standing, lacking_rights, place_of, standing
from routines_core.distribution import installed_version
from routines_core.keyring import Keyring
from routines_core.logging import describe
from routines_core.settings import Settings

UNKNOWN = "unknown"

log = structlog.get_logger("program")


async def introduce(
    program: str, settings: Settings, database_url: str, stop: asyncio.Event, keyring: Keyring | None = None
) -> None:
    """Log one line on the program, unless it is to stop already. Another line names the rights that its role lacks."""
    if stop.is_set():
        return
    role = f"routines_{program}"
    found, lacking = None, list[str]()
    try:
        async with connect(database_url, role.replace("_", "-"), role=role, statement_timeout="5s") as connection:
            found = await standing(connection)
            lacking = await lacking_rights(connection, role, found.role)
    except Exception as error:  # noqa: BLE001 - the program starts anyway, and says what it cannot do
        log.warning("standing in the database unknown", **describe(error))
    log.info("started", program=program, **_facts(program, settings, database_url, found, keyring))
    if lacking:
        log.error(
            "role lacks rights",
            role=found.role if found else role,
            lacking="; ".join(lacking),
            remedy="As the login that ran `routines migrate`: SELECT routines.set_up_roles(); see docs/run/roles.md",
        )


def _facts(
    program: str, settings: Settings, database_url: str, found: Standing | None, keyring: Keyring | None
) -> dict[str, str | None]:
    files = settings.files or (
        str(settings.data_dir / "files") if settings.has_data_dir else "none, see ROUTINES_FILES"
    )
    facts: dict[str, str | None] = {
        "version": installed_version(),
        "address": _address(program, settings),
        "database": place_of(database_url),
        "schema": found.schema_version if found else UNKNOWN,
        "role": found.role if found else UNKNOWN,
    }
    if program == "worker":
        facts["engine"] = settings.engine
    if keyring:
        facts |= {"files": files, "keys": ", ".join(keyring.key_ids)}
    return facts


def _address(program: str, settings: Settings) -> str:
    """Return where the program listens."""
    if program == "api":
        return f"{settings.host}:{settings.port}"
    return "none" if settings.metrics_port is None else f"{settings.metrics_host}:{settings.metrics_port}"
