"""Record the histories that `test_replay.py` replays: `python tests/temporal/record_histories.py`.

It starts its own servers and records only missing histories. Once a release has made a history it must stay as it is,
since runs of that release may still be open; before the first release, delete a file to record it again.
"""

import asyncio
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from temporalio.client import Client

from routines_core.db import Connection
from routines_core.db import connect as connect_to_database
from routines_core.db.migrations import migrate
from routines_core.embedded import EmbeddedServer
from support.stumbling_activities import stumbling_pool
from support.temporal_server import TemporalServer
from support.temporal_working import temporal_id_of, temporal_working
from support.working import run_of, task_of, until, until_ended, workflow_of

DIRECTORY = Path(__file__).with_name("histories")
WORKER = re.compile(r'"temporal:[^"]*"|(?<="identity": )"[^"]*"')
STACK_TRACE = re.compile(r'(?<="stackTrace": )"(?:[^"\\]|\\.)*"')
"""It names paths of this machine, and is not needed for replay."""
RETRY = {"max_attempts": 9, "backoff": 1.1}
"""A wait so long that the worker does not sit it out."""


def step(**config: Any) -> dict[str, Any]:
    return {"activity": "stumble_and_work", **config}


WORKFLOWS = {
    "quick": workflow_of(("one", step()), ("two", step()), ("three", step())),
    "long": workflow_of(("one", step()), ("two", step(seconds=2)), ("three", step())),
    "retried": workflow_of(("one", step()), ("two", step(times=1, retry=RETRY)), ("three", step())),
    "failed": workflow_of(("one", step()), ("two", step(times=1))),
    "cancelled": workflow_of(("one", step()), ("two", step(seconds=600))),
    "continued": workflow_of(("one", step(times=5, retry=RETRY))),
}


async def record(connection: Connection, client: Client, name: str) -> None:
    """Execute a run of this workflow and write its history, without what names this machine."""
    run = await run_of(connection, await task_of(connection, name, WORKFLOWS[name]))
    if name == "cancelled":
        # It was begun, and the worker goes on with it: what is recorded of it is written by that time.
        await until(
            connection,
            "SELECT now() > created_at + interval '2 s' FROM routines.steps WHERE name = 'two' AND trajectory_id = %s",
            run,
        )
        await client.get_workflow_handle(await temporal_id_of(connection, run, name)).cancel()
    await until_ended(connection, run)
    handle = client.get_workflow_handle(await temporal_id_of(connection, run, name))
    await asyncio.gather(handle.result(), return_exceptions=True)
    text = STACK_TRACE.sub('""', WORKER.sub('"worker"', (await handle.fetch_history()).to_json()))
    (DIRECTORY / f"{name}.json").write_text(text + "\n", "utf-8")


async def main(database_url: str, address: str) -> None:
    client = await Client.connect(address)
    async with connect_to_database(database_url, "tests") as connection:
        await migrate(connection)
        async with temporal_working(database_url, client, stumbling_pool()):
            for name in WORKFLOWS:
                if not (DIRECTORY / f"{name}.json").exists():
                    await record(connection, client, name)


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        postgres, temporal = EmbeddedServer(Path(made) / "postgres"), TemporalServer(Path(made))
        postgres.start()
        temporal.start()
        try:
            asyncio.run(main(postgres.url(), temporal.address))
        finally:
            temporal.stop()
            postgres.stop()
