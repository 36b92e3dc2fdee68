"""Runs on Temporal end as they do without it."""

from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecutionStatus

from routines_core.db import Connection
from support import Database, value
from temporal_working import temporal_working
from working import run_of, task_of, until_ended, workflow_of

ECHO = {"activity": "text_echo", "text": "hi"}


async def test_a_run_is_done_as_a_workflow_of_temporal(
    connection: Connection, database: Database, temporal: Client
) -> None:
    steps = workflow_of(("one", ECHO), ("two", {"activity": "text_echo", "text": "{{ one.outputs.text }} there"}))
    run = await run_of(connection, await task_of(connection, "greet", steps))
    async with temporal_working(database.url, temporal):
        assert await until_ended(connection, run) == ("completed", None)
        handle = temporal.get_workflow_handle(f"flow-my-org-greet--{run}")
        assert await handle.result() == "completed"
    assert await value(connection, "SELECT array_agg(outputs ->> 'text' ORDER BY position) FROM routines.steps") == [
        "hi",
        "hi there",
    ]
    assert await value(connection, "SELECT engine FROM routines.trajectories") == "temporal"
    assert await value(connection, "SELECT count(*) FROM routines.dispatches") == 0
