"""Send SIGKILL at random moments: every slot that was due fires once, and every claimed run ends."""

import os
import random
import signal
import sys
import time

import pytest

from routines_core.embedded import running_url
from support.service import Service, wait_until

pytestmark = pytest.mark.slow
ROUNDS = 4
DUE = 150
LONGEST_WAIT_SECONDS = 1.0
"""Left alone, a ticker and a worker have handled everything that is due by then."""


@pytest.fixture
def moments() -> random.Random:
    """Return a source of random moments; its seed is printed if the test fails, and ROUTINES_TEST_SEED repeats it."""
    seed = os.environ.get("ROUTINES_TEST_SEED") or str(random.SystemRandom().randrange(10**9))
    sys.stdout.write(f"ROUTINES_TEST_SEED={seed}\n")
    return random.Random(seed)


def make_due(service: Service, generation: int) -> None:
    """Create hourly routines, all due now, each with a workflow of several steps."""
    service.execute(
        f"""INSERT INTO routines.routines (collection_id, task_id, name, cadence_type)
            SELECT collection_id, id, 'g{generation}-' || number, 'hourly'
            FROM routines.tasks, generate_series(1, {DUE}) AS number"""
    )
    service.execute(
        f"""UPDATE routines.routines SET next_run_at = date_trunc('minute', now())
            WHERE name LIKE 'g{generation}-%'"""
    )


def everything_ended(service: Service, generation: int) -> bool:
    """Return whether nothing of this generation is due any more and no run is active."""
    [(due, active)] = service.execute(
        f"""SELECT (SELECT count(*) FROM routines.routines
                    WHERE name LIKE 'g{generation}-%' AND next_run_at <= now()),
                   (SELECT count(*) FROM routines.trajectories WHERE ended_at IS NULL)"""
    )
    return (due, active) == (0, 0)


def assert_each_fires_once(service: Service, generation: int) -> None:
    """Wait until everything has ended, then count the outcomes."""
    wait_until(lambda: everything_ended(service, generation), seconds=40)
    outcomes = service.execute(
        f"""SELECT trajectories.status, count(*), count(DISTINCT routines.id)
            FROM routines.routines LEFT JOIN routines.trajectories
                ON triggered_by_routine_id = routines.id AND trigger = 'schedule'
            WHERE routines.name LIKE 'g{generation}-%' GROUP BY 1"""
    )
    assert outcomes == [("completed", DUE, DUE)]


@pytest.mark.parametrize("program", ["ticker", "worker"])
def test_a_killed_program_is_restarted_and_nothing_is_lost_or_done_twice(
    service: Service, program: str, moments: random.Random
) -> None:
    for generation in range(ROUNDS):
        victim = service.program_pid(program)
        make_due(service, generation)
        time.sleep(moments.uniform(0, LONGEST_WAIT_SECONDS))  # a random moment; nothing relies on it
        os.kill(victim, signal.SIGKILL)
        assert_each_fires_once(service, generation)


def test_after_the_whole_service_is_killed_the_next_start_fires_each_due_slot_once(
    service: Service, moments: random.Random
) -> None:
    for generation in range(ROUNDS):
        make_due(service, generation)
        time.sleep(moments.uniform(0, LONGEST_WAIT_SECONDS))  # a random moment; nothing relies on it
        service.process.kill()
        service.process.wait()
        wait_until(lambda: running_url(service.data_dir) is None)
        service.start()
        assert_each_fires_once(service, generation)


def test_a_killed_postmaster_is_started_again_by_the_next_up(service: Service) -> None:
    make_due(service, 0)
    os.kill(int((service.data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)
    service.process.kill()
    service.process.wait()
    service.start()
    assert_each_fires_once(service, 0)
