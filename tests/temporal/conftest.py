"""Temporal for tests: a server for all of them, and a namespace for each test."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Generator
from datetime import timedelta

import pytest
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError

from temporal_server import BINARY, MISSING, TemporalServer


@pytest.fixture(scope="session")
def temporal_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[TemporalServer]:
    if BINARY is None:
        pytest.skip(MISSING)
    server = TemporalServer(tmp_path_factory.mktemp("temporal"))
    server.start()
    yield server
    server.stop()


async def namespace_of(server: TemporalServer) -> Client:
    """A client of a namespace of its own."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    async with asyncio.timeout(30):
        admin = await Client.connect(server.address)
        request = RegisterNamespaceRequest(namespace=name)
        request.workflow_execution_retention_period.FromTimedelta(timedelta(days=1))
        await admin.workflow_service.register_namespace(request)
        client = await Client.connect(server.address, namespace=name)
        while True:  # until the server's cache has it
            try:
                await client.count_workflows("")
            except RPCError:
                await asyncio.sleep(0.1)
            else:
                return client


@pytest.fixture
async def temporal(temporal_server: TemporalServer) -> AsyncGenerator[Client]:
    """The test's own namespace."""
    yield await namespace_of(temporal_server)
