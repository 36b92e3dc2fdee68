"""The demo that `routines up` creates on its first start: a collection with a key, a task and an hourly routine."""

from pathlib import Path

import msgspec

from routines_core.db import Connection
from routines_core.db.keys import create_key, parse_token
from routines_core.db.peppers import Peppers
from routines_core.db.routines import Cadence, RoutineSpec, create_routine
from routines_core.db.tasks import create_task
from routines_core.keyring import Keyring

COLLECTION, TASK, ROUTINE = "demo", "hello", "every-hour"


async def make_demo(connection: Connection, data_dir: Path, keyring: Keyring) -> None:
    """Create the demo, unless this data directory already has its key."""
    key_file = data_dir / f"{COLLECTION}.key"
    if key_file.exists():
        return
    async with connection.transaction():
        key = await create_key(connection, COLLECTION, Peppers(keyring))
        await _make_routine(connection, parse_token(key).key_id)
        key_file.touch(mode=0o600)
        key_file.write_text(key + "\n", "ascii")


async def _make_routine(connection: Connection, key_id: int) -> None:
    workflow = msgspec.json.decode(Path(__file__).with_name("demo.json").read_bytes())
    await create_task(connection, key_id=key_id, name=TASK, description="Says good morning.", workflow=workflow)
    routine = RoutineSpec(ROUTINE, Cadence("hourly"))
    await create_routine(connection, routine, key_id=key_id, task=TASK)
