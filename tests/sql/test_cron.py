"""Cron expressions: slots agree with oracles that others wrote, and with one that walks the calendar by the contract.

`make nightly` compares 200,000 cases. For any other number: ROUTINES_TEST_CRON_CASES=50000. A failed case is printed.
"""

import os
import re
import zoneinfo
from collections.abc import Generator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import psycopg
import pytest
from croniter import croniter
from cronsim import CronSim
from psycopg.types.json import Jsonb

from support import cron_oracle
from support.cron_cases import Case, cases, cronsim_is_wrong
from support.cron_oracle import MACROS
from support.rows import at, with_database

CASES = int(os.environ.get("ROUTINES_TEST_CRON_CASES", "600"))
SEED = int(os.environ.get("ROUTINES_TEST_SEED", "15"))
PART = 2000
"""Cases of one test: those of `make nightly` take several processes."""
CHUNK, COMPARED = 100, 3
END = datetime(2196, 1, 1, tzinfo=UTC)
"""Slots are computed up to the year 2199; 29 February on a certain weekday may have none left from this time on."""
SQL = """SELECT array(SELECT routines.next_slots(cadence, time, %s)), routines.next_fire(cadence, time),
                routines.latest_slot(cadence, time)
         FROM unnest(%s::jsonb[], %s::timestamptz[]) WITH ORDINALITY AS given (fields, time, position),
              routines.cadence_from_json(fields) AS cadence
         ORDER BY position"""


pytestmark = pytest.mark.timeout(300 + PART)
in_parts = pytest.mark.parametrize(
    ("seed", "count"), [(SEED + first, min(PART, CASES - first)) for first in range(0, CASES, PART)]
)


@pytest.fixture(scope="module")
def psql(server_url: str, template: str) -> Generator[psycopg.Connection]:
    with psycopg.connect(with_database(server_url, template), autocommit=True, options="-c timezone=UTC") as connection:
        yield connection


@pytest.fixture(scope="module")
def zones(psql: psycopg.Connection) -> Generator[list[str]]:
    """Yield the names of time zones, while Python reads the same files as the server if it has files of its own."""
    share = psql.execute("SELECT setting FROM pg_config WHERE name = 'SHAREDIR'").fetchone()
    own = Path(share[0], "timezone") if share else Path()
    zoneinfo.reset_tzpath([str(own), *zoneinfo.TZPATH] if own.is_dir() else None)
    zoneinfo.ZoneInfo.clear_cache()
    cron_oracle.zone.cache_clear()
    names = [name for (name,) in psql.execute("SELECT name FROM routines.time_zones ORDER BY name")]
    same = names if own.is_dir() else with_same_clocks(psql, names)
    assert len(same) > 0.9 * len(names) > 400
    yield same
    zoneinfo.reset_tzpath()
    zoneinfo.ZoneInfo.clear_cache()
    cron_oracle.zone.cache_clear()


def with_same_clocks(psql: psycopg.Connection, names: list[str]) -> list[str]:
    """Return the zones whose offsets are the same: the server and Python may have different releases of the data."""
    days = [datetime(year, month, 15, 12, tzinfo=UTC) for year in range(1970, 2101) for month in (1, 7)]
    offsets = psql.execute(
        """SELECT name, ARRAY(SELECT routines.utc_offset(routines.clocks_of(name), timezone('UTC', day))
                              FROM unnest(%s::timestamptz[]) AS day ORDER BY day)
           FROM unnest(%s::text[]) AS name""",
        [days, sorted(set(names) & zoneinfo.available_timezones())],
    ).fetchall()
    return [
        name for name, found in offsets if found == [day.astimezone(cron_oracle.zone(name)).utcoffset() for day in days]
    ]


def fields(case: Case) -> Jsonb:
    return Jsonb({"type": "cron", "expression": case.expressions, "timezone": case.zone})


def comes(psql: psycopg.Connection, case: Case) -> bool:
    """Return whether every expression of a random case is accepted; a few never come, such as 30 February."""
    try:
        psql.execute("SELECT routines.is_cron(%s)", [Jsonb(case.expressions)])
    except psycopg.errors.CheckViolation as error:
        assert "never comes" in (error.diag.message_primary or ""), case  # noqa: PT017 - any other error fails
        return False
    return True


def computed(psql: psycopg.Connection, chunk: Sequence[Case]) -> list[tuple[list[datetime], datetime, datetime]]:
    return psql.execute(SQL, [COMPARED, [fields(case) for case in chunk], [case.start for case in chunk]]).fetchall()


