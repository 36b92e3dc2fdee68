"""Fixtures for Temporal: one server for the session, and a namespace for each test."""

from collections.abc import Generator

import pytest
from temporalio.client import Client

from support.temporal_server import BINARY, MISSING, NAMESPACES, TemporalServer


@pytest.fixture(scope="session")
def temporal_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[TemporalServer]:
    if BINARY is None:
        pytest.skip(MISSING)
    server = TemporalServer(tmp_path_factory.mktemp("temporal"), NAMESPACES)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def temporal(temporal_server: TemporalServer) -> Client:
    """The test's own namespace."""
    return await Client.connect(temporal_server.address, namespace=temporal_server.namespaces.pop())
