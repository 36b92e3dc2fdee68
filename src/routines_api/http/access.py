"""Access to the API: the bearer key is checked first, then its rate, then the collection, and only then the request.

Collections share the limited resources of a process, such as connections and memory for bodies.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import InternalServerException
from pydantic import BaseModel

from routines_api.http import json_body
from routines_api.http.byte_budget import ByteBudget
from routines_api.http.errors import (
    BodyTooLargeError,
    CollectionBusyError,
    MalformedBodyError,
    ServiceBusyError,
    SlowBodyError,
    UnsupportedMediaTypeError,
)
from routines_api.http.known_keys import KnownKeys
from routines_api.http.limit_gate import LimitGate
from routines_api.http.problems import KEY_ID
from routines_api.http.query import refuse_odd_numbers, refuse_parameters
from routines_api.http.rate_limiter import RateLimiter
from routines_api.http.run_waiter import RunWaiter
from routines_api.http.work import Work
from routines_api.metrics.api import ApiMetrics
from routines_api.schemas import faults
from routines_api.schemas.fields import EmptyBody
from routines_core.db import Connection, Pool
from routines_core.db.feeds import take_feed_tokens
from routines_core.db.keys import AuthContext
from routines_core.db.pool import refuse_if_away
from routines_core.errors import InvalidError, NotFoundError, RoutinesError, UnauthorizedError
from routines_core.fair_gate import FairGate, GateFullError
from routines_core.files.store import FileStore
from routines_core.keyring import Keyring
from routines_core.settings import Settings

ApiRequest = Request[Any, Any, State]
Body = TypeVar("Body", bound=BaseModel)
Result = TypeVar("Result")
CONNECTIONS = 10
"""Size of the connection pool. One connection is reserved for the run-sync poll; requests share the others."""
RESERVED_CONNECTIONS = 2
"""Connections reserved for collections that hold none."""
LARGE_ANSWERS = 6
"""Maximum number of large answers that a process sends at once."""
LARGE_LOADS = 3
"""Maximum number of them that it loads and encodes at once. Each takes several times its size in memory."""
PLANS = 2
"""Maximum number of plans that a process asks the database for at once. The worst take it seconds."""
FEED_READS_PER_SECOND = 0.1
FEED_BURST = 20
"""How often a calendar feed may be read, over time and at once."""
ROOM_SECONDS = 5.0
"""How long a request waits for room in a budget or for a place that its collection shares with others."""
JSON_SPACE = b" \t\n\r"
"""What JSON takes for white space, so that a body of nothing else counts as none."""
UNKNOWN = "unknown"
"""Owner of requests whose key this process has not seen before; together they count as one collection."""


@dataclass(frozen=True)
class ApiServices:
    """Services that all requests of a process share."""

    settings: Settings
    keyring: Keyring
    keys: KnownKeys
    limiter: RateLimiter
    limits: LimitGate
    files: FileStore
    run_waiter: RunWaiter
    metrics: ApiMetrics
    bodies: ByteBudget
    uploads: FairGate
    work: Work
    connections: FairGate = field(default_factory=lambda: FairGate(CONNECTIONS - 1, RESERVED_CONNECTIONS))
    large_answers: FairGate = field(default_factory=lambda: FairGate(LARGE_ANSWERS, reserve=2))
    large_loads: FairGate = field(default_factory=lambda: FairGate(LARGE_LOADS, reserve=1))
    feeds: RateLimiter = field(
        default_factory=lambda: RateLimiter(FEED_READS_PER_SECOND, FEED_BURST, take_feed_tokens, "calendar feed")
    )
    plans: FairGate = field(default_factory=lambda: FairGate(PLANS, reserve=1))

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

    async def body(self, model: type[Body]) -> Body:
        """Parse the body as this model.

        Raises:
            UnsupportedMediaTypeError: Its Content-Type is not JSON.
            MalformedBodyError: It is not valid JSON, or it cannot be stored.
            FaultsError: It breaks rules of the model.
            WorkBudgetError: The key has used up its processor time.
        """
        return await self.compute(lambda: faults.validate(model, self.json()))

    async def compute(self, action: Callable[[], Result]) -> Result:
        """Return the result of `action`, pure code that works on the body: see Work.run."""
        return await self.services.work.run(
            action,
            key_id=self.key_id,
            owner=self.auth.collection_id,
            size=len(self.raw_body),
            place=place_of,
        )

    async def refuse_fields(self) -> None:
        """Refuse fields sent to an operation that takes none. An empty object is fine, whatever its Content-Type.

        Raises:
            InvalidError: The body has fields, which would be ignored.
        """
        if self.raw_body.strip(JSON_SPACE):
            limits = self.services.json_limits
            await self.compute(lambda: faults.validate(EmptyBody, json_body.decode(self.raw_body, limits)))

    async def body_if_any(self, model: type[Body]) -> Body:
        """Parse the body as this model, all of whose fields are optional. No body is the same as an empty object.

        Neither needs a Content-Type.

        Raises:
            UnsupportedMediaTypeError: It has fields and its Content-Type is not JSON.
            MalformedBodyError: It is not valid JSON, or it cannot be stored.
            FaultsError: It breaks rules of the model.
        """
        if not self.raw_body.strip(JSON_SPACE):
            return model()
        return await self.compute(lambda: faults.validate(model, self._json_with_type_if_any()))

    def _json_with_type_if_any(self) -> Any:
        value = json_body.decode(self.raw_body, self.services.json_limits)
        if value:
            refuse_other_types(self.request)
        return value

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
    """Admits one request. For handlers that wait for something and must not hold a connection in the meantime.

    Attributes:
        pool: Provides the connections.
    """

    request: ApiRequest
    services: ApiServices
    pool: Pool

    async def admit(self) -> AuthContext:
        """Recognise the key, take its rate token, and check that it opens the collection of the path.

        The body is not read yet. A key that this process has seen needs no statement here: later statements, and its
        next rate tokens, check that it is still valid.

        Raises:
            UnauthorizedError: There is no valid key.
            RateLimitedError: The key is over its rate.
            NotFoundError: The path names another collection; the error is the same whether or not it exists.
            InvalidError: A number in the query is not spelled as an integer.
            ServiceBusyError: No connection came free in time.
        """
        token = _bearer(self.request)
        keys, limiter = self.services.keys, self.services.limiter
        auth = keys.find(token)
        if auth is None or not limiter.spend_taken(auth.key_id):
            async with self.connection(auth.collection_id if auth else UNKNOWN) as connection:
                auth = auth or await keys.recognise(connection, token)
                self.request.scope["state"][KEY_ID] = auth.key_id
                await limiter.spend(connection, auth.key_id)
        self.request.scope["state"][KEY_ID] = auth.key_id
        if _is_foreign(self.request, auth):
            async with self.connection(auth.collection_id) as connection:
                await keys.confirm(connection, token)
            raise NotFoundError
        refuse_odd_numbers(self.request)
        return auth

    def open(self, auth: AuthContext, body: bytes | InvalidError = b"") -> "OpenDoor":
        """Return a context manager that yields the caller of an admitted request.

        Args:
            auth: The answer of `admit`.
            body: The body received, or the error found while reading it, which is raised after all other checks.
        """
        return OpenDoor(self, auth, body)

    @asynccontextmanager
    async def body(self, auth: AuthContext) -> AsyncGenerator[bytes | InvalidError]:
        """Read the body within its limits. Its bytes count against the budget for as long as the block runs.

        Yields:
            The body, or the error to raise once the key has been checked again.

        Raises:
            CollectionBusyError: The collection has too many bytes buffered already.
            ServiceBusyError: The process has.
        """
        limit, bodies = self.services.settings.max_body_bytes, self.services.bodies
        size = _declared_size(self.request, limit)
        if size > limit:
            yield _too_large(limit)
            return
        entered = False
        try:
            async with bodies.hold(auth.collection_id, size, ROOM_SECONDS):
                entered = True
                yield await read_body(self.request, self.services.settings)
        except GateFullError:
            if entered:
                raise  # of another gate, further in
            if bodies.is_spent_by(auth.collection_id, size):
                raise CollectionBusyError(
                    f"The collection is sending more than {bodies.per_owner} bytes of bodies at once."
                ) from None
            raise ServiceBusyError("The service has no room for the body at the moment.") from None

    def connection(self, owner: Hashable) -> "SharedConnection":
        """Return a context manager that yields a connection from a collection's share."""
        return SharedConnection(self.pool, self.services.connections, owner)


