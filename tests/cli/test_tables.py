"""`routines doctor` says which tables lack statistics, have old ones, or are full of dead rows."""

from routines_core.db import Connection
from support.command import routines
from support.rows import Database, make_task

RUNS = """INSERT INTO routines.trajectories (collection_id, task_id, task_version, trigger, init_params)
          SELECT 1, 1, 1, 'api', '{}' FROM generate_series(1, 20000)"""
KEPT = "have statistics, and few dead rows"


async def examined(connection: Connection, database: Database) -> str:
    """Return what the doctor says of the tables, once the server has counted what this session wrote."""
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.execute("SELECT 1")
    [line] = [line for line in routines(database, "doctor").stdout.splitlines() if line.startswith("tables")]
    return line.removeprefix("tables").strip()


async def test_the_doctor_names_neglected_tables_and_what_to_do(connection: Connection, database: Database) -> None:
    await make_task(connection)
    await connection.execute("ALTER TABLE routines.trajectories SET (autovacuum_enabled = off)")
    assert await examined(connection, database) == KEPT
    await connection.execute(RUNS)
    assert await examined(connection, database) == "no statistics of trajectories: run ANALYZE, as after every restore"
    await connection.execute("ANALYZE")
    assert await examined(connection, database) == KEPT
    await connection.execute("DELETE FROM routines.trajectories WHERE mod(id, 20) <> 0")
    said = await examined(connection, database)
    assert "most of trajectories was written after its statistics were made: run ANALYZE" in said
    assert "more dead rows than others in trajectories" in said
    await connection.execute("VACUUM ANALYZE")
    assert await examined(connection, database) == KEPT
