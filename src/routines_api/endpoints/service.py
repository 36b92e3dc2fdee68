"""What anybody may ask of an API process without a key: whether it lives or is ready, and where the pages are."""

from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
from litestar import get
from litestar.datastructures import State
from litestar.response import Response

from routines_console.site import MOUNT

if TYPE_CHECKING:
    from routines_api.http.access import ApiServices
    from routines_api.http.readiness import ReadinessCheck


class Alive(msgspec.Struct):
    """The process answers."""

    status: str = "ok"


@get("/livez", include_in_schema=False)
async def livez() -> Response[Alive]:
    """Answer, whatever the state of the database: to be asked before a process is restarted."""
    return Response(Alive(), headers=_NOT_KEPT)


@get("/readyz", include_in_schema=False)
async def readyz(state: State) -> Response[bytes]:
    """Return 200 if the process can do its work, otherwise 503: to be asked before requests are sent to it."""
    check: ReadinessCheck = state.readiness
    found = await check.check()
    status = HTTPStatus.OK if found.is_ready else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(msgspec.json.encode(found), status_code=status, media_type="application/json", headers=_NOT_KEPT)


@get("/", include_in_schema=False)
async def root(state: State) -> Response[None]:
    """Lead a person to the console, or to the documentation where there is no console."""
    services: ApiServices = state.services
    page = f"{MOUNT.removeprefix('/')}/" if services.settings.console else "docs"
    # Relative, so that it also works behind a proxy that adds a prefix.
    return Response(None, status_code=HTTPStatus.TEMPORARY_REDIRECT, headers={"Location": page})


_NOT_KEPT = {"Cache-Control": "no-store"}
HANDLERS = [livez, readyz, root]
