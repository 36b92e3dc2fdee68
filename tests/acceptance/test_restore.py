"""The drill after a loss: a backup is restored to a point in time, and no new run passes for a lost one."""

import subprocess
from collections.abc import Generator
from datetime import datetime
from pathlib import Path

import pytest

from routines_core.db import Connection, connect
from routines_core.db.migrations import migrate
from routines_core.db.restore import MOVED_BY
from routines_core.db.tick import tick
from routines_core.embedded import EmbeddedServer
from routines_core.embedded.account import give_to_owner
from routines_core.embedded.binaries import find_binaries
from support.command import routines
from support.endpoint import Endpoint, serving
from support.rows import CATCHUP, Database, at, ledger, make_routine, value
from support.working import run_of, task_of, until, workflow_of, working

pytestmark = pytest.mark.slow
DURABLE = {"fsync": "on", "synchronous_commit": "on"}
LOST_RUNS = 40
"""More than the 32 values that Postgres logs of a sequence at once, so that the restored one repeats some of them."""
RUNS = "SELECT array_agg(id ORDER BY id) FROM routines.trajectories"


class Archived:
    """A server that archives its WAL, and from its backup another as of a point in time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._archive = directory / "archive"
        self._archive.mkdir()
        archiving = {"archive_mode": "on", "archive_command": f"cp %p {self._archive}/%f"}
        self.lost = EmbeddedServer(directory / "lost", settings={**DURABLE, **archiving})
        self.restored: EmbeddedServer | None = None

    def start(self) -> str:
        """Start it and return its URL."""
        self.lost.start()
        give_to_owner(self._archive, self._directory / "lost" / "postgres")
        return self.lost.url()

    def back_up(self) -> None:
        """Take a base backup while it runs."""
        binaries = find_binaries()
        if not (binaries / "pg_basebackup").exists():
            pytest.skip(f"pg_basebackup is missing in {binaries}")
        copy = [binaries / "pg_basebackup", "-D", self._directory / "new" / "postgres", "-d", self.lost.url("")]
        subprocess.run([*copy, "--checkpoint=fast", "--no-sync"], check=True, timeout=60)

    def restore(self, moment: datetime) -> str:
        """Lose the server, and start its backup as of a moment. Returns the URL of the new server."""
        self.lost.stop()
        cluster = self._directory / "new" / "postgres"
        (cluster / ".s.PGSQL.5432.lock").unlink(missing_ok=True)  # copied with the socket's directory
        (cluster / "recovery.signal").touch()
        recovery = {
            "restore_command": f"cp {self._archive}/%f %p",
            "recovery_target_time": moment.isoformat(),
            "recovery_target_action": "promote",
            "hot_standby": "off",  # it is ready once it takes writes
        }
        self.restored = EmbeddedServer(self._directory / "new", settings={**DURABLE, **recovery})
        self.restored.start()
        return self.restored.url()

    def stop(self) -> None:
        for server in (self.lost, self.restored):
            if server:
                server.stop()


@pytest.fixture
def servers(tmp_path: Path) -> Generator[Archived]:
    servers = Archived(tmp_path)
    yield servers
    servers.stop()


@pytest.fixture
def receiver() -> Generator[Endpoint]:
    with serving() as served:
        yield served


def charged(receiver: Endpoint) -> dict[str, str]:
    """Return what a receiver that deduplicates has charged: the first body of each key."""
    first: dict[str, str] = {}
    for asked in receiver.asked:
        first.setdefault(asked.headers["idempotency-key"], asked.body.decode())
    return first


async def execute_all(connection: Connection, url: str) -> None:
    """Let a worker run everything that is pending."""
    async with working(url, webhook_allow_private=True, worker_concurrency=4):
        await until(connection, "SELECT NOT EXISTS (SELECT FROM routines.trajectories WHERE ended_at IS NULL)")


async def fire(connection: Connection, now: str) -> None:
    await tick(connection, batch_size=10, now=at(now), **CATCHUP)


async def set_up(url: str, receiver: Endpoint) -> tuple[int, int]:
    """Create the schema, an hourly routine and a task that charges an order. Returns the routine and the task."""
    async with connect(url, "tests") as connection:
        await migrate(connection)
        charge = {"activity": "webhook_notify", "url": receiver.url, "payload_path": "init_params.order"}
        task = await task_of(connection, "charge", workflow_of(("charge", charge), order="by the routine"))
        return await make_routine(connection, task, at("2026-05-04 09:00"), hourly=True), task


async def run_until_lost(url: str, routine: int, task: int) -> tuple[datetime, set[int]]:
    """Fire 09:00 before the restore point and more after it. Returns the restore point and the runs after it."""
    async with connect(url, "tests") as connection:
        await fire(connection, "2026-05-04 09:00")
        await execute_all(connection, url)
        moment = await value(connection, "SELECT clock_timestamp()")
        assert isinstance(moment, datetime)
        await fire(connection, "2026-05-04 10:00")
        for number in range(LOST_RUNS):
            await run_of(connection, task, order=f"lost {number}")
        await execute_all(connection, url)
        lost = await value(connection, "SELECT array_agg(id) FROM routines.trajectories WHERE created_at > %s "
                           "OR scheduled_for = %s", moment, at("2026-05-04 10:00"))  # fmt: skip
        await connection.execute("SELECT pg_switch_wal()")
        assert isinstance(lost, list)
        return moment, set(lost)


async def test_after_a_restore_no_receiver_takes_a_new_run_for_a_lost_one_and_each_slot_has_one_outcome(
    servers: Archived, receiver: Endpoint
) -> None:
    url = servers.start()
    routine, task = await set_up(url, receiver)
    servers.back_up()
    moment, lost = await run_until_lost(url, routine, task)
    before = charged(receiver)
    assert len(before) == 1 + len(lost) == LOST_RUNS + 2

    url = servers.restore(moment)
    async with connect(url, "tests") as connection:
        assert await ledger(connection, routine) == [(at("2026-05-04 09:00"), 1, "started", None)]
        # The operator has forgotten the command.
        await fire(connection, "2026-05-04 13:00")
        for number in range(LOST_RUNS):
            await run_of(connection, task, order=f"new {number}")
        await execute_all(connection, url)
        made = await value(connection, RUNS)
        assert isinstance(made, list)
        assert lost & set(made), "no number was repeated, so this proves nothing"
        after = charged(receiver)
        assert sorted(set(after.values()) - set(before.values())) == sorted(f'"new {n}"' for n in range(LOST_RUNS))
        assert len(after) == len(before) + 1 + LOST_RUNS
        assert await ledger(connection, routine) == [
            (at("2026-05-04 09:00"), 1, "started", None),
            (at("2026-05-04 10:00"), 3, "skipped", "missed"),
            (at("2026-05-04 13:00"), 1, "started", None),
        ]
        # Later, it is run.
        done = routines(Database(url), "after-restore")
        assert done.returncode == 0, done.stderr
        run = await run_of(connection, task, order="last")
        assert run == max(made) + MOVED_BY + 1
        assert f"trajectories\tids were given out up to {max(made)}, the next is {run}\n" in done.stdout
