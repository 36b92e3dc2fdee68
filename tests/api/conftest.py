"""Fixtures: a client of the API with a key for the collection `my-org`, which has a task `echo`."""

from collections.abc import AsyncGenerator, Generator
from functools import cache
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_api.app import Api, create_app, furnish
from routines_core.db import Connection
from support.rows import Database, api_settings, make_key
from support.serving import copy_of, new_key

Client = AsyncTestClient[Any]
WORKFLOW = {"init_params": {"zeta": "z", "a": 1, "none": None, "list": []}, "steps": [], "step_configs": {}}


@cache
def usual_app() -> Api:
    """The application with its usual routes. To create it takes longer than most tests do."""
    return create_app(api_settings(), "")


@pytest.fixture
async def client(connection: Connection, database: Database) -> AsyncGenerator[Client]:
    key = await make_key(connection, "my-org")
    app = usual_app()
    furnish(app, api_settings(), database.url)
    async with AsyncTestClient(app) as opened:
        opened.headers["Authorization"] = f"Bearer {key}"
        created = await opened.post("/api/v1/tasks/my-org/", json={"name": "echo", "workflow": WORKFLOW})
        assert created.status_code == 201
        yield opened


@pytest.fixture(scope="module")
def shared(server_url: str, template: str) -> Generator[Database]:
    """A database shared by the tests of a module that start real API processes."""
    with copy_of(server_url, template) as database:
        yield database


@pytest.fixture(scope="module")
def key(shared: Database) -> str:
    """A key for the collection `my-org` in the shared database."""
    return new_key(shared, "my-org")