def chunks(found: list[Case]) -> list[list[Case]]:
    return [found[first : first + CHUNK] for first in range(0, len(found), CHUNK)]


@in_parts
def test_slots_agree_with_the_calendar_and_with_cronsim_in_all_time_zones(
    psql: psycopg.Connection, zones: list[str], seed: int, count: int
) -> None:
    """The calendar is walked by the contract's rules; cronsim knows Debian's. Both use Python's clocks."""
    drawn = [case for case in cases(seed, zones, count) if comes(psql, case)]
    simulated = differing = 0
    for chunk in chunks(drawn):
        for case, (slots, first, latest) in zip(chunk, computed(psql, chunk), strict=True):
            assert (slots, latest) == walked(case, len(slots)), case
            assert first == (slots[0] if slots else None), case
            assert (
                len(slots) == COMPARED
                or cron_oracle.next_slot(*case[:2], (slots or [case.start])[-1]) is None
                or (slots[-1] > END - timedelta(days=41 * 366))
            ), case
            if is_for_cronsim(case):
                simulated += 1
                agrees = by_cronsim(case, len(slots)) == slots
                differing += not agrees
                assert agrees or cronsim_is_wrong(case, slots[-1]), (case, by_cronsim(case, len(slots)), slots)
    assert simulated > 0.2 * len(drawn) > 0.15 * count
    assert differing < 0.02 * simulated


def walked(case: Case, count: int) -> tuple[list[datetime], datetime | None]:
    """Return the first slots and the latest one by the calendar; slots before 1970 are not computed."""
    slots, time = [], case.start
    while len(slots) < count and (slot := cron_oracle.next_slot(case.expressions, case.zone, time)):
        slots.append(slot)
        time = slot
    latest = cron_oracle.latest_slot(case.expressions, case.zone, case.start)
    return slots, latest if latest and latest.year >= 1970 else None


def is_for_cronsim(case: Case) -> bool:
    """cronsim takes one expression, knows no 15W, and begins at whole seconds."""
    text = case.expressions[0].replace("LW", "")
    return len(case.expressions) == 1 and "W" not in text and not case.start.second and not case.start.microsecond


def by_cronsim(case: Case, count: int) -> list[datetime]:
    text = MACROS.get(case.expressions[0], case.expressions[0])
    found = islice(CronSim(text, case.start.astimezone(cron_oracle.zone(case.zone))), count)
    return [slot.astimezone(UTC) for slot in found]


def is_for_croniter(expression: str) -> bool:
    """croniter takes `*/2` for a restricted day, and mixes up L, W and # with short months and a second day field."""
    if expression.startswith("@"):
        return True
    days = expression.lower().split()[2::2]
    is_special = any(re.search(r"l|#|[0-9]w", day) for day in days)
    return not (any(re.search(r"^\*/|w$", day) for day in days) or (is_special and "*" not in days))