class SharedConnection:
    """A connection of the pool from a collection's share, for as long as a block runs.

    A class, because every request enters it: an asynchronous generator takes three times as long.
    """

    __slots__ = ("_connection", "_gate", "_owner", "_pool")

    def __init__(self, pool: Pool, gate: FairGate, owner: Hashable) -> None:
        self._pool = pool
        self._gate = gate
        self._owner = owner

    async def __aenter__(self) -> Connection:
        """Take the connection.

        Raises:
            CollectionBusyError: No connection came free in time, and the collection has some.
            ServiceBusyError: No connection came free in time, and the collection has none.
        """
        try:
            await _enter(self._gate, self._owner)
        except (CollectionBusyError, ServiceBusyError):
            refuse_if_away(self._pool)  # then other requests hold places in vain
            raise
        try:
            self._connection = await self._pool.getconn()
        except BaseException:
            self._gate.leave(self._owner)
            raise
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        """Give it back."""
        try:
            await self._pool.putconn(self._connection)
        finally:
            self._gate.leave(self._owner)


class OpenDoor:
    """An admitted request with a connection, for as long as a block runs.

    Statements check that the key is still valid. A request may fail before it reaches one, so the key is checked again
    before the error is answered.
    """

    __slots__ = ("_auth", "_body", "_connection", "_door", "_shared")

    def __init__(self, door: Door, auth: AuthContext, body: bytes | InvalidError) -> None:
        self._door = door
        self._auth = auth
        self._body = body
        self._shared = door.connection(auth.collection_id)

    async def __aenter__(self) -> Caller:
        """Take a connection and check the rest of the request.

        Raises:
            UnauthorizedError: The key is no longer valid.
            InvalidError: The body is too large or arrived too slowly, or a query parameter is unknown or missing.
            ServiceBusyError: No connection came free in time.
        """
        self._connection = await self._shared.__aenter__()
        try:
            if isinstance(self._body, InvalidError):
                raise self._body
            refuse_parameters(self._door.request)
        except InvalidError as error:
            await self.__aexit__(type(error), error, None)
            raise
        return Caller(self._door.request, self._door.services, self._connection, self._auth, self._body)

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Check the key again after an error, and give the connection back.

        Raises:
            UnauthorizedError: The key is no longer valid.
        """
        try:
            if isinstance(error, RoutinesError):
                await self._door.services.keys.confirm(self._connection, _bearer(self._door.request))
        finally:
            await self._shared.__aexit__()


@asynccontextmanager
async def place_of(gate: FairGate, owner: Hashable) -> AsyncGenerator[None]:
    """Hold a place of a gate, waiting ROOM_SECONDS for one.

    Raises:
        CollectionBusyError: None became free in time, and the owner holds some.
        ServiceBusyError: None became free in time, and the owner holds none.
    """
    await _enter(gate, owner)
    try:
        yield
    finally:
        gate.leave(owner)


async def _enter(gate: FairGate, owner: Hashable) -> None:
    try:
        await gate.enter(owner, ROOM_SECONDS)
    except GateFullError:
        if gate.held_by(owner):
            raise CollectionBusyError("The collection has too many requests in progress.") from None
        raise ServiceBusyError("The service has too many requests in progress.") from None


def provide_door(request: ApiRequest) -> Door:
    """Return the door of this request."""
    state = request.app.state
    return Door(request, state.services, state.pool)


async def provide_auth(request: ApiRequest) -> AuthContext:
    """Return the key of an admitted request: see Door.admit.

    For handlers with a door and query parameters, which are parsed after this.
    """
    return await provide_door(request).admit()


async def provide_caller(request: ApiRequest) -> AsyncGenerator[Caller]:
    """Yield the caller of this request: see Door.

    The body is read before the connection is taken, so a slow client holds none.
    """
    door = provide_door(request)
    auth = await door.admit()
    if request.method == "GET":
        async with door.open(auth) as caller:
            yield caller
        return
    async with door.body(auth) as body, door.open(auth, body) as caller:
        yield caller


def _bearer(request: ApiRequest) -> str:
    # Read from the scope, because `request.headers` decodes all of them.
    text = next((text for name, text in request.scope["headers"] if name == b"authorization"), b"")
    scheme, _, token = text.decode("latin-1").partition(" ")
    if scheme.lower() != "bearer":
        raise UnauthorizedError
    return token.strip()


def _is_foreign(request: ApiRequest, auth: AuthContext) -> bool:
    """Check whether the path names another collection, or something that no collection can have."""
    names = request.path_params
    if names.get("collection", auth.collection_name) != auth.collection_name:
        return True
    return any("\0" in str(name) for name in names.values())  # Postgres accepts no text with NUL


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


def _declared_size(request: ApiRequest, limit: int) -> int:
    """Return the size that the headers declare, or the maximum if they declare none; 0 without a body."""
    length = request.headers.get("content-length", "")
    if length.isdigit():
        return int(length[:20])
    return limit if "transfer-encoding" in request.headers else 0


async def read_body(request: ApiRequest, settings: Settings) -> bytes | InvalidError:
    """Read the body within its limits.

    Returns:
        The body, or the error to raise once access has been checked.
    """
    try:
        async with asyncio.timeout(settings.body_timeout_seconds):
            return await _stream(request, settings.max_body_bytes)
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
