"""Who may see: the feature flag, the bearer key, the collection, in this order and before what is valid."""

from collections.abc import AsyncGenerator
from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler

from routines_core.db import Connection
from routines_core.db.keys import AuthContext, authenticate
from routines_core.errors import NotFoundError, UnauthorizedError

ApiRequest = Request[Any, Any, State]


def routines_enabled(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """A guard: with ENABLE_ROUTINES off there is nothing here, key or no key.

    Raises:
        NotFoundError: It is off.
    """
    if not connection.app.state.settings.enable_routines:
        raise NotFoundError


async def provide_connection(state: State) -> AsyncGenerator[Connection]:
    """A connection of the pool for the time of the request."""
    async with state.pool.connection() as connection:
        yield connection


async def provide_auth(request: ApiRequest, connection: Connection) -> AuthContext:
    """Whom the request speaks for, once it is clear that its path lies in that collection.

    Raises:
        UnauthorizedError: No key, or none that counts.
        NotFoundError: The path names another collection, existing or not: nothing tells the two apart.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise UnauthorizedError
    auth = await authenticate(connection, token.strip())
    if request.path_params.get("collection", auth.collection_name) != auth.collection_name:
        raise NotFoundError
    return auth
