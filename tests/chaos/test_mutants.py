"""Prove the checker: it catches every broken product, and finds nothing in the intact one."""

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from random import Random

import pytest

from chaos.checker import check
from chaos.cluster import Cluster
from chaos.driver import Plan, fresh_database, run
from chaos.history import read_history
from chaos.mutant import ROOT, Edit, Mutant
from chaos.mutants import MUTANTS
from chaos.stretches import Violation
from chaos.traffic import Traffic
from routines_core.db import connect
from support.sampling import sample

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
EVERY = os.environ.get("ROUTINES_CHAOS_MUTANTS") == "all"
CHOSEN = list(MUTANTS) if EVERY else sample([mutant for mutant in MUTANTS if mutant.in_ci], 1)
CONTROLS = [mutant for mutant in MUTANTS if mutant.faults is not None and not mutant.test][: None if EVERY else 1]
SECONDS = 30  # at most, because a run ends at the first violation
CONTROL_SECONDS = 8
LEASE_SECONDS = 1.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    cluster.start()
    yield cluster
    cluster.stop()


def plan_of(mutant: Mutant, source: Path | None, seconds: float = SECONDS) -> Plan:
    return Plan(
        secrets.randbelow(2**32),
        seconds,
        source=source,
        routines=24,
        orders_per_second=25,
        faults_per_second=1.5,
        faults=mutant.faults or {},
        traffic=mutant.traffic,
        stall=(0.5, 0.03),
        stop_at_first=True,
        lease_seconds=LEASE_SECONDS,
    )


async def step_by_step(plan: Plan, cluster: Cluster) -> list[Violation]:
    """Run late_writer.py against one pending run and return the violations."""
    async with fresh_database(cluster, plan) as connection:
        traffic = Traffic(cluster.url, Random(0), 1)
        await traffic.populate(connection, 1)
        await connection.execute(
            """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params)
               VALUES (%s, %s, 1, 'api', '{}')""",
            [traffic.collection_id, traffic.task_id],
        )
    urls = [cluster.url.replace("routines@", f"chaos_{number}@", 1) for number in range(2)]
    environment = {**os.environ, **({"PYTHONPATH": str(plan.source / "src")} if plan.source else {})}
    script = [sys.executable, str(Path(__file__).with_name("late_writer.py")), *urls, str(LEASE_SECONDS)]
    subprocess.run(script, env=environment, check=True, timeout=30)
    async with connect(cluster.url, "chaos-checker") as connection:
        return check(await read_history(connection, None), lease_seconds=LEASE_SECONDS, settled=False)


def fails(test: str, source: Path | None) -> bool:
    """Return whether this test, which passes for the product, ran and failed."""
    environment = {**os.environ, "PYTHONPATH": f"{source}/src"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{test}"]
    result = subprocess.run(command, check=False, env=environment, cwd=ROOT, capture_output=True, timeout=200)
    return b"1 failed in" in result.stdout


@pytest.mark.parametrize("mutant", CHOSEN, ids=lambda mutant: mutant.name)
def test_a_broken_product_is_caught(mutant: Mutant, cluster: Cluster, tmp_path: Path) -> None:
    plan = plan_of(mutant, mutant.source(tmp_path / "source"))
    if mutant.test:
        assert fails(mutant.test, plan.source), f"{mutant.test} did not fail with the mutant: {mutant.name}"
        return
    if mutant.faults is None:
        violations = asyncio.run(step_by_step(plan, cluster))
    else:
        report = asyncio.run(run(plan, cluster, tmp_path))
        violations = report.violations
        print(report)
    # A mutant breaks several invariants. Chance decides which one is seen first, and the run ends there. An invariant
    # not in the set would only mean that the product does not work at all.
    seen = {violation.invariant for violation in violations}
    assert seen & mutant.caught_by, f"seed {plan.seed}: {mutant.name}: expected {mutant.caught_by}, saw {seen}"


@pytest.mark.parametrize("mutant", CONTROLS, ids=lambda mutant: mutant.name)
def test_the_same_run_finds_nothing_in_the_intact_product(mutant: Mutant, cluster: Cluster, tmp_path: Path) -> None:
    plan = plan_of(mutant, None, CONTROL_SECONDS)
    report = asyncio.run(run(plan, cluster, tmp_path))
    assert report.violations == [], f"seed {plan.seed}; evidence in {tmp_path}:\n{report}"


def test_the_step_by_step_run_finds_nothing_in_the_intact_product(cluster: Cluster) -> None:
    plan = Plan(0, 0, stall=(0, 0), lease_seconds=LEASE_SECONDS)
    assert asyncio.run(step_by_step(plan, cluster)) == []


def test_every_mutant_still_finds_the_text_it_replaces(tmp_path: Path) -> None:
    for number, mutant in enumerate(MUTANTS):
        mutant.source(tmp_path / str(number))


def test_every_test_that_a_mutant_names_exists() -> None:
    for mutant in MUTANTS:
        file, _, test = mutant.test.partition("::")
        if file:
            assert f"def {test.partition('[')[0]}(" in (ROOT / "tests" / file).read_text("utf-8"), mutant.test


def test_the_chaos_report_states_the_number_of_mutants() -> None:
    counts = f"{len(MUTANTS)} mutants: {sum(mutant.in_ci for mutant in MUTANTS)}\nrun with every `make test`"
    assert counts in (ROOT / "docs" / "trust" / "chaos.md").read_text("utf-8")


def test_an_edit_fails_if_its_text_is_missing(tmp_path: Path) -> None:
    mutant = Mutant("rotten", (Edit("sql/queries/tick.sql", "no such text", "", "tick"),), {"lost"})
    with pytest.raises(LookupError, match="no longer holds"):
        mutant.source(tmp_path / "source")
