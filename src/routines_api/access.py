"""Who may see, and what came with it: the bearer key, its rate, the collection, and only then what is valid."""

import asyncio
import inspect
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import InternalServerException

from routines_api import json_body, requests
from routines_api.errors import (
    BodyTooLargeError,
    MalformedBodyError,
    SlowBodyError,
    UnsupportedMediaTypeError,
)
from routines_api.keys import KnownKeys
from routines_api.limiter import RateLimiter
from routines_api.requests import RequestBody
from routines_core.db import Connection, Pool
from routines_core.db.keys import AuthContext
from routines_core.errors import Fault, FaultsError, InvalidError, NotFoundError, RoutinesError, UnauthorizedError
from routines_core.keyring import Keyring
from routines_core.settings import Settings

ApiRequest = Request[Any, Any, State]
Body = TypeVar("Body", bound=RequestBody)


@dataclass(frozen=True)
class Services:
    """What all requests of a process share."""

    settings: Settings
    keyring: Keyring
    keys: KnownKeys
    limiter: RateLimiter

    @property
    def json_limits(self) -> json_body.JsonLimits:
        """How much a body may hold."""
        settings = self.settings
        return json_body.JsonLimits(settings.max_json_depth, settings.max_string_length, settings.max_items)


@dataclass(frozen=True)
class Caller:
    """Whom a request speaks for, with the connection that serves it.

    Attributes:
        auth: The key, and the collection that it opens. Every statement is given the key's id, and itself refuses a
            key that was revoked or has expired.
        raw_body: As it came; empty where there is none.
    """

    request: ApiRequest
    services: Services
    connection: Connection
    auth: AuthContext
    raw_body: bytes

    @property
    def key_id(self) -> int:
        """What every statement is given."""
        return self.auth.key_id

    def body(self, model: type[Body]) -> Body:
        """The body as this model.

        Raises:
            UnsupportedMediaTypeError: It says that it is something else than JSON.
            MalformedBodyError: It is no JSON, or none that can be stored.
            FaultsError: It breaks rules of the model.
        """
        return requests.validate(model, self.json())

    def json(self) -> Any:
        """The body as a JSON value.

        Raises:
            UnsupportedMediaTypeError: It says that it is something else than JSON.
            MalformedBodyError: It is no JSON, or none that can be stored.
        """
        _refuse_other_types(self.request)
        if not self.raw_body:
            raise MalformedBodyError("The body is empty; send a JSON object.")
        return json_body.decode(self.raw_body, self.services.json_limits)


async def provide_caller(request: ApiRequest, state: State) -> AsyncGenerator[Caller]:
    """The caller, once it is clear that the path lies in the key's collection.

    The body is read first, since a client that sends it slowly must not hold a connection of the database; what is
    wrong with it is said last. A request that ends in an error may have reached no statement, and so no check that
    its key still counts: that check is made before the error is told.

    Raises:
        UnauthorizedError: No key, or none that counts.
        RateLimitedError: The key asks faster than it may.
        NotFoundError: The path names another collection, existing or not: nothing tells the two apart.
        InvalidError: The body is too large or came too slowly, or a query parameter is unknown.
    """
    services: Services = state.services
    pool: Pool = state.pool
    body = b"" if request.method == "GET" else await _read_body(request, services.settings)
    token = _bearer(request)
    async with pool.connection() as connection:
        auth = await services.keys.recognise(connection, token)
        await services.limiter.spend(connection, auth.key_id)
        try:
            _refuse_foreign(request, auth)
            if isinstance(body, InvalidError):
                raise body
            _refuse_unknown_parameters(request)
            yield Caller(request, services, connection, auth, body)
        except RoutinesError:
            await services.keys.confirm(connection, token)
            raise


def _bearer(request: ApiRequest) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise UnauthorizedError
    return token.strip()


def _refuse_foreign(request: ApiRequest, auth: AuthContext) -> None:
    names = request.path_params
    if names.get("collection", auth.collection_name) != auth.collection_name:
        raise NotFoundError
    if any("\0" in str(name) for name in names.values()):
        raise NotFoundError  # no name holds it, and Postgres takes no text that does


def _refuse_other_types(request: ApiRequest) -> None:
    media_type, _, parameters = request.headers.get("content-type", "application/json").lower().partition(";")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    media_type = media_type.strip()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedMediaTypeError(
            f"The body is {media_type or 'of no type'}; send JSON with the header Content-Type: application/json."
        )
    if (charset := _CHARSET.search(parameters)) and charset[1] not in {"utf-8", "utf8", "us-ascii"}:
        raise UnsupportedMediaTypeError(f"The body is in the charset {charset[1]!a}; JSON is sent in UTF-8.")
    if encoding != "identity":
        raise UnsupportedMediaTypeError(f"The body has the Content-Encoding {encoding!a}; send it as it is.")


_CHARSET = re.compile(r"""charset\s*=\s*["']?([^"';\s]*)""")


async def _read_body(request: ApiRequest, settings: Settings) -> bytes | InvalidError:
    """The body, or what is wrong with it: to be raised when it is this error's turn."""
    limit = settings.max_body_bytes
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > limit:
        return _too_large(limit)
    try:
        async with asyncio.timeout(settings.body_timeout_seconds):
            return await _stream(request, limit)
    except InternalServerException:  # so Litestar says that the stream broke
        return MalformedBodyError("The body broke off, or its chunks are malformed.")
    except TimeoutError:
        return SlowBodyError(f"The body did not come within {settings.body_timeout_seconds:g} s.")


async def _stream(request: ApiRequest, limit: int) -> bytes | InvalidError:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            return _too_large(limit)
    return bytes(body)


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"The body is larger than {limit} bytes.")


def _refuse_unknown_parameters(request: ApiRequest) -> None:
    """A typo in a filter must not look like an answer to it."""
    if not request.scope["query_string"]:
        return
    known = query_parameters(request.route_handler.fn)
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        allowed = ", ".join(sorted(known)) or "none"
        raise FaultsError([Fault(name[:100], f"unknown query parameter (known: {allowed})") for name in unknown])


@cache
def query_parameters(handler: Callable[..., Awaitable[Any]]) -> set[str]:
    """The query parameters that a handler takes: its keyword-only arguments."""
    return set(inspect.getfullargspec(handler).kwonlyargs)
