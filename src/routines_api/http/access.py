"""Access to the API: the bearer key is checked first, then its rate, then the collection, and only then the request."""

import asyncio
import inspect
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import InternalServerException
from pydantic import BaseModel

from routines_api.http import json_body
from routines_api.http.errors import (
    BodyTooLargeError,
    MalformedBodyError,
    SlowBodyError,
    UnsupportedMediaTypeError,
)
from routines_api.http.known_keys import KnownKeys
from routines_api.http.rate_limiter import RateLimiter
from routines_api.http.run_waiter import RunWaiter
from routines_api.metrics.api import ApiMetrics
from routines_api.schemas import requests
from routines_core.db import Connection, Pool
from routines_core.db.keys import AuthContext
from routines_core.errors import Fault, FaultsError, InvalidError, NotFoundError, RoutinesError, UnauthorizedError
from routines_core.files.store import FileStore
from routines_core.keyring import Keyring
from routines_core.settings import Settings

ApiRequest = Request[Any, Any, State]
Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True)
class ApiServices:
    """Services that all requests of a process share."""

    settings: Settings
    keyring: Keyring
    keys: KnownKeys
    limiter: RateLimiter
    files: FileStore
    run_waiter: RunWaiter
    metrics: ApiMetrics

    @property
    def json_limits(self) -> json_body.JsonLimits:
        """The limits of a JSON body."""
        settings = self.settings
        return json_body.JsonLimits(settings.max_json_depth, settings.max_string_length, settings.max_items)


@dataclass(frozen=True)
class Caller:
    """An authenticated request, with the database connection that serves it.

    Attributes:
        auth: The key and the collection that it opens. Every statement takes the key's id and refuses a key that is
            revoked or expired.
        raw_body: The bytes received; empty if there is no body.
    """

    request: ApiRequest
    services: ApiServices
    connection: Connection
    auth: AuthContext
    raw_body: bytes

    @property
    def key_id(self) -> int:
        """The key's id, which every statement takes."""
        return self.auth.key_id

    def body(self, model: type[Body]) -> Body:
        """Parse the body as this model.

        Raises:
            UnsupportedMediaTypeError: Its Content-Type is not JSON.
            MalformedBodyError: It is not valid JSON, or it cannot be stored.
            FaultsError: It breaks rules of the model.
        """
        return requests.validate(model, self.json())

    def refuse_fields(self) -> None:
        """Refuse fields sent to an operation that takes none. An empty object is fine, whatever its Content-Type.

        Raises:
            InvalidError: The body has fields, which would be ignored.
        """
        if self.raw_body.strip():
            requests.validate(requests.EmptyBody, json_body.decode(self.raw_body, self.services.json_limits))

    def json(self) -> Any:
        """Parse the body as a JSON value.

        Raises:
            UnsupportedMediaTypeError: Its Content-Type is not JSON.
            MalformedBodyError: It is not valid JSON, or it cannot be stored.
        """
        refuse_other_types(self.request)
        if not self.raw_body:
            raise MalformedBodyError("The body is empty; send a JSON object.")
        return json_body.decode(self.raw_body, self.services.json_limits)


@dataclass(frozen=True)
class Door:
    """Admits one request. For handlers that wait for something and must not hold a connection meanwhile.

    Attributes:
        pool: Provides the connections.
    """

    request: ApiRequest
    services: ApiServices
    pool: Pool

    @asynccontextmanager
    async def open(self, body: bytes | InvalidError = b"", *, again: bool = False) -> AsyncGenerator[Caller]:
        """Admit the request and yield its caller, with a connection for as long as the block runs.

        Statements check that the key is still valid. A request that fails may not have reached one, so the key is
        checked again before the error is answered.

        Args:
            body: The body received, or the error found while reading it, which is raised after all other checks.
            again: Whether the request was admitted before; then it does not count against the rate again.

        Raises:
            UnauthorizedError: There is no valid key.
            RateLimitedError: The key is over its rate.
            NotFoundError: The path names another collection; the error is the same whether or not it exists.
            InvalidError: The body is too large or arrived too slowly, or a query parameter is unknown.
        """
        token = _bearer(self.request)
        async with self.pool.connection() as connection:
            auth = await self.services.keys.recognise(connection, token)
            if not again:
                await self.services.limiter.spend(connection, auth.key_id)
            try:
                _refuse_foreign(self.request, auth)
                if isinstance(body, InvalidError):
                    raise body
                _refuse_unknown_parameters(self.request)
                yield Caller(self.request, self.services, connection, auth, body)
            except RoutinesError:
                await self.services.keys.confirm(connection, token)
                raise


