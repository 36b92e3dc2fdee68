"""Measure fires per second of cron routines in 20 time zones against daily ones, alternating, in the same run.

python bench/cadences.py [--routines 100000] [--tickers 1] [--rounds 5]

All routines come due at one whole second, which all tickers wait for; fire_rate.py says how a round is made. With
0 tickers the bare statement is measured. Cron routines keep a window of coming slots, as the triggers make it; here it
is made once for each minute and time zone. Each figure is the median of the rounds.
"""

import argparse
import asyncio

from fire_rate import control, program
from harness import BATCH, filled, machine, median, server, table
from routines_core.db import Connection

ZONES = [
    *("Africa/Cairo", "Africa/Johannesburg", "America/Chicago", "America/Denver", "America/Los_Angeles"),
    *("America/New_York", "America/Sao_Paulo", "America/St_Johns", "Asia/Kathmandu", "Asia/Kolkata", "Asia/Shanghai"),
    *("Asia/Tehran", "Asia/Tokyo", "Australia/Lord_Howe", "Australia/Sydney", "Europe/Berlin", "Europe/London"),
    *("Pacific/Apia", "Pacific/Auckland", "UTC"),
]
MAKE = {
    "daily": """
        UPDATE routines.routines
        SET cadence_type = 'daily', hour_utc = 9, minute_utc = mod(id, 60), expression = NULL, timezone = NULL,
            upcoming = NULL""",
    "cron": """
        WITH windows AS MATERIALIZED (
            SELECT minute, number, to_jsonb(expression) AS expression, zone,
                   routines.slot_window(routines.cadence_from_json(jsonb_build_object(
                       'type', 'cron', 'expression', expression, 'timezone', zone)), now()) AS upcoming
            FROM generate_series(0, 59) AS minute, unnest(%(zones)s::text[]) WITH ORDINALITY AS listed (zone, number),
                 LATERAL (SELECT minute || ' 9 * * *' AS expression) AS daily
        )
        UPDATE routines.routines
        SET cadence_type = 'cron', hour_utc = NULL, minute_utc = 0, expression = windows.expression, timezone = zone,
            upcoming = windows.upcoming
        FROM windows WHERE minute = mod(id, 60) AND number = 1 + mod(id / 60, cardinality(%(zones)s::text[]))""",
}


async def use(connection: Connection, cadence: str) -> None:
    """Give all routines this cadence, without the triggers that would look at each."""
    await connection.execute("ALTER TABLE routines.routines DISABLE TRIGGER USER")
    await connection.execute(MAKE[cadence].encode(), {"zones": ZONES} if cadence == "cron" else None)
    await connection.execute("ALTER TABLE routines.routines ENABLE TRIGGER USER")


async def rates_of(routines: int, tickers: int, rounds: int) -> dict[str, list[float]]:
    """Return the rates of each cadence."""
    measured: dict[str, list[float]] = {cadence: [] for cadence in MAKE}
    due = range(1, routines + 1)
    with server() as url:
        async with filled(url, routines) as connection:
            for _ in range(rounds):
                for cadence, rates in measured.items():
                    await use(connection, cadence)
                    rates.append(
                        await program(connection, url, tickers, due, is_foreseen=True)
                        if tickers
                        else await control(connection, url, due, is_foreseen=True)
                    )
    return measured


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--routines", type=int, default=100_000)
    parser.add_argument("--tickers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"Fires per second, batches of {BATCH}; {machine()}\n")
    measured = await rates_of(options.routines, options.tickers, options.rounds)
    table(
        ["cadence", "fires/s, median", "range", "ratio to daily"],
        [
            (
                cadence,
                f"{median(rates):,.0f}",
                f"{min(rates):,.0f}-{max(rates):,.0f}",
                f"{median(rates) / median(measured['daily']):.2f}",
            )
            for cadence, rates in measured.items()
        ],
    )


if __name__ == "__main__":
    asyncio.run(main())
