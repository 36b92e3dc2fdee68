"""Provide a task and a routine of it, for alert rules to watch."""

import pytest

from routines_core.db import Connection
from support.alerting import make_hourly
from support.rows import make_task


@pytest.fixture
async def task(connection: Connection) -> int:
    return await make_task(connection)


@pytest.fixture
async def routine(connection: Connection, task: int) -> int:
    return await make_hourly(connection, task)
