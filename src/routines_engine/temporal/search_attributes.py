"""The search attributes by which runs are found in Temporal's UI and lists."""

import asyncio

import structlog
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

from routines_core.db.dispatches import Submission
from routines_engine.temporal.connection import RPC_TIMEOUT

COLLECTION = SearchAttributeKey.for_keyword("RoutinesCollection")
TASK = SearchAttributeKey.for_keyword("RoutinesTask")
ROUTINE = SearchAttributeKey.for_keyword("RoutinesRoutine")
TRIGGER = SearchAttributeKey.for_keyword("RoutinesTrigger")
SCHEDULED_FOR = SearchAttributeKey.for_datetime("RoutinesScheduledFor")
TYPES = {
    **dict.fromkeys(
        (COLLECTION.name, TASK.name, ROUTINE.name, TRIGGER.name), IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
    ),
    SCHEDULED_FOR.name: IndexedValueType.INDEXED_VALUE_TYPE_DATETIME,
}
"""All of them, with their types."""
SEEN_ATTEMPTS = 20
SEEN_SECONDS = 0.25
"""How often, and after which delay, to look for new attributes: all parts of a server see them only after a while."""

log = structlog.get_logger("temporal")


async def register(client: Client) -> bool:
    """Register the attributes that the namespace does not have yet, if Temporal lets this program.

    Returns:
        Whether it has all of them. If not, runs are started without.
    """
    try:
        missing = await _missing(client)
        if missing:
            request = AddSearchAttributesRequest(search_attributes=missing, namespace=client.namespace)
            await client.operator_service.add_search_attributes(request, timeout=RPC_TIMEOUT)
            log.info("search attributes registered", names=sorted(missing))
        for _ in range(SEEN_ATTEMPTS if missing else 0):
            if not await _missing(client):
                break
            await asyncio.sleep(SEEN_SECONDS)
    except RPCError as error:
        if error.status == RPCStatusCode.ALREADY_EXISTS:  # another worker was faster
            return True
        log.warning(
            "search attributes not registered, runs are started without them: see docs/run/temporal.md",
            status=error.status.name,
            names=sorted(TYPES),
        )
        return False
    return True


async def _missing(client: Client) -> dict[str, IndexedValueType.ValueType]:
    request = ListSearchAttributesRequest(namespace=client.namespace)
    known = await client.operator_service.list_search_attributes(request, timeout=RPC_TIMEOUT)
    return {name: kind for name, kind in TYPES.items() if name not in known.custom_attributes}


def attributes_of(run: Submission) -> TypedSearchAttributes:
    """Return the attributes of a run."""
    texts = {COLLECTION: run.collection, TASK: run.task, ROUTINE: run.routine, TRIGGER: run.trigger}
    pairs = [SearchAttributePair(key, text) for key, text in texts.items() if text is not None]
    if run.scheduled_for is None:
        return TypedSearchAttributes(pairs)
    return TypedSearchAttributes([*pairs, SearchAttributePair(SCHEDULED_FOR, run.scheduled_for)])