def provide_door(request: ApiRequest, state: State) -> Door:
    """Return the door of this request."""
    return Door(request, state.services, state.pool)


async def provide_caller(request: ApiRequest, state: State) -> AsyncGenerator[Caller]:
    """Yield the caller of this request: see Door.open.

    The body is read first, so that a client that sends it slowly does not hold a database connection.
    """
    door = provide_door(request, state)
    body = b"" if request.method == "GET" else await read_body(request, door.services.settings)
    async with door.open(body) as caller:
        yield caller


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
        raise NotFoundError  # no name contains NUL, and Postgres accepts no text that does


def media_type_of(request: ApiRequest) -> str:
    """Return the request's media type, lower-cased and without parameters; JSON if there is no Content-Type."""
    return request.headers.get("content-type", "application/json").lower().partition(";")[0].strip()


def refuse_other_types(request: ApiRequest, allowed: tuple[str, ...] = ()) -> None:
    """Reject bodies that are not UTF-8 JSON (or one of the `allowed` types), or that are compressed.

    Raises:
        UnsupportedMediaTypeError: The body is rejected; the message says what to send.
    """
    media_type, parameters = media_type_of(request), request.headers.get("content-type", "").lower().partition(";")[2]
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if media_type not in {"application/json", *allowed} and not media_type.endswith("+json"):
        raise UnsupportedMediaTypeError(
            f"The body is {media_type or 'of unknown type'}; send JSON with the header Content-Type: application/json"
            + "".join(f", or {each}" for each in allowed)
            + "."
        )
    if (charset := _CHARSET.search(parameters)) and charset[1] not in {"utf-8", "utf8", "us-ascii"}:
        raise UnsupportedMediaTypeError(f"The body is in the charset {charset[1]!a}; JSON is sent in UTF-8.")
    if encoding != "identity":
        raise UnsupportedMediaTypeError(f"The body has the Content-Encoding {encoding!a}; send it as it is.")


_CHARSET = re.compile(r"""charset\s*=\s*["']?([^"';\s]*)""")


async def read_body(request: ApiRequest, settings: Settings) -> bytes | InvalidError:
    """Read the body within its limits.

    Returns:
        The body, or the error to raise once access has been checked.
    """
    limit = settings.max_body_bytes
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > limit:
        return _too_large(limit)
    try:
        async with asyncio.timeout(settings.body_timeout_seconds):
            return await _stream(request, limit)
    except InternalServerException:  # raised by Litestar when the stream breaks
        return MalformedBodyError("The body ended early, or its chunks are malformed.")
    except TimeoutError:
        return SlowBodyError(f"The body did not arrive within {settings.body_timeout_seconds:g} s.")


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
    """Refuse unknown query parameters: a misspelt filter must not look as if it had been applied."""
    if not request.scope["query_string"]:
        return
    known = query_parameters(request.route_handler.fn)
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        allowed = ", ".join(sorted(known)) or "none"
        raise FaultsError([Fault(name[:100], f"unknown query parameter (known: {allowed})") for name in unknown])


@cache
def query_parameters(handler: Callable[..., Awaitable[Any]]) -> set[str]:
    """Return the names of a handler's query parameters, which are its keyword-only arguments."""
    return set(inspect.getfullargspec(handler).kwonlyargs)
