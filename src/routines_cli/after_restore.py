"""The command `routines after-restore`."""

from routines_core.db import Connection, restore


async def after_restore(connection: Connection) -> list[str]:
    """Move the identities on. Returns lines that say what was done, and what the programs will do next."""
    state = await restore.restored_state(connection)
    moved = await restore.move_identities(connection)
    return [
        f"newest record\t{state.newest_record_at:%Y-%m-%d %H:%M:%S}Z",
        *(f"{each.name}\tids were given out up to {each.last_id}, the next is {each.next_id}" for each in moved),
        f"{state.due_routines} routines are due: each slot since the restore point is caught up or recorded as missed",
        f"{state.active_runs} runs have not ended: unfinished steps are repeated with their idempotency keys",
        f"{state.due_webhooks} webhooks are due: they are sent, perhaps again, with their webhook-ids",
    ]
