"""Which database `routines up` works on: it is named first, and refused if it looks like another program's."""

import sys

from routines_core.db import Connection
from routines_core.db.standing import holds_other_tables, place_of
from routines_core.errors import ConfigurationError
from routines_core.settings import Settings


def target_of(settings: Settings) -> str:
    """Name the database and the setting that chose it, without a user or password."""
    if settings.database_url is None:
        return f"embedded, in {settings.data_dir}"
    setting = "ROUTINES_DATABASE_URL" if settings.own_database_url else "DATABASE_URL"
    return f"{place_of(settings.database_url)}, from {setting}"


async def refuse_foreign_database(connection: Connection, settings: Settings) -> None:
    """Ask, or without a terminal refuse, before Routines moves into a database that holds only other tables.

    Many tools set DATABASE_URL. ROUTINES_DATABASE_URL is set for us, so it is not questioned.

    Raises:
        ConfigurationError: It is not to be used.
    """
    if settings.database_url is None or settings.own_database_url or not await holds_other_tables(connection):
        return
    place = place_of(settings.database_url)
    if sys.stdin and sys.stdin.isatty():
        print(f"The database {place} of DATABASE_URL has other tables and none of Routines.", file=sys.stderr)
        answer = input("Create the schema `routines` there? [y/N] ")  # noqa: ASYNC250 - nothing else runs yet
        if answer.strip().lower() in {"y", "yes"}:
            return
    raise ConfigurationError(
        f"DATABASE_URL names {place}, which has other tables and none of Routines. To use it, set "
        "ROUTINES_DATABASE_URL to the same URL; for another database, set it to that one. ROUTINES_DATABASE_URL wins "
        "over DATABASE_URL."
    )
