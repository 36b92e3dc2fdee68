"""The rules of a cadence exist in three places: the contract, one table in Python, and constraints in SQL.

Here they accept the very same cadences. The contract is written out by hand, so that a wrong table is noticed too.
"""

import itertools
from collections.abc import Sequence
from math import prod
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from routines_api.schemas.cadences import CadenceConfig
from routines_api.schemas.faults import validate
from routines_api.schemas.routines import RoutinePatch
from routines_core import cadence
from routines_core.cadence import CadenceField
from routines_core.errors import FaultsError
from support.hostile_settings import calm_session
from support.rows import Database

TIME_RULE = "must be a time with a zone, for example 2026-05-04T09:00:00Z"
REQUIRED, OPTIONAL, REJECTED = "required", "optional", "rejected"
NAMES = ["hour_utc", "minute_utc", "day_of_week", "expression", "timezone", "every_minutes", "anchor", "at"]
TAKEN: dict[str, dict[str, str]] = {
    "manual": {},
    "hourly": {"minute_utc": OPTIONAL},
    "daily": {"hour_utc": REQUIRED, "minute_utc": OPTIONAL},
    "weekdays": {"hour_utc": REQUIRED, "minute_utc": OPTIONAL},
    "weekly": {"hour_utc": REQUIRED, "minute_utc": OPTIONAL, "day_of_week": REQUIRED},
    "cron": {"expression": REQUIRED, "timezone": OPTIONAL},
    "interval": {"every_minutes": REQUIRED, "anchor": OPTIONAL},
    "once": {"at": REQUIRED},
}
CONTRACT = {kind: {name: taken.get(name, REJECTED) for name in NAMES} for kind, taken in TAKEN.items()}
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
NINE, LATE = "2026-05-04T09:00:00Z", "2200-01-01T00:00:00Z"
PROBES = {
    "expression": [None, "0 9 * * *", ["@daily", "*/5 * * * *"], "61 * * * *", [], ["@daily"] * 11, 5],
    "timezone": [None, "UTC", "Europe/Berlin", "Foo5", "europe/berlin"],
    "anchor": [None, NINE, LATE, "soon"],
    "at": [None, NINE, LATE, "soon"],
}
"""Values of the fields that have neither a range nor choices; the others are probed at their edges."""
ALLOWED = {
    "hour_utc": range(24),
    "minute_utc": range(60),
    "day_of_week": DAYS,
    "expression": PROBES["expression"][1:3],
    "timezone": PROBES["timezone"][1:3],
    "every_minutes": range(1, 525_601),
    "anchor": [NINE],
    "at": [NINE],
}
LEFT_OUT = {name: [None] for name in NAMES} | {"minute_utc": [None, 0], "timezone": [None, "UTC"]}
"""Values that mean the same as no value."""
ONLY_SQL_KNOWS = {"expression", "timezone"}
"""Fields whose values are parsed by the database alone; a request with a wrong one is refused there."""

Given = dict[str, Any]


def contract_accepts(given: Given) -> bool:
    uses = CONTRACT.get(str(given["type"]))
    return uses is not None and all(field_fits(name, use, given[name]) for name, use in uses.items())


def field_fits(name: str, use: str, value: Any) -> bool:
    if value is None:
        return use != REQUIRED
    return value in ALLOWED[name] and (use != REJECTED or value in LEFT_OUT[name])


def python_accepts(given: Given) -> bool:
    try:
        validate(CadenceConfig, given)
    except FaultsError:
        return False
    return True


def sql_accepts(connection: psycopg.Connection, given: Given) -> bool:
    """Insert a routine with these fields; null stands for the column's default, as it does by HTTP."""
    columns = {"cadence_type": given["type"]} | {name: given[name] for name in NAMES}
    columns["once_at"] = columns.pop("at")
    columns = {name: value for name, value in columns.items() if value is not None}
    if given["type"] != "cron" and given["timezone"] == "UTC":
        del columns["timezone"]
    if "expression" in columns:
        columns["expression"] = Jsonb(columns["expression"])
    names, places = ", ".join(columns), ", ".join(["%s"] * len(columns))
    insert = f"INSERT INTO routines.routines (collection_id, task_id, name, {names}) VALUES (1, 1, 'r', {places})"
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(insert.encode(), list(columns.values()))
    except (psycopg.errors.CheckViolation, psycopg.errors.InvalidDatetimeFormat):
        return False
    return True


