"""The command `routines migrate`."""

from pathlib import Path

from routines_core.db import Connection, connect
from routines_core.db.migration_files import Migration, check_server_version, compare_history, sizes_of
from routines_core.db.migrations import migrate as apply
from routines_core.db.schema import examine_schema

KINDS = ("locks", "rewrites", "reads", "writes")
"""What a migration may do to tables that exist already, in the order in which it is shown."""
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


async def migrate(url: str) -> list[str]:
    """Apply all pending migrations. Returns lines that say which."""
    async with connect(url, "routines-migrate") as connection:
        applied = await apply(connection)
        newer = await examine_schema(connection)
    if newer:
        return [newer]
    lines = [f"applied {migration.name}" for migration in applied]
    return [*lines, f"{len(applied)} migrations applied" if applied else "the schema is up to date"]


async def show_plan(url: str, directory: Path | None = None) -> list[str]:
    """Return lines on each pending migration: what it does to tables that exist already, and how large these are."""
    async with connect(url, "routines-migrate") as connection:
        await check_server_version(connection)
        pending = (await compare_history(connection, directory)).pending
        lines = [line for migration in pending for line in await _described(connection, migration)]
    return [*lines, f"{len(pending)} migrations are pending" if pending else "nothing to apply"]


async def _described(connection: Connection, migration: Migration) -> list[str]:
    effects = migration.effects
    sizes = await sizes_of(connection, [effect.table for effect in effects])
    lines = [migration.name]
    for kind in KINDS:
        shown = [
            f"{effect.table}{f' {effect.mode}' if effect.mode else ''} ({_size(sizes.get(effect.table, 0))})"
            for effect in effects
            if effect.kind == kind
        ]
        lines.append(f"  {kind:<9} {', '.join(shown) or 'nothing that exists'}")
    return lines


def _size(size: float) -> str:
    unit = 0
    while size >= 1024 and unit < len(UNITS) - 1:  # noqa: PLR2004 - of a binary unit
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {UNITS[unit]}"
