"""The rules of a cadence exist in three places: the contract, one table in Python, and constraints in SQL.

Here they accept the very same cadences. The contract is written out by hand, so that a wrong table is noticed too.
"""

import itertools
from math import prod

import psycopg
import pytest

from routines_api.schemas.requests import CadenceConfig, RoutinePatch, validate
from routines_core import cadence
from routines_core.cadence import CadenceField
from routines_core.errors import FaultsError
from support.rows import Database

REQUIRED, OPTIONAL, REJECTED = "required", "optional", "rejected"
CONTRACT = {
    "manual": {"hour_utc": REJECTED, "minute_utc": REJECTED, "day_of_week": REJECTED},
    "hourly": {"hour_utc": REJECTED, "minute_utc": OPTIONAL, "day_of_week": REJECTED},
    "daily": {"hour_utc": REQUIRED, "minute_utc": OPTIONAL, "day_of_week": REJECTED},
    "weekdays": {"hour_utc": REQUIRED, "minute_utc": OPTIONAL, "day_of_week": REJECTED},
    "weekly": {"hour_utc": REQUIRED, "minute_utc": OPTIONAL, "day_of_week": REQUIRED},
}
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
ALLOWED = {"hour_utc": range(24), "minute_utc": range(60), "day_of_week": DAYS}
LEFT_OUT = {"hour_utc": [None], "minute_utc": [None, 0], "day_of_week": [None]}
"""Values that mean the same as no value."""

Given = dict[str, int | str | None]


def contract_accepts(given: Given) -> bool:
    uses = CONTRACT.get(str(given["type"]))
    return uses is not None and all(field_fits(name, use, given[name]) for name, use in uses.items())


def field_fits(name: str, use: str, value: int | str | None) -> bool:
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
    columns = {"cadence_type": given["type"]} | {name: given[name] for name in CONTRACT["manual"]}
    columns = {name: value for name, value in columns.items() if value is not None}
    names, places = ", ".join(columns), ", ".join(["%s"] * len(columns))
    insert = f"INSERT INTO routines.routines (collection_id, task_id, name, {names}) VALUES (1, 1, 'r', {places})"
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(insert.encode(), list(columns.values()))
    except psycopg.errors.CheckViolation:
        return False
    return True


def probes(field: CadenceField) -> list[int | str | None]:
    """Values inside a field's range, at its edges and outside."""
    if field.choices:
        return [None, field.choices[0], field.choices[-1], field.choices[0].capitalize(), ""]
    assert field.minimum is not None
    assert field.maximum is not None
    low, high = field.minimum, field.maximum
    return [None, low - 1, low, (low + high) // 2, high, high + 1]


def cases(kind: str) -> list[Given]:
    names = [field.name for field in cadence.FIELDS]
    values = itertools.product(*map(probes, cadence.FIELDS))
    return [{"type": kind, **dict(zip(names, each, strict=True))} for each in values]


def test_the_table_has_the_types_and_fields_of_the_contract() -> None:
    assert list(cadence.NAMES) == list(CONTRACT)
    assert [field.name for field in cadence.FIELDS] == list(CONTRACT["manual"])


@pytest.mark.parametrize("kind", [*CONTRACT, "yearly", "Daily", ""])
def test_the_contract_python_and_sql_accept_the_same_cadences(kind: str, database: Database) -> None:
    tried = cases(kind)
    assert len(tried) == prod(len(probes(field)) for field in cadence.FIELDS)
    with psycopg.connect(database.url) as connection:
        connection.execute("INSERT INTO routines.collections (name) VALUES ('c')")
        connection.execute("INSERT INTO routines.tasks (collection_id, name) VALUES (1, 't')")
        for given in tried:
            accepted = contract_accepts(given)
            assert (given, python_accepts(given), sql_accepts(connection, given)) == (given, accepted, accepted)


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
            ["type: must be 'manual', 'hourly', 'daily', 'weekdays' or 'weekly', not \"yearly\""],
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
        "minute_utc": "The minute of the hour. Refused on manual.",
        "day_of_week": "The day of the week in UTC. Required by weekly; refused on the others.",
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
