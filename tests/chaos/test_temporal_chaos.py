"""Chaos with Temporal as the engine: its server and the workers are killed, frozen and restarted too."""

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chaos.checker import only_temporal_takes
from chaos.cluster import Cluster
from chaos.driver import Plan, run
from chaos.faults import DEFAULT_WEIGHTS, TEMPORAL_WEIGHTS
from support.temporal_server import BINARY, MISSING

SECONDS = float(os.environ.get("ROUTINES_CHAOS_TEMPORAL_SECONDS", "30"))
FAULTS = DEFAULT_WEIGHTS if SECONDS >= 60 else {"kill_worker": 3, "kill_ticker": 1}
"""Faults in addition to Temporal's. A short run has time for only a few, and some of them must be Temporal's."""
SEED = int(os.environ["ROUTINES_CHAOS_SEED"])  # drawn and printed by tests/conftest.py


def change(old: str, new: str, fences: tuple[int, int], writer: str, crashes: tuple[int, int] = (0, 0)) -> Any:
    """Return a line of the journal of run 1."""
    return SimpleNamespace(
        trajectory_id=1, old_status=old, status=new, old_fence=fences[0], fence=fences[1], writer=writer,
        old_crashes=crashes[0], crashes=crashes[1], lease=None, at=datetime.now(UTC), old_place=None, place=None,
    )  # fmt: skip


CLAIMED = change("pending", "running", (0, 1), "a")
TAKEN = change("running", "running", (1, 2), "b")


@pytest.mark.parametrize(
    ("then", "invariants"),
    [
        ([change("running", "completed", (2, 2), "b")], []),
        ([change("running", "completed", (2, 2), "a")], ["fence"]),
        ([change("running", "running", (2, 4), "c")], ["fence"]),
        ([change("running", "running", (2, 2), "b", (0, 1))], ["crashes"]),
        ([change("running", "running", (2, 3), "c", (0, 1)), change("running", "completed", (3, 3), "c", (1, 1))], []),
        ([change("running", "running", (2, 3), "c", (2, 3))], ["crashes"]),
        ([change("running", "failed", (2, 3), "c", (2, 3))], []),
        ([change("running", "failed", (2, 3), "c", (0, 1))], ["crashes"]),
        ([change("running", "completed", (2, 2), "b"), change("completed", "failed", (2, 2), "b")], ["final"]),
    ],
)
def test_the_checker_sees_who_may_write_to_a_run_on_temporal(then: list[Any], invariants: list[str]) -> None:
    history: Any = SimpleNamespace(run_journal=[CLAIMED, TAKEN, *then])
    assert [violation.invariant for violation in only_temporal_takes(history)] == invariants


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
def test_every_slot_has_one_outcome_on_temporal_whatever_dies(tmp_path: Path) -> None:
    if BINARY is None:
        pytest.skip(MISSING)
    cluster = Cluster(tmp_path / "cluster")
    cluster.start()
    try:
        report = asyncio.run(run(Plan(SEED, SECONDS, faults=FAULTS, engine="temporal"), cluster, tmp_path))
    finally:
        cluster.stop()
    assert report.violations == [], f"seed {SEED}; evidence in {tmp_path}:\n{report}"
    assert report.slots["started"] > SECONDS, "the run was too quiet to prove anything"
    assert report.faults.keys() & TEMPORAL_WEIGHTS.keys()
