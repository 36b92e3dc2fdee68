"""Answers stored for a day under their Idempotency-Key: sql/queries/idempotency.sql called from Python."""

import msgspec

from routines_core.db.pool import Connection
from routines_core.db.statements import NoRow, Statement


class KeptAnswer(msgspec.Struct, frozen=True):
    """The answer to the first request under an Idempotency-Key."""

    request_hash: bytes
    status: int
    body: bytes


class _KeyId(msgspec.Struct):
    key_id: int


_CLAIM = Statement("idempotency.claim_answer", _KeyId)
_KEEP = Statement("idempotency.keep_answer", NoRow)
_KEPT = Statement("idempotency.kept_answer", KeptAnswer)


async def claim_answer(
    connection: Connection, *, key_id: int, idempotency_key: str, request_hash: bytes
) -> KeptAnswer | None:
    """Mark this Idempotency-Key as used, in the caller's transaction.

    Waits for the transaction of a concurrent request under the same key.

    Returns:
        The stored answer of an earlier request; None if the caller is the first.

    Raises:
        NotFoundError: The mark was deleted between the two statements; the request can be sent again.
    """
    first = await _CLAIM.first(connection, key_id=key_id, idempotency_key=idempotency_key, request_hash=request_hash)
    if first:
        return None
    return await _KEPT.one(connection, key_id=key_id, idempotency_key=idempotency_key)


async def keep_answer(connection: Connection, *, key_id: int, idempotency_key: str, status: int, body: bytes) -> None:
    """Store the answer, in the transaction that marked the key."""
    await _KEEP.run(connection, key_id=key_id, idempotency_key=idempotency_key, status=status, body=body)
