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

import msgspec
from temporalio.client import Client

from routines_core.db import Connection, connect
from routines_core.db.migrations import migrate
from routines_core.embedded import EmbeddedServer
from routines_workflow.activity import StepContext, activity
from support.temporal_server import TemporalServer
from support.temporal_working import temporal_id_of, temporal_working
from support.working import run_of, task_of, until, until_ended, workflow_of

DIRECTORY = Path(__file__).with_name("histories")
WORKER = re.compile(r'"temporal:[^"]*"|(?<="identity": )"[^"]*"')
STACK_TRACE = re.compile(r'(?<="stackTrace": )"(?:[^"\\]|\\.)*"')
"""It names paths of this machine, and is not needed for replay."""
RETRY = {"max_attempts": 3, "backoff": 0.01}


class Named(msgspec.Struct):
    """How often it fails first, and how long it takes afterwards."""

    times: int = 0
    seconds: float = 0


@activity("Fails at first.", Named)
async def stumble(given: Named, context: StepContext) -> Named:
    if context.attempt <= given.times:
        raise ValueError("no luck")
    await asyncio.sleep(given.seconds)
    return given


def step(**config: Any) -> dict[str, Any]:
    return {"activity": "stumble", **config}


WORKFLOWS = {
    "retried": workflow_of(("one", step()), ("two", step(times=2, retry=RETRY)), ("three", step())),
    "failed": workflow_of(("one", step()), ("two", step(times=9, retry=RETRY)), ("three", step())),
    "cancelled": workflow_of(("one", step()), ("two", step(seconds=600))),
    "continued": workflow_of(*((f"s{number}", step()) for number in range(14))),
}


async def record(connection: Connection, client: Client, name: str) -> None:
    """Execute a run of this workflow and write its history, without what names this machine."""
    run = await run_of(connection, await task_of(connection, name, WORKFLOWS[name]))
    if name == "cancelled":
        await until(
            connection, "SELECT count(*) = 1 FROM routines.steps WHERE name = 'two' AND trajectory_id = %s", run
        )
        await client.get_workflow_handle(await temporal_id_of(connection, run, name)).cancel()
    await until_ended(connection, run)
    handle = client.get_workflow_handle(await temporal_id_of(connection, run, name))
    await asyncio.gather(handle.result(), return_exceptions=True)
    text = STACK_TRACE.sub('""', WORKER.sub('"worker"', (await handle.fetch_history()).to_json()))
    (DIRECTORY / f"{name}.json").write_text(text + "\n", "utf-8")


async def main(database_url: str, address: str) -> None:
    client = await Client.connect(address)
    async with connect(database_url, "tests") as connection:
        await migrate(connection)
        async with temporal_working(database_url, client):
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
