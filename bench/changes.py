"""Measure what it takes to say what has changed in a collection, beside a larger one.

python bench/changes.py [--routines 5000] [--others 100000] [--rounds 15]

Each routine of the collection has started and ended a run a day in the past week.
"""

import argparse
import asyncio
import time

from harness import machine, median, server, table
from planning import fill
from routines_core.db import Connection, connect
from routines_core.db.changes import Moment, changed_routines
from routines_core.db.keys import create_key
from routines_core.db.migrations import migrate
from routines_core.db.peppers import Peppers
from routines_core.keyring import Keyring, generate_key

TOUCH = "UPDATE routines.routines SET last_run_at = now() WHERE id <= %s"
END = """
    UPDATE routines.trajectories SET ended_at = now()
    WHERE id IN (SELECT max(id) FROM routines.trajectories GROUP BY triggered_by_routine_id LIMIT %s)
"""


async def begin(connection: Connection, key_id: int) -> Moment:
    found = await changed_routines(connection, key_id=key_id, since=None)
    return Moment(int(found.xid), found.at)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--routines", type=int, default=5000)
    parser.add_argument("--others", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(f"{options.routines:,} routines beside {options.others:,} of another collection; {machine()}\n")
    rows: list[tuple[object, ...]] = []
    with server() as url:
        async with connect(url, "bench", statement_timeout="600s") as connection:
            await migrate(connection)
            await fill(connection, options.routines, options.others)
            key = await create_key(connection, "planned", Peppers(Keyring.parse(generate_key("k1"))))
            key_id = int(key.split("_")[1])
            for name, change, count, routine in (
                ("nothing changed", None, 0, None),
                ("a routine was changed", TOUCH, 1, None),
                ("400 routines were changed", TOUCH, 400, None),
                ("400 runs ended", END, 400, None),
                ("of one routine, nothing changed", None, 0, 1),
            ):
                took: list[float] = []
                for _ in range(options.rounds):
                    since = await begin(connection, key_id)
                    if change:
                        await connection.execute(change.encode(), [count])
                    began_at = time.perf_counter()
                    found = await changed_routines(connection, key_id=key_id, since=since, routine_id=routine)
                    took.append(1000 * (time.perf_counter() - began_at))
                    assert (len(found.ids), found.is_whole) == (count, True)
                rows.append((name, f"{median(took):,.1f}", f"{min(took):,.1f}-{max(took):,.1f}"))
    table(["", "ms, median", "range"], rows)


if __name__ == "__main__":
    asyncio.run(main())
