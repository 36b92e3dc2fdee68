"""The limits of a collection: read with its key, set with the operator's token."""

import hmac

import structlog
from litestar import get, put
from litestar.datastructures import State

from routines_api.http import json_body
from routines_api.http.access import ApiRequest, ApiServices, Caller, read_body, refuse_other_types
from routines_api.openapi.description import operation
from routines_api.schemas import faults
from routines_api.schemas.limits import CollectionLimits, LimitsPut, collection_limits
from routines_core.db import Pool
from routines_core.db import limits as db
from routines_core.db.limits import LimitInUse
from routines_core.errors import InvalidError, UnauthorizedError
from routines_core.limits import check_limit

log = structlog.get_logger("limits")


@get("/collections/{collection:str}/limits", tags=["Collections"], **operation("getLimits"))
async def get_limits(caller: Caller) -> CollectionLimits:
    """List the limits of the collection.

    Each with its use. Only an operator can change them.
    """
    return collection_limits(*await db.list_own_limits(caller.connection, caller.key_id))


@get("/operator/collections/{collection:str}/limits", include_in_schema=False)
async def get_limits_as_operator(collection: str, request: ApiRequest, state: State) -> CollectionLimits:
    """List the limits of any collection."""
    _refuse_others(request, state.services)
    pool: Pool = state.pool
    async with pool.connection() as connection, connection.transaction():
        return collection_limits(*await db.list_limits(connection, await db.open_as_operator(connection, collection)))


@put("/operator/collections/{collection:str}/limits", include_in_schema=False)
async def put_limits(collection: str, request: ApiRequest, state: State) -> CollectionLimits:
    """Replace the limits that were set for a collection. Those left out return to their defaults."""
    services: ApiServices = state.services
    _refuse_others(request, services)
    wanted = await _body(request, services)
    pool: Pool = state.pool
    async with pool.connection() as connection, connection.transaction():
        collection_id = await db.open_as_operator(connection, collection)
        before, _ = await db.list_limits(connection, collection_id)
        await db.replace_limits(connection, wanted.limits, collection_id=collection_id)
        after, tasks = await db.list_limits(connection, collection_id)
    _log_changes(collection, before, after)
    return collection_limits(after, tasks)


def _refuse_others(request: ApiRequest, services: ApiServices) -> None:
    """Refuse requests without the operator's token.

    Raises:
        UnauthorizedError: The token is missing or wrong.
    """
    expected = services.settings.operator_token or ""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    is_right = hmac.compare_digest(token.strip().encode("utf-8", "replace"), expected.encode())
    if not expected or scheme.lower() != "bearer" or not is_right:
        raise UnauthorizedError


async def _body(request: ApiRequest, services: ApiServices) -> LimitsPut:
    """Read and check the body, once the operator is known.

    Raises:
        InvalidError: It breaks a rule.
    """
    body = await read_body(request, services.settings)
    if isinstance(body, InvalidError):
        raise body
    refuse_other_types(request)
    wanted = faults.validate(LimitsPut, json_body.decode(body, services.json_limits))
    for name, value in wanted.limits.items():
        try:
            check_limit(name, value)
        except InvalidError as error:
            raise InvalidError(f"limits.{error}", f"limits.{name}") from None
    return wanted


def _log_changes(collection: str, before: list[LimitInUse], after: list[LimitInUse]) -> None:
    for old, new in zip(before, after, strict=True):
        if (old.value, old.is_set) != (new.value, new.is_set):
            log.info(
                "limit set" if new.is_set else "limit reset",
                collection=collection,
                limit=new.name,
                value=new.value,
                before=old.value,
                by="operator token",
            )


HANDLERS = [get_limits]
OPERATOR_HANDLERS = [get_limits_as_operator, put_limits]
"""Served only if ROUTINES_OPERATOR_TOKEN is set; otherwise their paths answer 404."""
