"""Who may see, and what came with it: the bearer key, its rate, the collection, and only then what is valid."""

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
    """What all requests of a process share."""

    settings: Settings
    keyring: Keyring
    keys: KnownKeys
    limiter: RateLimiter
    files: FileStore
    run_waiter: RunWaiter
    metrics: ApiMetrics

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
    services: ApiServices
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

    def refuse_fields(self) -> None:
        """See that nothing was sent to an operation that takes nothing; an empty object passes, whatever its type.

        Raises:
            InvalidError: Something was sent, which would be ignored.
        """
        if self.raw_body.strip():
            requests.validate(requests.EmptyBody, json_body.decode(self.raw_body, self.services.json_limits))

    def json(self) -> Any:
        """The body as a JSON value.

        Raises:
            UnsupportedMediaTypeError: It says that it is something else than JSON.
            MalformedBodyError: It is no JSON, or none that can be stored.
        """
        refuse_other_types(self.request)
        if not self.raw_body:
            raise MalformedBodyError("The body is empty; send a JSON object.")
        return json_body.decode(self.raw_body, self.services.json_limits)


@dataclass(frozen=True)
class Door:
    """The way in of one request, for a handler that waits for something: it holds no connection meanwhile.

    Attributes:
        pool: Where the connections come from.
    """

    request: ApiRequest
    services: ApiServices
    pool: Pool

    @asynccontextmanager
    async def open(self, body: bytes | InvalidError = b"", *, again: bool = False) -> AsyncGenerator[Caller]:
        """The caller, once it is clear that the path lies in the key's collection.

        A request that ends in an error may have reached no statement, and so no check that its key still counts: that
        check is made before the error is told.

        Args:
            body: What came, or what is wrong with it: that is said last.
            again: The request has been let in before, and is not counted once more.

        Raises:
            UnauthorizedError: No key, or none that counts.
            RateLimitedError: The key asks faster than it may.
            NotFoundError: The path names another collection, existing or not: nothing tells the two apart.
            InvalidError: The body is too large or came too slowly, or a query parameter is unknown.
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
    """The request's way in."""
    return Door(request, state.services, state.pool)


async def provide_caller(request: ApiRequest, state: State) -> AsyncGenerator[Caller]:
    """The caller: see Door.open.

    The body is read first, since a client that sends it slowly must not hold a connection of the database.
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
        raise NotFoundError  # no name holds it, and Postgres takes no text that does


def media_type_of(request: ApiRequest) -> str:
    """What the body says that it is, in lower case and without parameters; JSON where it says nothing."""
    return request.headers.get("content-type", "application/json").lower().partition(";")[0].strip()


def refuse_other_types(request: ApiRequest, allowed: tuple[str, ...] = ()) -> None:
    """Refuse a body that is neither JSON nor of a type that is allowed beside it, or not in UTF-8, or encoded.

    Raises:
        UnsupportedMediaTypeError: The message says what to send.
    """
    media_type, parameters = media_type_of(request), request.headers.get("content-type", "").lower().partition(";")[2]
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if media_type not in {"application/json", *allowed} and not media_type.endswith("+json"):
        raise UnsupportedMediaTypeError(
            f"The body is {media_type or 'of no type'}; send JSON with the header Content-Type: application/json"
            + "".join(f", or {each}" for each in allowed)
            + "."
        )
    if (charset := _CHARSET.search(parameters)) and charset[1] not in {"utf-8", "utf8", "us-ascii"}:
        raise UnsupportedMediaTypeError(f"The body is in the charset {charset[1]!a}; JSON is sent in UTF-8.")
    if encoding != "identity":
        raise UnsupportedMediaTypeError(f"The body has the Content-Encoding {encoding!a}; send it as it is.")


_CHARSET = re.compile(r"""charset\s*=\s*["']?([^"';\s]*)""")


async def read_body(request: ApiRequest, settings: Settings) -> bytes | InvalidError:
    """The body within its limits, or what is wrong with it: to be raised when it is this error's turn."""
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
