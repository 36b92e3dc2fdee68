"""Connections of a pool that remember why the server refused them, which the pool itself does not tell."""

from typing import Any, Self

import psycopg
from psycopg import AsyncConnection

from routines_core.diagnosis import note_connection


class NotedConnection(AsyncConnection[Any]):
    """A connection whose refusal is noted: see routines_core.diagnosis."""

    @classmethod
    async def connect(cls, *arguments: Any, **settings: Any) -> Self:  # pyright: ignore[reportIncompatibleMethodOverride] - passes everything on
        """Connect as usual."""
        try:
            connection = await super().connect(*arguments, **settings)
        except psycopg.OperationalError as error:
            note_connection(error)
            raise
        note_connection(None)
        return connection