@in_parts
def test_slots_in_utc_agree_with_croniter(psql: psycopg.Connection, seed: int, count: int) -> None:
    """croniter writes L5 for 5L."""
    drawn = [
        case._replace(zone="UTC", expressions=case.expressions[:1])
        for case in cases(seed + 1, ["UTC"], count)
        if is_for_croniter(case.expressions[0])
    ]
    drawn = [case for case in drawn if comes(psql, case)]
    assert len(drawn) > 0.3 * count
    for chunk in chunks(drawn):
        for case, (slots, _, _) in zip(chunk, computed(psql, chunk), strict=True):
            text = re.sub(r"([0-7])l$", r"l\1", case.expressions[0].lower())
            expected = croniter(text, case.start, max_years_between_matches=45)
            assert slots == [expected.get_next(datetime) for _ in slots], case


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        # Clocks go from 02:00 to 03:00 on 14 March 2027, and from 02:00 back to 01:00 on 7 November.
        ("30 2 * * *", "America/New_York", "2027-03-13 08:00", ["2027-03-14 07:00", "2027-03-15 06:30"]),
        ("15,30 2 * * *", "America/New_York", "2027-03-14 06:00", ["2027-03-14 07:00", "2027-03-15 06:15"]),
        ("0 2,3 * * *", "America/New_York", "2027-03-14 06:00", ["2027-03-14 07:00", "2027-03-15 06:00"]),
        ("*/15 2 * * *", "America/New_York", "2027-03-14 05:00", ["2027-03-15 06:00", "2027-03-15 06:15"]),
        ("0 */1 * * *", "America/New_York", "2027-03-14 05:30", ["2027-03-14 06:00", "2027-03-14 07:00"]),
        ("30 1 * * *", "America/New_York", "2027-11-07 04:00", ["2027-11-07 05:30", "2027-11-08 06:30"]),
        (
            "*/30 1 * * *",
            "America/New_York",
            "2027-11-07 05:00",
            ["2027-11-07 05:30", "2027-11-07 06:00", "2027-11-07 06:30"],
        ),
        ("@hourly", "America/New_York", "2027-11-07 05:00", ["2027-11-07 06:00", "2027-11-07 07:00"]),
        # By half an hour, from 02:00 to 02:30 and from 02:00 back to 01:30.
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-02 16:00", ["2026-10-03 15:30", "2026-10-04 15:15"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2027-04-02 16:00", ["2027-04-03 14:45", "2027-04-04 15:15"]),
        # At a minute past midnight, back to 23:01 of the day before.
        ("30 23 * * *", "America/St_Johns", "2010-11-06 12:00", ["2010-11-07 02:00", "2010-11-08 03:00"]),
        (
            "*/30 23 * * *",
            "America/St_Johns",
            "2010-11-07 01:00",
            ["2010-11-07 01:30", "2010-11-07 02:00", "2010-11-07 03:00"],
        ),
        # Samoa had no 30 December 2011: its slot falls on the first minute after, once.
        ("0 10 30 12 *", "Pacific/Apia", "2011-12-01", ["2011-12-30 10:00", "2012-12-29 20:00"]),
        ("0 0 * * *", "Pacific/Apia", "2011-12-29", ["2011-12-29 10:00", "2011-12-30 10:00", "2011-12-31 10:00"]),
        ("0 9 * * mon-fri", "Europe/Berlin", "2027-03-25 12:00", ["2027-03-26 08:00", "2027-03-29 07:00"]),
        # Names that Postgres itself reads as abbreviations.
        ("0 9 * * *", "CET", "2027-07-01", ["2027-07-01 07:00"]),
        ("0 0 L * *", "UTC", "2028-01-31", ["2028-02-29", "2028-03-31"]),
        ("0 0 LW * *", "UTC", "2027-02-01", ["2027-02-26", "2027-03-31"]),
        ("0 0 1W * *", "UTC", "2027-05-01", ["2027-05-03", "2027-06-01"]),
        ("0 0 31W * *", "UTC", "2027-01-01", ["2027-01-29", "2027-03-31", "2027-05-31"]),
        ("0 0 * * MON#1", "UTC", "2027-01-31", ["2027-02-01", "2027-03-01"]),
        ("0 0 * * mon#5", "UTC", "2027-01-31", ["2027-03-29", "2027-05-31"]),
        ("0 0 * * 5L", "UTC", "2027-01-31", ["2027-02-26", "2027-03-26"]),
        ("0 0 * * sunl", "UTC", "2027-01-31", ["2027-02-28"]),
        # Either day if neither field begins with *; otherwise both.
        ("0 0 13 * 5", "UTC", "2027-08-01", ["2027-08-06", "2027-08-13", "2027-08-20"]),
        ("0 0 */13 * 5", "UTC", "2027-08-01", ["2027-08-27", "2027-10-01"]),
        ("0 0 29 2 */7", "UTC", "2097-01-01", ["2128-02-29", "2156-02-29", "2184-02-29"]),
        ("0 0 * * fri-sun", "UTC", "2027-08-01", ["2027-08-06", "2027-08-07", "2027-08-08"]),
        ("  5  4\t* *  * ", "UTC", "2027-08-01", ["2027-08-01 04:05"]),
        ("@weekly", "UTC", "2027-08-01", ["2027-08-08"]),
        ("@Yearly", "UTC", "2027-08-01", ["2028-01-01", "2029-01-01"]),
    ],
)
def test_slots_are_as_written_by_hand(
    psql: psycopg.Connection, expression: str, zone: str, after: str, expected: list[str]
) -> None:
    case = Case([expression], zone, at(after))
    slots = psql.execute(
        "SELECT array(SELECT routines.next_slots(routines.cadence_from_json(%s), %s, %s))",
        [fields(case), case.start, len(expected)],
    ).fetchone()
    assert slots == ([at(text) for text in expected],)


