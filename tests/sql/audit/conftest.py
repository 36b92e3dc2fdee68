"""Provide a routine whose changes are audited."""

import pytest

from routines_core.db import Connection
from support.auditing import DUE
from support.rows import make_routine, make_task


@pytest.fixture
async def routine(connection: Connection) -> int:
    """Create a daily routine, and return its id."""
    return await make_routine(connection, await make_task(connection), DUE)
