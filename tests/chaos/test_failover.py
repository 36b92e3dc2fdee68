"""Kill the primary and promote a standby: with synchronous replication nothing is lost and nothing fires twice."""

import asyncio
import os
import secrets
import subprocess
from collections.abc import Generator
from pathlib import Path
from random import Random
from urllib.parse import quote

import psycopg
import pytest

from chaos.checker import check
from chaos.cluster import SETTINGS, Cluster
from chaos.driver import Plan, durable, fresh_database, history_of, settle
from chaos.fleet import Fleet
from chaos.stretches import Violation
from chaos.traffic import Traffic
from routines_core.embedded.account import run_as_owner, settle_owner
from routines_core.embedded.binaries import find_binaries
from routines_core.embedded.server import _environment
from support.sampling import left_out

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
SECONDS = 8.0
"""How long orders last before the primary dies, and again afterwards."""
STANDBYS = "SELECT bool_or(sync_state IN ('sync', 'quorum')) FROM pg_stat_replication"


class Standby:
    """A hot standby of a cluster, made by pg_basebackup; it replicates until it is promoted."""

    def __init__(self, primary: Cluster, directory: Path) -> None:
        self.cluster = directory / "standby"
        binaries = find_binaries()
        if not (binaries / "pg_basebackup").exists():
            pytest.skip(f"pg_basebackup is missing in {binaries}")
        copy = [binaries / "pg_basebackup", "-D", self.cluster, "-h", primary.socket.parent, "-U", "routines"]
        subprocess.run([*copy, "--write-recovery-conf", "--checkpoint=fast", "--no-sync"], check=True, timeout=60)
        # Copied from the primary if its socket is in its data directory.
        (self.cluster / ".s.PGSQL.5432.lock").unlink(missing_ok=True)
        settle_owner(self.cluster)
        settings = {**SETTINGS, "listen_addresses": "", "unix_socket_directories": self.cluster, "timezone": "UTC"}
        program = [*run_as_owner(self.cluster, os.getpid()), str(binaries / "postgres"), "-D", str(self.cluster)]
        with (directory / "standby.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*program, *(f"--{name}={text}" for name, text in settings.items())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                start_new_session=True,
            )
        self.url = f"postgresql://routines@/routines?host={quote(str(self.cluster), safe='')}&port=5432"

    async def promote(self) -> None:
        """Make it the primary."""
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            await connection.execute("SELECT pg_promote()")

    def stop(self) -> None:
        """Stop it at once: its data is thrown away."""
        self._process.terminate()
        self._process.wait(timeout=30)


@pytest.fixture
def primary(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("primary"))
    cluster.start()
    yield cluster
    cluster.stop()


async def replicate_synchronously(primary: Cluster) -> None:
    async with await psycopg.AsyncConnection.connect(primary.admin_url, autocommit=True) as connection:
        await connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await connection.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(30):
            while not (row := await (await connection.execute(STANDBYS)).fetchone()) or not row[0]:
                await asyncio.sleep(0.05)


async def fail_over(primary: Cluster, directory: Path) -> tuple[list[Violation], int, Traffic]:
    """Fail over under traffic; return the violations, the number of runs scheduled afterwards, and the traffic."""
    plan = Plan(secrets.randbelow(2**32), 2 * SECONDS)
    traffic = Traffic("", Random(plan.seed), plan.orders_per_second)
    async with fresh_database(primary, plan) as connection:
        await traffic.populate(connection, plan.routines)
    standby = Standby(primary, directory)
    hosts = ",".join(quote(str(directory), safe="") for directory in (primary.socket.parent, standby.cluster))
    fleet = Fleet(
        directory, lambda role: f"postgresql://{role}@/routines?host={hosts}&port=5432,5432", plan.environment
    )
    traffic.url = fleet.url_of("chaos_2999")
    try:
        await replicate_synchronously(primary)
        fleet.start(tickers=2, workers=2)
        keeper, orders = asyncio.create_task(fleet.keep()), asyncio.create_task(traffic.run())
        await asyncio.sleep(SECONDS)
        primary.crash()
        scheduled = "SELECT count(*) FROM routines.trajectories WHERE trigger = 'schedule'"
        async with await psycopg.AsyncConnection.connect(standby.url, autocommit=True) as connection:
            row = await (await connection.execute(scheduled)).fetchone()
        await standby.promote()
        await asyncio.sleep(SECONDS)
        orders.cancel()
        violations = await settle(standby.url, fleet, keeper)
        history = await history_of(standby.url, fleet)
        violations += durable(history, traffic) + check(history, lease_seconds=plan.lease_seconds, settled=True)
        after = sum(run.trigger == "schedule" for run in history.runs) - (row[0] if row else 0)
        return violations, after, traffic
    finally:
        fleet.kill()
        standby.stop()


@left_out
def test_a_failover_to_a_synchronous_standby_loses_nothing_and_fires_nothing_twice(
    primary: Cluster, tmp_path: Path
) -> None:
    violations, after, traffic = asyncio.run(fail_over(primary, tmp_path))
    assert violations == [], "\n".join(map(str, violations))
    assert traffic.done["due"] > SECONDS, "too few orders to prove anything"
    assert after > 0, "nothing fired after the failover"
