"""Run chaos: real processes and a real Postgres under faults and traffic, then time to settle, then the checker.

    PYTHONPATH=tests .venv/bin/python -m chaos.driver --minutes 60 --seed 7

The seed fixes which faults and orders are drawn. Timing remains the machine's own, so a seed repeats a run in kind, not
to the microsecond. A run that fails keeps its directory: logs, trace, the offending rows and the whole ledger.
"""

import argparse
import asyncio
import contextlib
import os
import random
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import psycopg
from psycopg import AsyncConnection
from temporalio.client import Client

from chaos.alerts import Watchman, alerts_are_true, make_rule, notices_are_true, watching
from chaos.attackers import Attackers, Delays, delays_of
from chaos.checker import check
from chaos.cluster import Cluster
from chaos.faults import DEFAULT_WEIGHTS, TEMPORAL_WEIGHTS, Faults
from chaos.fleet import Fleet
from chaos.history import History, read_history
from chaos.proxy import FaultProxy
from chaos.stretches import Violation
from chaos.traffic import MAX_BYTES, Traffic
from chaos.wrong_clock import seconds_to_a_change, wrong_clock
from routines_core.db import connect
from support.pgbouncer import PgBouncer
from support.rows import Database
from support.temporal_server import TemporalServer

SCHEMA = Path(__file__).with_name("chaos.sql")
ROLES = (
    """DO $$ BEGIN FOR n IN 0..2999 LOOP EXECUTE format('CREATE ROLE chaos_%s LOGIN SUPERUSER', n); END LOOP; END $$"""
)
SETTLE_SECONDS = 90.0
"""How long the system may take, once left in peace, to handle what is due and to end every run."""
UNSETTLED = """SELECT (SELECT count(*) FROM routines.routines
                       WHERE next_run_at <= now() OR paused_until IS NOT NULL) AS due,
                      (SELECT count(*) FROM routines.trajectories WHERE ended_at IS NULL) AS active,
                      (SELECT count(*) FROM routines.dispatches) AS dispatched,
                      (SELECT count(*) FROM routines.alert_events)
                      + (SELECT count(*) FROM routines.alerts WHERE notice_id IS NULL AND suppressed_reason IS NULL)
                      + (SELECT count(*) FROM routines.alerts WHERE tells_recovery AND NOT EXISTS (
                             SELECT FROM routines.alerts AS other
                             WHERE other.notice_id = alerts.notice_id AND other.closed_at IS NULL))
                      + (SELECT count(*) FROM routines.webhook_deliveries
                         WHERE rule_id IS NOT NULL AND next_attempt_at IS NOT NULL) AS untold"""


SEND_NOW = """UPDATE routines.webhook_deliveries SET next_attempt_at = now()
              WHERE rule_id IS NOT NULL AND claimed_at IS NULL AND next_attempt_at > now()"""
"""Notices that were refused twice would wait for minutes."""
UNSETTLED_KINDS = ("due", "active", "dispatched", "untold")


