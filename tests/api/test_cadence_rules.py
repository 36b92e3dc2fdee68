"""Each rule of a cadence stands once in Python and once in SQL: both accept the very same inputs."""

import itertools

import psycopg
import pytest

from routines_api.schemas.requests import CadenceConfig, validate
from routines_core.errors import FaultsError
from support.rows import Database

TYPES = ["manual", "hourly", "daily", "weekdays", "weekly", "yearly"]
HOURS = [None, -1, 0, 9, 23, 24]
MINUTES = [None, -1, 0, 30, 59, 60]
DAYS = [None, "mon", "sun", "Mon", ""]
INSERT = """INSERT INTO routines.routines
                (collection_id, task_id, name, cadence_type, hour_utc, minute_utc, day_of_week)
            VALUES (1, 1, 'r', %s, %s, coalesce(%s, 0), %s)"""


def python_accepts(cadence: tuple[object, ...]) -> bool:
    try:
        validate(CadenceConfig, dict(zip(("type", "hour_utc", "minute_utc", "day_of_week"), cadence, strict=True)))
    except FaultsError:
        return False
    return True


def sql_accepts(connection: psycopg.Connection, cadence: tuple[object, ...]) -> bool:
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(INSERT, cadence)
    except psycopg.errors.CheckViolation:
        return False
    return True


@pytest.mark.parametrize("kind", TYPES)
def test_python_and_sql_accept_the_same_cadences(kind: str, database: Database) -> None:
    with psycopg.connect(database.url) as connection:
        connection.execute("INSERT INTO routines.collections (name) VALUES ('c')")
        connection.execute("INSERT INTO routines.tasks (collection_id, name) VALUES (1, 't')")
        cases = list(itertools.product([kind], HOURS, MINUTES, DAYS))
        different = [case for case in cases if python_accepts(case) != sql_accepts(connection, case)]
    assert len(cases) == 180
    assert different == []


@pytest.mark.parametrize(
    "url",
    [
        "https://x.org",
        "http://x",
        "https://x.org/a?b#c",
        "ftp://x",
        "https://",
        "https://u@x",
        "https://x y",
        "",
        "https://x" + "y" * 2048,
    ],
)
def test_python_and_sql_accept_the_same_webhook_urls(url: str, database: Database) -> None:
    from routines_api.schemas.requests import RoutinePatch

    try:
        validate(RoutinePatch, {"webhook_url": url})
        accepted = True
    except FaultsError:
        accepted = False
    with psycopg.connect(database.url) as connection:
        connection.execute("INSERT INTO routines.collections (name) VALUES ('c')")
        connection.execute("INSERT INTO routines.tasks (collection_id, name) VALUES (1, 't')")
        insert = """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, webhook_url)
                    VALUES (1, 1, 'r', 'manual', %s)"""
        if accepted:
            connection.execute(insert, [url])
        else:
            with pytest.raises(psycopg.errors.CheckViolation):
                connection.execute(insert, [url])
