"""`/metrics` on the API's own port: open on loopback addresses, elsewhere only with a token."""

from http import HTTPStatus

import msgspec
from litestar import get
from litestar.datastructures import State
from litestar.response import Response

from routines_api.http.access import ApiRequest, ApiServices
from routines_api.http.problems import MEDIA_TYPE as PROBLEM_MEDIA_TYPE
from routines_api.http.problems import TYPE_PREFIX, Problem
from routines_core.errors import NotFoundError
from routines_core.metrics.access import is_bearer, is_loopback
from routines_core.metrics.program import MEDIA_TYPE

_UNAUTHORIZED = Problem(
    f"{TYPE_PREFIX}unauthorized",
    "Unauthorized",
    HTTPStatus.UNAUTHORIZED.value,
    "Send the token of ROUTINES_METRICS_TOKEN: Authorization: Bearer <token>.",
)


@get("/metrics", include_in_schema=False)
async def metrics(request: ApiRequest, state: State) -> Response[bytes]:
    """Return every metric of this process and of the database."""
    services: ApiServices = state.services
    token = services.settings.metrics_token
    if request.scope["raw_path"].partition(b"?")[0] != b"/metrics":
        raise NotFoundError  # a proxy that blocks /metrics may let another spelling through
    if token is None and not is_loopback(services.settings.host):
        raise NotFoundError
    if token is not None and not is_bearer(request.headers.get("authorization", ""), token):
        return Response(
            msgspec.json.encode(_UNAUTHORIZED),
            status_code=HTTPStatus.UNAUTHORIZED,
            media_type=PROBLEM_MEDIA_TYPE,
            headers={"WWW-Authenticate": "Bearer"},
        )
    return Response(await services.metrics.page(), media_type=MEDIA_TYPE)
