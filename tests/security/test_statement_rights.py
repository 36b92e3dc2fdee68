"""Check that each program may run each statement that it sends, by asking the planner for every one of them.

EXPLAIN checks the same rights to tables, columns and functions as the statement itself. It does not see what triggers
do on the statement's behalf; `test_roles.py` has the programs do their work.
"""

import pytest
from psycopg._queries import PostgresQuery
from psycopg.adapt import Transformer
from psycopg.errors import InsufficientPrivilege

from routines_core.db import Connection
from support.statements import DECLARED

API, TICKER, WORKER, READER = "routines_api", "routines_ticker", "routines_worker", "routines_reader"
GENERIC_PLANS = 160000
"""The first server version that has EXPLAIN (GENERIC_PLAN), which needs no values."""
OF_PROGRAMS = {
    API: (
        "alert_rules. audit. backfills. calendars. collections. feeds. idempotency. keys.find_key keys.take_tokens "
        "changes. ledger. timeline. planning. report. routines. secrets.find_pepper tasks.insert_task "
        "tasks.update_task tasks.find_task tasks.list_tasks tasks.list_versions tasks.find_version tasks.delete_task "
        "trajectories. "
        "deliveries.list_deliveries deliveries.redeliver metrics. limits.list_own_limits limits.list_own_limited_tasks "
        "limits.measure limits.take_runs limits.note_own_files limits.open_as_operator limits.list_limits "
        "limits.list_limited_tasks limits.set_limit limits.reset_limit limits.limit_collection secrets.list_peppers "
        "standing.standing standing.lacking_rights"
    ),
    TICKER: "tick.",
    WORKER: (
        "alerts. children. day_sums. dispatches. retention. runs. deliveries.claim deliveries.prepare "
        "deliveries.settle deliveries.release deliveries.give_up_stopped "
        "limits.measure_stored_bytes limits.note_listed_files limits.take_file limits.give_back_file limits.run_limits"
    ),
}
"""What each program sends: a statement's name, or a file's name and a dot for all statements in it."""
OF_THE_COMMAND_LINE = (
    "keys.create_key keys.list_keys keys.revoke_key keys.succeed_key limits.find_collection limits.list_set_limits "
    "limits.limit_task migrations. restore. clocks. roles. secrets.create_pepper standing.holds_other_tables tables. "
    "secrets.replace_pepper secrets.list_secrets secrets.list_stale_secrets "
    "secrets.replace_ciphertexts tasks.apply_task"
)
"""What commands send that run as the owner of the tables."""
OF_EVERY_CONNECTION = "sessions."
"""What programs and commands send when they have connected, before and after they took on a role."""
WITHOUT_A_PLAN = {"runs.listen"}
"""LISTEN needs no right, and EXPLAIN does not support it."""
REFUSED = {
    API: "alerts.open_late alerts.follow_events alerts.queue_notices "
    "dispatches.dispatch dispatches.take dispatches.give_back runs.claim runs.sealed_secret tick.tick "
    "deliveries.claim retention.delete_skips limits.limit_task secrets.create_pepper secrets.list_secrets "
    "secrets.replace_ciphertexts keys.create_key keys.revoke_key",
    TICKER: "alert_rules.create_rule alerts.queue_notices "
    "feeds. secrets. dispatches.dispatch dispatches.take runs.claim runs.sealed_secret runs.reap deliveries. "
    "retention.delete_trajectories keys. routines.create_routine routines.delete_routine collections.environment "
    "idempotency. limits.set_limit metrics.routines metrics.runs",
    WORKER: "alert_rules.create_rule alert_rules.delete_rule "
    "feeds. secrets.find_pepper secrets.create_pepper secrets.replace_ciphertexts keys. tick.tick "
    "routines.create_routine tasks.insert_task idempotency. limits.limit_collection limits.set_limit "
    "limits.open_as_operator metrics.routines metrics.deliveries",
    READER: "feeds.find_feed feeds.feed_slots feeds.create_feed feeds.delete_feed secrets. tick.tick runs.claim "
    "runs.sealed_secret routines.create_routine trajectories.label "
    "deliveries.redeliver retention.delete_skips limits.set_limit keys.create_key keys.find_key idempotency.",
}
"""What each role may not do, in the same notation."""


def named(patterns: str) -> list[str]:
    """Return the declared statements that these patterns match; every pattern must match at least one."""
    found = [
        [name for name in DECLARED if name == pattern or (pattern[-1] == "." and name.startswith(pattern))]
        for pattern in patterns.split()
    ]
    assert all(found), patterns
    return sorted(name for names in found for name in names)


async def is_allowed(connection: Connection, name: str) -> bool:
    """Return whether the session's role has every right that the statement needs."""
    text = DECLARED[name].text
    parameters = {part.split(")s")[0] for part in text.split("%(")[1:]}
    query = PostgresQuery(Transformer(connection))
    query.convert(text, dict.fromkeys(parameters) if parameters else None)
    try:
        await connection.execute(b"EXPLAIN (GENERIC_PLAN) " + query.query)
    except InsufficientPrivilege:
        return False
    return True


@pytest.fixture
async def explaining(connection: Connection) -> Connection:
    """Return a connection to a server that can plan without values."""
    if connection.info.server_version < GENERIC_PLANS:
        pytest.skip("EXPLAIN (GENERIC_PLAN) came with Postgres 16")
    return connection


def test_every_statement_is_assigned_to_a_program_or_the_command_line() -> None:
    assigned = (*OF_PROGRAMS.values(), OF_THE_COMMAND_LINE, OF_EVERY_CONNECTION)
    assert sorted(name for patterns in assigned for name in named(patterns)) == sorted(DECLARED)


@pytest.mark.parametrize("role", OF_PROGRAMS)
async def test_a_program_has_every_right_that_its_statements_need(explaining: Connection, role: str) -> None:
    await explaining.execute(f"SET ROLE {role}".encode())
    planned = set(named(OF_PROGRAMS[role]) + named(OF_EVERY_CONNECTION)) - WITHOUT_A_PLAN
    assert [name for name in sorted(planned) if not await is_allowed(explaining, name)] == []


@pytest.mark.parametrize("role", REFUSED)
async def test_a_role_is_refused_the_statements_of_others(explaining: Connection, role: str) -> None:
    await explaining.execute(f"SET ROLE {role}".encode())
    assert [name for name in named(REFUSED[role]) if await is_allowed(explaining, name)] == []


async def test_a_missing_grant_is_detected(explaining: Connection) -> None:
    missing = {
        "keys.find_key": "EXECUTE ON FUNCTION routines.key_to_check(bigint)",
        "trajectories.label": "UPDATE (labels) ON routines.trajectories",
        "trajectories.find_trajectory": "SELECT ON routines.steps",
    }
    for name, right in missing.items():
        await explaining.execute(f"REVOKE {right} FROM {API}".encode())
        await explaining.execute(f"SET ROLE {API}".encode())
        assert not await is_allowed(explaining, name), name
        await explaining.execute("RESET ROLE")