@dataclass(frozen=True)
class Plan:
    """What one run does, and for how long.

    Attributes:
        seed: Decides the orders and faults.
        seconds: How long orders and faults last.
        source: A source tree to use instead of the installed one, for a mutant.
        faults: The relative frequency of each fault; empty for none.
        traffic: The relative frequency of orders, where it differs from the default.
        stall: The share of fires that stall in the middle of their batch, and for how many seconds.
        stop_at_first: Check every second, and end the run at the first violation.
        report_every_seconds: How often to print the counts so far.
        attacks: Whether other tenants attack at the same time.
        engine: What executes the runs: postgres, or temporal with a server of its own.
        has_pooler: Whether every second process connects through PgBouncer, in session mode.
    """

    seed: int
    seconds: float
    source: Path | None = None
    tickers: int = 2
    workers: int = 2
    routines: int = 60
    orders_per_second: float = 12
    faults_per_second: float = 0.7
    faults: dict[str, int] = field(default_factory=lambda: dict(DEFAULT_WEIGHTS))
    traffic: dict[str, float] = field(default_factory=dict[str, float])
    stall: tuple[float, float] = (0.05, 0.05)
    stop_at_first: bool = False
    report_every_seconds: float = float("inf")
    lease_seconds: float = 3
    settings: dict[str, str] = field(default_factory=dict[str, str])
    attacks: bool = False
    engine: str = "postgres"
    has_pooler: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """Return the product's settings."""
        return {
            "ROUTINES_LEASE_SECONDS": str(self.lease_seconds),
            "ROUTINES_WORKER_CONCURRENCY": "20",
            "ROUTINES_TICK_BATCH_SIZE": "20",
            "ROUTINES_RUN_DEADLINE_SECONDS": "60",
            "ROUTINES_MAX_INIT_PARAMS_BYTES": str(MAX_BYTES),
            "ROUTINES_ENGINE": self.engine,
            "ROUTINES_TEMPORAL_CHECK_SECONDS": "5",
            "ROUTINES_WEBHOOK_ALLOW_PRIVATE": "true",
            **self.settings,
        }


@dataclass
class Report:
    """What the run did and what the checker found."""

    plan: Plan
    faults: Counter[str] = field(default_factory=Counter[str])
    orders: Counter[str] = field(default_factory=Counter[str])
    slots: Counter[str] = field(default_factory=Counter[str])
    runs: Counter[str] = field(default_factory=Counter[str])
    alerts: Counter[str] = field(default_factory=Counter[str])
    notices: int = 0
    claims: int = 0
    executions: int = 0
    lost: int = 0
    attacks: Counter[str] = field(default_factory=Counter[str])
    delays: list[Delays] = field(default_factory=list[Delays])
    violations: list[Violation] = field(default_factory=list[Violation])
    directory: Path | None = None
    began: str = ""

    def __str__(self) -> str:
        lines = [
            f"seed {self.plan.seed}, {self.plan.seconds:.0f} s from {self.began}, engine {self.plan.engine}"
            + (", PgBouncer in front of every second process" if self.plan.has_pooler else ""),
            f"{self.plan.tickers} tickers, {self.plan.workers} workers; their clocks: {_clocks()}",
            f"faults: {_counts(self.faults)}",
            f"orders: {_counts(self.orders)}",
            f"slots checked: {_counts(self.slots)}",
            f"runs: {_counts(self.runs)}; claims {self.claims}, steps begun {self.executions}, worker lost {self.lost}",
            f"alerts: {_counts(self.alerts)}, told in {self.notices} notices",
            *([f"attacks: {_counts(self.attacks)}", *map(str, self.delays)] if self.plan.attacks else []),
            f"violations: {len(self.violations)}",
            *(str(violation) for violation in self.violations[:10]),
        ]
        return "\n".join(lines)

    def count(self, history: History) -> None:
        """Count slots by outcome and runs by final status."""
        for run in history.runs:
            self.slots["started"] += run.scheduled_for is not None
            self.runs[run.status] += 1
            self.lost += bool(run.error and run.error.startswith("worker lost"))
        for skip in history.skips:
            self.slots[skip.reason] += skip.slot_count
        for alert in history.alerts:
            self.alerts[alert.event] += 1
        self.notices = len(history.notices)
        self.executions = len(history.executions)
        self.claims = sum(row.old_status == "pending" and row.status == "running" for row in history.run_journal)


def _clocks() -> str:
    return "right, an hour ahead, an hour behind" if wrong_clock(1) else "right"


def _counts(counts: Counter[str]) -> str:
    return f"{sum(counts.values())} ({', '.join(f'{name} {number}' for name, number in sorted(counts.items()))})"


