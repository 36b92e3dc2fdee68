"""Cause faults for minutes, then expect: lost 0, double 0, early 0, overlapping 0, every claimed run final.

The database's clock is moved, where that is possible, to a night in which the clocks of Europe change.
"""

import asyncio
import os
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from chaos.cluster import Cluster
from chaos.driver import Plan, run
from chaos.wrong_clock import seconds_to_a_change

pytestmark = pytest.mark.slow
SECONDS = float(os.environ.get("ROUTINES_CHAOS_SECONDS", "120"))
SEED = int(os.environ["ROUTINES_CHAOS_SEED"])  # drawn and printed by tests/conftest.py


@pytest.fixture
def cluster(tmp_path: Path) -> Generator[Cluster]:
    cluster = Cluster(tmp_path / "cluster", clock_seconds=seconds_to_a_change(SEED, SECONDS))
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.mark.timeout(SECONDS + 300)
def test_every_slot_has_one_outcome_whatever_dies(
    cluster: Cluster, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    report = asyncio.run(run(Plan(SEED, SECONDS), cluster, tmp_path))
    record_property("chaos", str(report))
    assert report.violations == [], f"seed {SEED}; evidence in {tmp_path}:\n{report}"
    assert report.slots["started"] > SECONDS, "the run was too quiet to prove anything"
    assert sum(report.faults.values()) > SECONDS / 10