def probes(field: CadenceField) -> list[Any]:
    """Values inside a field's range, at its edges and outside."""
    if field.name in PROBES:
        return PROBES[field.name]
    if field.choices:
        return [None, field.choices[0], field.choices[-1], field.choices[0].capitalize(), ""]
    assert field.minimum is not None
    assert field.maximum is not None
    low, high = field.minimum, field.maximum
    return [None, low - 1, low, (low + high) // 2, high, high + 1]


def combined(kind: str, fields: Sequence[CadenceField]) -> list[Given]:
    """Return all combinations of values of these fields, without the others."""
    values = itertools.product(*map(probes, fields))
    names = [field.name for field in fields]
    return [{"type": kind, **dict.fromkeys(NAMES), **dict(zip(names, each, strict=True))} for each in values]


def cases(kind: str) -> list[Given]:
    """Return the combinations of the first three fields, of the fields of the type, and of each field with those."""
    own = [field for field in cadence.FIELDS if field.name in TAKEN.get(kind, {})]
    valid = next(given for given in [*combined(kind, own), {}] if not given or contract_accepts(given))
    others = [field for field in cadence.FIELDS if field not in own]
    single = [
        {**given, **valid, name: given[name]}
        for other in others
        for given in combined(kind, [other])
        for name in [other.name]
    ]
    return [*combined(kind, cadence.FIELDS[:3]), *combined(kind, own), *single]


def test_the_table_has_the_types_and_fields_of_the_contract() -> None:
    assert list(cadence.NAMES) == list(CONTRACT)
    assert [field.name for field in cadence.FIELDS] == NAMES


@pytest.mark.parametrize("kind", [*CONTRACT, "yearly", "Daily", ""])
def test_the_contract_python_and_sql_accept_the_same_cadences(kind: str, database: Database) -> None:
    tried = cases(kind)
    assert len(tried) > prod(len(probes(field)) for field in cadence.FIELDS[:3])
    with calm_session(database.url) as connection:
        connection.execute("INSERT INTO routines.collections (name) VALUES ('c')")
        connection.execute("INSERT INTO routines.tasks (collection_id, name) VALUES (1, 't')")
        for given in tried:
            accepted = contract_accepts(given)
            parsed = any(given[name] not in [*LEFT_OUT[name], *ALLOWED[name]] for name in ONLY_SQL_KNOWS)
            python = accepted if parsed else python_accepts(given)
            assert (given, python, sql_accepts(connection, given)) == (given, accepted, accepted)


@pytest.mark.parametrize(
    ("given", "faults"),
    [
        ({"type": "daily"}, ["hour_utc: is required by daily"]),
        ({"type": "weekly"}, ["hour_utc: is required by weekly", "day_of_week: is required by weekly"]),
        ({"type": "hourly", "hour_utc": 0}, ["hour_utc: does not go with hourly: leave it out"]),
        (
            {"type": "manual", "minute_utc": 5, "day_of_week": "mon"},
            [
                "minute_utc: does not go with manual: leave it out",
                "day_of_week: does not go with manual: leave it out",
            ],
        ),
        ({"type": "daily", "hour_utc": 24}, ["hour_utc: must be less than or equal to 23, not 24"]),
        (
            {"type": "weekly", "hour": 9, "minute_utc": 60},
            [
                "minute_utc: must be less than or equal to 59, not 60",
                "hour: unknown field",
                "hour_utc: is required by weekly",
                "day_of_week: is required by weekly",
            ],
        ),
        (
            {"type": "yearly"},
            [
                (
                    "type: must be 'manual', 'hourly', 'daily', 'weekdays', 'weekly', 'cron', 'interval' or 'once', "
                    'not "yearly"'
                )
            ],
        ),
        ({"type": "cron"}, ["expression: is required by cron"]),
        ({"type": "cron", "expression": []}, ["expression: must be a string, or an array of 1 to 10 strings"]),
        ({"type": "once", "at": "2026-05-04"}, [f"at: {TIME_RULE}"]),
        ({"type": "once", "at": 1777885200}, [f"at: {TIME_RULE}"]),
        (
            {"type": "interval", "every_minutes": 0, "expression": "@daily", "hour_utc": 9},
            [
                "every_minutes: must be greater than or equal to 1, not 0",
                "hour_utc: does not go with interval: leave it out",
                "expression: does not go with interval: leave it out",
            ],
        ),
    ],
)
def test_each_broken_rule_is_named_with_its_field(given: Given, faults: list[str]) -> None:
    with pytest.raises(FaultsError) as refused:
        validate(CadenceConfig, given)
    assert [f"{fault.field}: {fault.message}" for fault in refused.value.faults] == faults


def test_the_description_says_which_types_require_and_refuse_a_field() -> None:
    described = {name: field["description"] for name, field in CadenceConfig.model_json_schema()["properties"].items()}
    assert described == {
        "type": "How often; weekdays means Monday to Friday.",
        "hour_utc": "The hour in UTC. Required by daily, weekdays and weekly; refused on the others.",
        "minute_utc": "The minute of the hour. Refused on manual, cron, interval and once.",
        "day_of_week": "The day of the week in UTC. Required by weekly; refused on the others.",
        "expression": "A cron expression of five fields, or up to 10 of them: minute, hour, day of month, month, "
        "day of week. Required by cron; refused on the others.",
        "timezone": "The IANA name of the time zone in which the expression is read. "
        "Refused on manual, hourly, daily, weekdays, weekly, interval and once.",
        "every_minutes": "The minutes from slot to slot. Required by interval; refused on the others.",
        "anchor": "A time from which slots are counted, forwards and backwards; by default the minute in which the "
        "routine was made. Refused on manual, hourly, daily, weekdays, weekly, cron and once.",
        "at": "The only slot. Required by once; refused on the others.",
    }


@pytest.mark.parametrize(
    "url",
    [
        "https://x.org",
        "http://x",
        "https://x.org/a?b#c",
        "HTTPS://x.org",
        "Http://x",
        "ftp://x",
        "https://",
        "https://u@x",
        "https://x y",
        "",
        "https://x" + "y" * 2048,
    ],
)
def test_python_and_sql_accept_the_same_webhook_urls(url: str, database: Database) -> None:
    try:
        validate(RoutinePatch, {"webhook_url": url})
        accepted = True
    except FaultsError:
        accepted = False
    assert accepted == url.lower().startswith(("https://x.org", "http://x"))
    with calm_session(database.url) as connection:
        connection.execute("INSERT INTO routines.collections (name) VALUES ('c')")
        connection.execute("INSERT INTO routines.tasks (collection_id, name) VALUES (1, 't')")
        insert = """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type, webhook_url)
                    VALUES (1, 1, 'r', 'manual', %s)"""
        if accepted:
            connection.execute(insert, [url])
        else:
            with pytest.raises(psycopg.errors.CheckViolation):
                connection.execute(insert, [url])
