"""The endpoints of cadences: which types exist, and the slots that a cadence would have."""

from litestar import get, post

from routines_api.http.access import Caller
from routines_api.http.sealing import cadence_of
from routines_api.openapi.description import operation
from routines_api.schemas import requests
from routines_api.schemas.responses import CadenceTypeRead, Slots, cadence_types
from routines_core.db.collections import find_collection
from routines_core.db.ledger import preview


@get("/cadence-types/{collection:str}", tags=["Routines"], **operation("listCadenceTypes"))
async def list_cadence_types(caller: Caller) -> list[CadenceTypeRead]:
    """List the types of cadence.

    With the fields that each type takes, in display order. The list is the same for every collection.
    """
    await find_collection(caller.connection, caller.key_id)
    return cadence_types()


@post(
    "/cadence-preview/{collection:str}",
    status_code=200,
    tags=["Routines"],
    **operation("previewCadence", body=requests.CadencePreview),
)
async def preview_cadence(caller: Caller) -> Slots:
    """List the coming slots of a cadence.

    Nothing is saved.
    """
    body = await caller.body(requests.CadencePreview)
    await find_collection(caller.connection, caller.key_id)
    slots = await preview(
        caller.connection, cadence_of(body.cadence), count=body.count, spread_seconds=body.spread_seconds
    )
    return Slots(slots)


HANDLERS = [list_cadence_types, preview_cadence]
