"""The Idempotency-Key header: a repeated request is not executed again; it gets the first answer."""

import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from litestar import Response

from routines_api.http.access import Caller
from routines_api.http.errors import IdempotencyKeyReusedError
from routines_core.db.idempotency import KeptAnswer, claim_answer, keep_answer
from routines_core.errors import InvalidError

_VALID = re.compile(r"[\x21-\x7e]{1,255}")


async def once(caller: Caller, action: Callable[[], Awaitable[Any]], *, status: int) -> Any:
    """Run `action`, or replay its stored answer if this Idempotency-Key has already succeeded.

    Only successes are stored: a request that failed changed nothing and may be repeated.

    Returns:
        The result of `action`, or the stored answer.

    Raises:
        InvalidError: The Idempotency-Key is malformed.
        IdempotencyKeyReusedError: It was used before with a different request.
    """
    idempotency_key = given_key(caller)
    if idempotency_key is None:
        return await action()
    request_hash = _hash(caller)
    key_id, connection = caller.auth.key_id, caller.connection
    async with connection.transaction():
        kept = await claim_answer(connection, key_id=key_id, idempotency_key=idempotency_key, request_hash=request_hash)
        if kept:
            return _replay(kept, request_hash)
        body = msgspec.json.encode(await action())
        await keep_answer(connection, key_id=key_id, idempotency_key=idempotency_key, status=status, body=body)
    return Response(body, status_code=status, media_type="application/json")


def given_key(caller: Caller) -> str | None:
    """Return the Idempotency-Key of the request; None if it has none.

    Raises:
        InvalidError: It is malformed.
    """
    idempotency_key = caller.request.headers.get("idempotency-key")
    if idempotency_key is not None and not _VALID.fullmatch(idempotency_key):
        raise InvalidError("Idempotency-Key: must be 1 to 255 visible ASCII characters.", "Idempotency-Key")
    return idempotency_key


def _replay(kept: KeptAnswer, request_hash: bytes) -> Response[bytes]:
    if not hmac.compare_digest(kept.request_hash, request_hash):
        raise IdempotencyKeyReusedError(
            "Idempotency-Key: was sent before with a different request; use a new one.", "Idempotency-Key"
        )
    headers = {"Idempotent-Replayed": "true"}
    return Response(kept.body, status_code=kept.status, media_type="application/json", headers=headers)


def _hash(caller: Caller) -> bytes:
    # Keyed with the token, so that the stored hash cannot be used to guess secrets in the body.
    request = caller.request
    token = request.headers["authorization"].encode()
    said = b"\0".join([request.method.encode(), request.scope["path"].encode(), caller.raw_body])
    return hmac.digest(token, said, hashlib.sha256)