def test_expressions_of_one_cadence_share_their_slots(psql: psycopg.Connection) -> None:
    case = Case(["0 9 * * *", "0 9,17 * * mon-fri", "*/30 16-17 * * *"], "UTC", at("2027-08-02 08:00"))
    [(slots, _, latest)] = computed(psql, [case])
    assert slots == [at("2027-08-02 09:00"), at("2027-08-02 16:00"), at("2027-08-02 16:30")]
    assert latest == at("2027-08-01 17:30")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("61 * * * *", 'a range such as 1-5, a step such as */15 or 10-40/5, or a list of these, not "61"'),
        ("* 24 * * *", "hour must be 0-23, *, a range such as 9-17, a step such as */2 or 8-18/2, or a list of"),
        ("5/15 * * * *", "write 5-59/15 for a step"),
        ("0 0 0 * *", "day of month must be 1-31"),
        ("0 0 32W * *", "day of month must be 1-31"),
        ("0 0 L-3 * *", "day of month must be 1-31"),
        ("0 0 * 13 *", "month must be 1-12"),
        ("0 0 * * 8", "day of week must be 0-7"),
        ("0 0 * * mon#6", "day of week must be 0-7"),
        ("0 0 * * L", "day of week must be 0-7"),
        ("0 0 ? * *", "day of month must be 1-31"),
        ("5-1 * * * *", "minute must be 0-59"),
        ("*/0 * * * *", "minute must be 0-59"),
        ("1,,2 * * * *", "minute must be 0-59"),
        ("99999999999999999999 * * * *", "minute must be 0-59"),
        ("* * * *", 'such as "30 9 * * mon-fri"; "* * * *" has 4'),
        ("0 0 0 1 1 *", "has 6"),
        ("", "has 0"),
        ("@reboot", "must be @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly or five fields"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 30 2,2 */2", "never comes"),
        ("0 0 * 2 " + "mon#1," * 200 + "1", "at most 1000 characters"),
        ([], "array of 1 to 10 strings"),
        (["* * * * *"] * 11, "array of 1 to 10 strings"),
        ([5], "array of 1 to 10 strings"),
        ({"minute": 5}, "must be a string"),
    ],
)
def test_an_expression_that_is_not_valid_is_refused_with_its_field_and_what_it_takes(
    psql: psycopg.Connection, expression: object, message: str
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        psql.execute("SELECT routines.is_cron(%s)", [Jsonb(expression)])
    assert refused.value.diag.constraint_name == "routines_expression_is_valid"
    told = refused.value.diag.message_primary or ""
    assert told.startswith("expression: ")
    assert message in told


def test_counting_slots_agrees_with_listing_them(psql: psycopg.Connection, zones: list[str]) -> None:
    drawn = [case for case in cases(SEED + 2, zones, 40) if comes(psql, case)]
    compared = psql.execute(
        """SELECT routines.count_cron_slots(rules, zone, first, last),
                  (SELECT count(*) FROM routines.cron_slots(rules, zone, first, last))
           FROM unnest(%s::jsonb[], %s::text[], %s::timestamptz[]) AS given (expression, name, first),
                LATERAL (SELECT routines.cron_rules(expression) AS rules, routines.clocks_of(name) AS zone,
                                first + interval '1 day' * (extract(day FROM first) * 3) AS last) AS parsed""",
        [[Jsonb(case.expressions) for case in drawn], [case.zone for case in drawn], [case.start for case in drawn]],
    ).fetchall()
    assert [counted for counted, _ in compared] == [listed for _, listed in compared]
    assert sum(counted for counted, _ in compared) > 3_000


@pytest.mark.parametrize(
    "name",
    ["Foo5", "EST5", "UTC+3", "+02:00", "CEST", "europe/berlin", "posix/UTC", "Factory", "Mars/Phobos", "", "x" * 500],
)
def test_a_time_zone_without_an_iana_name_is_refused(psql: psycopg.Connection, name: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="IANA database, such as Europe/Berlin or UTC, not"):
        psql.execute("SELECT routines.check_time_zone(%s)", [name])


def test_a_time_that_clocks_always_skip_is_refused(psql: psycopg.Connection) -> None:
    cadence = {"type": "cron", "expression": "*/15 2 8-14 3 */7", "timezone": "America/New_York"}
    with pytest.raises(psycopg.errors.CheckViolation, match="clocks of America/New_York skip that time"):
        psql.execute("SELECT routines.preview_slots(routines.cadence_from_json(%s), now(), 1)", [Jsonb(cadence)])
