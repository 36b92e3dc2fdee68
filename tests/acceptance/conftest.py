"""Provide a running `routines up` to each test that asks for one."""

from collections.abc import Generator
from pathlib import Path

import pytest

from support.service import Service


@pytest.fixture
def service(tmp_path: Path) -> Generator[Service]:
    """Yield a service that is ready; at the end it must stop in time and leave no database server behind."""
    service = Service(tmp_path, ROUTINES_LEASE_SECONDS="2")
    service.start()
    yield service
    if service.process.poll() is None:
        service.stop()
