"""The endpoints of a routine's webhook deliveries: list them, and send one again."""

from typing import Annotated

from litestar import Controller, Response, get, post
from litestar.params import Parameter

from routines_api.http.access import Caller
from routines_api.http.pagination import Cursor, decode_cursor, page
from routines_api.http.paths import id_of
from routines_api.openapi.description import operation
from routines_core.db import deliveries as db
from routines_core.db.deliveries import Delivery
from routines_core.db.routines import find_routine

DeliveryLimit = Annotated[int, Parameter(ge=1, le=100, description="Maximum number of webhooks on a page.")]


class DeliveriesController(Controller):
    """Operations on webhook deliveries."""

    path = "/routines/{collection:str}/{task:str}/{name:str}/deliveries"

    @get("/", **operation("listDeliveries"))
    async def list_deliveries(
        self, task: str, name: str, caller: Caller, *, limit: DeliveryLimit = 20, cursor: Cursor = None
    ) -> Response[list[Delivery]]:
        """List the webhooks of a routine.

        Newest first, with each attempt. `endpoint_stopped_at` is set if nothing is sent to the URL any more, because it
        answered 410 or failed for four days. To restart it, send a webhook again or set the URL again.
        """
        before = decode_cursor(cursor, int)
        found = await db.list_deliveries(
            caller.connection, key_id=caller.key_id, task=task, name=name, limit=limit + 1, before=before
        )
        if not found:
            await find_routine(caller.connection, key_id=caller.key_id, task=task, name=name)  # 404 unless it exists
        return page(caller.request, found, limit, key=lambda each: each.id, show=lambda each: each)

    @post("/{delivery_id:str}/redeliver", status_code=200, **operation("redeliver", conflict=True))
    async def redeliver(self, task: str, name: str, delivery_id: str, caller: Caller) -> Delivery:
        """Send a webhook again.

        Sends it at once, with the same webhook-id, even if the endpoint is stopped; a success restarts the endpoint. It
        is signed with the routine's current secret, provided that the routine still has this URL.
        """
        await caller.refuse_fields()
        return await db.redeliver(
            caller.connection, key_id=caller.key_id, task=task, name=name, delivery_id=id_of(delivery_id)
        )