@contextlib.asynccontextmanager
async def fresh_database(cluster: Cluster, plan: Plan) -> AsyncGenerator[AsyncConnection[Any]]:
    """Yield a new database on this cluster, migrated by the source under test, with the journals installed."""
    async with await AsyncConnection.connect(cluster.admin_url, autocommit=True) as admin:
        await admin.execute("DROP DATABASE IF EXISTS routines WITH (FORCE)")
        await admin.execute("CREATE DATABASE routines")
        exists = await (await admin.execute("SELECT 1 FROM pg_roles WHERE rolname = 'chaos_0'")).fetchone()
        if not exists:
            await admin.execute(ROLES)
    path = {"PYTHONPATH": str(plan.source / "src")} if plan.source else {}
    subprocess.run(
        [sys.executable, "-m", "routines_cli.main", "migrate"],
        env={**os.environ, "DATABASE_URL": cluster.url, **path},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    async with connect(cluster.url, "chaos-setup") as connection:
        await connection.execute(SCHEMA.read_bytes())
        share, seconds = plan.stall
        await connection.execute(f"ALTER DATABASE routines SET chaos.stall_share = '{share}'")
        await connection.execute(f"ALTER DATABASE routines SET chaos.stall_seconds = '{seconds}'")
        yield connection


async def run(plan: Plan, cluster: Cluster, directory: Path) -> Report:
    """Do the whole run; the cluster must be running before and runs afterwards."""
    async with watching(random.Random(f"notices {plan.seed}")) as watchman:
        return await _run_watched(plan, cluster, directory, watchman)


async def _run_watched(plan: Plan, cluster: Cluster, directory: Path, watchman: Watchman) -> Report:
    report = Report(plan, directory=directory)
    traffic = Traffic(cluster.url, random.Random(f"traffic {plan.seed}"), plan.orders_per_second, plan.traffic)
    async with fresh_database(cluster, plan) as connection:
        report.began = await _now(connection)
        await traffic.populate(connection, plan.routines)
        await make_rule(connection, traffic.collection_id, watchman.url)
    proxy = FaultProxy(cluster.socket)
    await proxy.start()
    temporal = await asyncio.to_thread(_temporal_server, directory) if plan.engine == "temporal" else None
    environment = plan.environment | ({"ROUTINES_TEMPORAL_ADDRESS": temporal.address} if temporal else {})
    pooler = _pooler(directory, proxy.port) if plan.has_pooler else None

    def url_of(role: str) -> str:
        port = pooler.port if pooler and int(role.removeprefix("chaos_")) % 2 else proxy.port
        return f"postgresql://{role}@127.0.0.1:{port}/routines"

    fleet = Fleet(directory, url_of, environment, plan.source, cluster.clock_seconds)
    fleet.start(tickers=plan.tickers, workers=plan.workers)
    weights = plan.faults | (TEMPORAL_WEIGHTS if temporal and plan.faults else {})
    faults = Faults(
        cluster, proxy, fleet, random.Random(f"faults {plan.seed}"), plan.faults_per_second, weights, temporal
    )
    attackers = Attackers(
        cluster.url, directory, random.Random(f"attacks {plan.seed}"), plan.environment, fleet.lifeline
    )
    keeper = asyncio.create_task(fleet.keep())
    pooling = asyncio.create_task(_keep(pooler, faults.done)) if pooler else None
    try:
        if plan.attacks:
            await asyncio.to_thread(attackers.start)
        report.violations = await _cause_trouble(plan, traffic, faults, fleet)
        if plan.attacks:
            report.violations += await asyncio.to_thread(attackers.stop)
        if not report.violations:
            cluster.start()  # in case a restart was under way
            watchman.is_faulty = False
            report.violations = await settle(cluster.url, fleet, keeper, temporal)
            history = await history_of(cluster.url, fleet)
            report.violations += durable(history, traffic)
            report.violations += check(history, lease_seconds=plan.lease_seconds, settled=True, engine=plan.engine)
            report.violations += [*alerts_are_true(history), *notices_are_true(history, watchman.received)]
            report.count(history)
            report.delays = delays_of(history, attackers.turns) if plan.attacks else []
            report.violations += [found for each in report.delays for found in each.violations()]
    finally:
        keeper.cancel()
        fleet.kill()
        if pooler and pooling:
            pooling.cancel()
            pooler.stop()
        proxy.stop()
        if temporal:
            await asyncio.to_thread(temporal.stop)
    report.faults, report.orders, report.attacks = faults.done, traffic.done, attackers.done
    if report.violations:
        await _keep_evidence(report, cluster)
    return report


async def _now(connection: AsyncConnection[Any]) -> str:
    row = await (await connection.execute("SELECT to_char(now(), 'YYYY-MM-DD HH24:MI:SS')")).fetchone()
    assert row
    return row[0]


def _pooler(directory: Path, port: int) -> PgBouncer:
    """Return a running PgBouncer in front of this port, for all roles."""
    users = directory / "users.txt"
    users.write_text("".join(f'"chaos_{number}" ""\n' for number in range(3000)))
    users.chmod(0o644)
    directory.chmod(0o755)
    server = Database(f"postgresql://127.0.0.1:{port}/routines")
    # Each role has a pool of its own: what a killed process leaves behind must not use up the server's connections.
    settings = {"auth_type": "trust", "auth_file": users, "max_client_conn": 1000, "server_idle_timeout": 2}
    pooler = PgBouncer(directory, server, "session", **settings)
    pooler.start()
    return pooler


async def _keep(pooler: PgBouncer, counts: Counter[str]) -> None:
    """Start PgBouncer again whenever it has ended or hangs: release 1.18 may do either when clients are killed."""
    while True:
        if not pooler.is_running:
            counts["pooler_crashed"] += 1
            await asyncio.to_thread(pooler.start)
        elif not await asyncio.to_thread(pooler.answers) and pooler.is_running:
            counts["pooler_hung"] += 1
            await asyncio.to_thread(pooler.kill)
            await asyncio.to_thread(pooler.start)
        await asyncio.sleep(0.1)


async def _cause_trouble(plan: Plan, traffic: Traffic, faults: Faults, fleet: Fleet) -> list[Violation]:
    """Send orders and cause faults until the time is up; then repair everything that was broken temporarily."""
    tasks = [asyncio.create_task(traffic.run()), asyncio.create_task(faults.run())]
    deadline = time.monotonic() + plan.seconds
    found: list[Violation] = []
    report_at = time.monotonic() + plan.report_every_seconds
    while time.monotonic() < deadline and not found:
        await asyncio.sleep(min(1, max(0, deadline - time.monotonic())))
        if time.monotonic() >= report_at:
            report_at += plan.report_every_seconds
            left = round(deadline - time.monotonic())
            print(f"{left} s left; {faults.done.total()} faults, {traffic.done.total()} orders", flush=True)
        for task in tasks:
            if task.done():
                task.result()  # raises if the driver itself broke
        if plan.stop_at_first:
            with contextlib.suppress(psycopg.Error):
                history = await history_of(faults.cluster.url, fleet)
                found = check(history, lease_seconds=plan.lease_seconds, settled=False, engine=plan.engine)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await faults.mend()
    return found


def _temporal_server(directory: Path) -> TemporalServer:
    server = TemporalServer(directory)
    server.start()
    return server


async def settle(
    url: str, fleet: Fleet, keeper: "asyncio.Task[None]", temporal: TemporalServer | None = None
) -> list[Violation]:
    """Stop the tickers once nothing is due and pauses are over, then the workers once no run is active."""
    violations = await _wait_for_none(url, "due")
    violations += await fleet.stop_kind("ticker")
    violations += await _wait_for_none(url, "active")
    if temporal:
        violations += await _wait_for_none(url, "dispatched")
        violations += await _wait_until_closed(temporal)
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(SEND_NOW)
    violations += await _wait_for_none(url, "untold")
    keeper.cancel()
    return violations + await fleet.stop_kind("worker")


async def _wait_for_none(url: str, what: str) -> list[Violation]:
    deadline = time.monotonic() + SETTLE_SECONDS
    count: int | None = None
    while time.monotonic() < deadline:
        with contextlib.suppress(psycopg.Error):
            async with await AsyncConnection.connect(url, autocommit=True) as connection:
                row = await (await connection.execute(UNSETTLED)).fetchone()
                assert row
                count = row[UNSETTLED_KINDS.index(what)]
                if not count:
                    return []
        await asyncio.sleep(0.2)
    return [Violation("unsettled", f"after {SETTLE_SECONDS:.0f} s in peace, {count} are still {what}")]


async def _wait_until_closed(temporal: TemporalServer) -> list[Violation]:
    """Wait until Temporal has no open workflow any more."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        try:
            client = await Client.connect(temporal.address)
        except RuntimeError:  # it was just started again
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.5)
        else:
            break
    while is_open := [each.id async for each in client.list_workflows("ExecutionStatus = 'Running'", limit=5)]:
        if time.monotonic() > deadline:
            return [Violation("unsettled", f"after {SETTLE_SECONDS:.0f} s in peace, Temporal still has {is_open} open")]
        await asyncio.sleep(0.5)
    return []


async def history_of(url: str, fleet: Fleet) -> History:
    async with connect(url, "chaos-checker", idle_in_transaction_session_timeout="0") as connection:
        return await read_history(connection, fleet.trace)


def durable(history: History, traffic: Traffic) -> list[Violation]:
    """Check that everything that was acknowledged still exists."""
    last = history.orders[-1].id
    if last >= traffic.last_acknowledged:
        return []
    return [
        Violation("durable", f"order {traffic.last_acknowledged} was acknowledged, but the last one kept is {last}")
    ]


async def _keep_evidence(report: Report, cluster: Cluster) -> None:
    """Write the violations with their rows, the ledger, the orders and the journals to files."""
    assert report.directory
    (report.directory / "violations.txt").write_text("\n".join(map(str, report.violations)), "utf-8")
    tables = ["routines.occurrences", "routines.routines", "chaos.orders", "chaos.run_journal", "chaos.step_journal"]
    async with connect(cluster.url, "chaos-evidence") as connection:
        for table in tables:
            async with connection.cursor() as cursor:
                with (report.directory / f"{table}.csv").open("wb") as file:
                    async with cursor.copy(
                        f"COPY (SELECT * FROM {table}) TO STDOUT (FORMAT csv, HEADER)".encode()
                    ) as rows:
                        async for row in rows:
                            file.write(row)


def main() -> None:
    """Run the command line of `make chaos`."""
    parser = argparse.ArgumentParser(description="Break everything for a while, then check that nothing was lost.")
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    parser.add_argument("--tickers", type=int, default=3)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--attacks", action="store_true", help="with attacks of other tenants: see tests/isolation")
    parser.add_argument("--pooler", action="store_true", help="with PgBouncer in front of every second process")
    parser.add_argument("--engine", choices=["postgres", "temporal"], default="postgres")
    given = parser.parse_args()
    plan = Plan(
        given.seed,
        given.minutes * 60,
        tickers=given.tickers,
        workers=given.workers,
        report_every_seconds=60,
        attacks=given.attacks,
        engine=given.engine,
        has_pooler=given.pooler,
    )
    print(f"chaos: seed {plan.seed}, {given.minutes:g} minutes", flush=True)
    directory = Path(mkdtemp(prefix="routines-chaos-"))
    has_todays_date = plan.attacks or plan.engine == "temporal"  # others compare its times with their own
    clock = 0 if has_todays_date else seconds_to_a_change(plan.seed, plan.seconds)
    cluster = Cluster(directory, clock_seconds=clock)
    cluster.start()
    try:
        report = asyncio.run(run(plan, cluster, directory))
    finally:
        cluster.stop()
    print(report)
    if report.violations:
        print(f"evidence: {directory}")
        sys.exit(1)


if __name__ == "__main__":
    main()
