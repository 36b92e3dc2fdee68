"""Activities that send HTTP requests, through the guarded client, which does not connect to private addresses."""

import re
import time
from typing import Annotated, Any, Literal
from urllib.parse import unquote_plus

import httpx
import msgspec
from msgspec import Meta

from routines_core import signatures
from routines_core.errors import InvalidError, RoutinesError, TransientError
from routines_core.guarded_http import UnknownHostError, guarded_client
from routines_core.kept_answer import kept_answer
from routines_workflow.activity import AnsweredError, StepContext, activity

DEFAULT_SECONDS = 30.0
"""Timeout of a request if the step's config sets none."""
MAX_ANSWER_BYTES = 400 * 1024
"""Maximum size of a response; both as text and as JSON it must fit into a step's outputs."""
MAX_REDIRECTS = 5
_WORTH_ANOTHER_TRY = frozenset({408, 409, 425, 429})
"""Statuses that may be temporary; every other 4xx means that the request itself is wrong."""

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
StatusCode = Annotated[int, Meta(ge=100, le=599)]

_NOT_MADE: dict[type[Exception], str] = {
    httpx.InvalidURL: "the URL is not valid: check its host, port and characters",
    httpx.UnsupportedProtocol: "the URL is neither http nor https",
    httpx.LocalProtocolError: "the name or value of a header is not valid",
    UnicodeEncodeError: "a header contains a character outside ASCII",
}
_NO_RESPONSE: dict[type[Exception], str] = {
    UnknownHostError: "the host cannot be resolved",
    httpx.ConnectTimeout: "no connection in time",
    httpx.TimeoutException: "no complete response in time",
    httpx.ConnectError: "no connection, or a certificate that is not trusted",
    httpx.RemoteProtocolError: "the response is not valid HTTP, has too many headers, or was cut off",
    httpx.NetworkError: "the connection was lost",
}
"""Our own messages: those of the libraries may quote part of a secret, which masking would not find."""

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SET_BY_THE_CLIENT = {
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
"""Headers that control where a request ends, which host it is for, or what a proxy does with the connection. A step
that could set them could smuggle a second request past a proxy, or reach another host behind it."""


class UnexpectedStatusError(AnsweredError):
    """The response has a status that was not expected."""


class RefusedRequestError(AnsweredError, InvalidError):
    """The response has a status that says that the request itself is wrong."""


class RequestFailedError(RoutinesError):
    """There was no response, or it cannot be used."""


class NoResponseError(RequestFailedError, TransientError):
    """There was no response."""


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """A request and the expected responses."""

    url: Annotated[str, Meta(description="The URL, http or https.", min_length=1)]
    method: Annotated[Method, Meta(description="The method.")] = "GET"
    headers: Annotated[
        dict[str, str], Meta(description="Headers by name; not those of the connection itself, such as Host.")
    ] = {}
    params: Annotated[
        dict[str, Any], Meta(description="Query parameters to add to the URL; an array adds one per item.")
    ] = {}
    json: Annotated[Any, Meta(description="Body, sent as JSON; null: no JSON body.")] = None
    body: Annotated[str | None, Meta(description="Body as text; cannot be combined with json.")] = None
    expected_status: Annotated[
        list[StatusCode] | None, Meta(description="Statuses that count as success; null: 200 to 299.")
    ] = None
    follow_redirects: Annotated[bool, Meta(description=f"Whether to follow redirects, up to {MAX_REDIRECTS}.")] = False


class Answer(msgspec.Struct):
    """The response."""

    status: Annotated[int, Meta(description="The status.")]
    headers: Annotated[dict[str, str], Meta(description="Headers by name, in lower case.")]
    text: Annotated[str, Meta(description="The body as text.")]
    json: Annotated[Any, Meta(description="The body parsed as JSON; null if it is not JSON.")]
    url: Annotated[str, Meta(description="Final URL, after redirects.")]


class Notification(msgspec.Struct, forbid_unknown_fields=True):
    """A JSON body and its receiver."""

    url: Annotated[str, Meta(description="The URL, http or https.", min_length=1)]
    payload: Annotated[Any, Meta(description="The body, sent as JSON.")]
    secret: Annotated[
        str | None, Meta(description="Signs the body (X-Mise-Signature, webhook-signature); null: unsigned.")
    ] = None


class Notified(msgspec.Struct):
    """The receiver's response."""

    status: Annotated[int, Meta(description="Status of the response.")]
    idempotency_key: Annotated[str, Meta(description="Key by which the receiver can recognize repetitions.")]


@activity("Sends an HTTP request and returns the response.", Request, category="http")
async def http_request(given: Request, context: StepContext) -> Answer:
    """Send the request.

    Raises:
        InvalidError: The request is invalid, sets a header of the connection, leads to a private address, or got a 4xx
            that a retry would not change.
        UnexpectedStatusError: The response has another status that was not expected.
        RequestFailedError: There was no response, or it is too large or cannot be decompressed.
    """
    _refuse_headers(given.headers)
    if given.json is not None and given.body is not None:
        raise InvalidError("json and body: give only one of them")
    content = given.body if given.json is None else msgspec.json.encode(given.json).decode()
    headers = given.headers
    if given.json is not None and "content-type" not in map(str.lower, headers):
        headers = {**headers, "Content-Type": "application/json"}
    if "traceparent" not in map(str.lower, headers):
        headers = {**headers, **_trace_headers(context)}
    seconds = context.timeout_seconds or DEFAULT_SECONDS
    async with guarded_client(
        allow_private=context.allow_private, timeout_seconds=seconds, max_answer_bytes=MAX_ANSWER_BYTES
    ) as client:
        answer = await _sent(client, given, headers, content)
    _expect(answer, given.expected_status, context)
    if answer.extensions.get("undecodable"):
        raise RequestFailedError("the response has an unknown or broken compression")
    return Answer(
        answer.status_code, dict(answer.headers), answer.text, _json(answer), _shown(answer.url, given, context)
    )


@activity("Posts JSON to a URL, signed if a secret is given.", Notification, category="http")
async def webhook_notify(given: Notification, context: StepContext) -> Notified:
    """Post the payload; the receiver must answer with a status from 200 to 299.

    Raises:
        InvalidError: The URL is invalid, leads to a private address, or got a 4xx that a retry would not change.
        UnexpectedStatusError: The response has another status that was not expected.
        RequestFailedError: There was no response.
    """
    key = context.idempotency_key
    body = msgspec.json.encode(given.payload)
    headers = signatures.headers(
        event_id=key,
        trajectory_id=int(context.workflow_id.rpartition("--")[2]),
        timestamp=int(time.time()),
        body=body,
        secret=given.secret,
    )
    request = Request(given.url, method="POST")
    seconds = context.timeout_seconds or DEFAULT_SECONDS
    async with guarded_client(allow_private=context.allow_private, timeout_seconds=seconds) as client:
        sent = {**headers, **_trace_headers(context), "Idempotency-Key": key}
        answer = await _sent(client, request, sent, body.decode())
    _expect(answer, None, context)
    return Notified(answer.status_code, key)


def _trace_headers(context: StepContext) -> dict[str, str]:
    """Return the header by which the receiver continues the trace, if there is one."""
    return {"traceparent": context.traceparent} if context.traceparent else {}


async def _sent(
    client: httpx.AsyncClient, given: Request, headers: dict[str, str], content: str | None
) -> httpx.Response:
    """Send the request, follow redirects if wanted, and return the response."""
    try:
        url = httpx.URL(given.url)
        if url.scheme not in {"http", "https"} or not url.host:
            raise InvalidError("url: must be an http or https URL")
        request = client.build_request(
            given.method, url.copy_merge_params(given.params) if given.params else url, headers=headers, content=content
        )
        answer = await client.send(request)
        for _ in range(MAX_REDIRECTS if given.follow_redirects else 0):
            if answer.next_request is None:
                break
            answer = await client.send(_redirected(answer, answer.next_request, headers))
    except tuple(_NOT_MADE) as error:
        raise InvalidError(f"the request cannot be made: {_reason(error, _NOT_MADE)}") from None
    except httpx.HTTPError as error:
        raise NoResponseError(f"no response: {_reason(error, _NO_RESPONSE)}") from None
    return answer


def _reason(error: Exception, reasons: dict[type[Exception], str]) -> str:
    return next((reason for kind, reason in reasons.items() if isinstance(error, kind)), type(error).__name__)


def _refuse_headers(headers: dict[str, str]) -> None:
    """Refuse headers that the client sets itself, and control characters, which the library lets through."""
    for name, value in headers.items():
        if _CONTROL.search(value):
            raise InvalidError(f"the request cannot be made: {_NOT_MADE[httpx.LocalProtocolError]}")
        if (known := name.strip().lower()) in _SET_BY_THE_CLIENT:
            raise InvalidError(f"headers: {known} cannot be set, because it controls the connection")


def _shown(url: httpx.URL, given: Request, context: StepContext) -> str:
    """Return the final URL, or a mask if it contains a secret, since URLs may spell it in other ways."""
    is_secret = context.mask([given.url, given.params]) != [given.url, given.params]
    if is_secret and (url.host == httpx.URL(given.url).host):
        return str(context.mask(given.url))
    text = str(url)
    decoded = unquote_plus(text)
    masked = context.mask(decoded)
    return text if masked == decoded else str(masked)


def _redirected(answer: httpx.Response, following: httpx.Request, given: dict[str, str]) -> httpx.Request:
    """Build the next request; drop the step's headers if the origin changes, since they may contain an API key."""
    if _origin(following.url) != _origin(answer.url):
        for name in given:
            if name.lower() not in {"content-type", "accept"} and name in following.headers:
                del following.headers[name]
    return following


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _expect(answer: httpx.Response, expected: list[int] | None, context: StepContext) -> None:
    """Refuse a status that is not expected, and a response that is too large.

    Raises:
        RefusedRequestError: The status says that the request itself is wrong.
        UnexpectedStatusError: Another status.
        RequestFailedError: The status is expected, but the response is too large.
    """
    status = answer.status_code
    if status in expected if expected is not None else 200 <= status < 300:  # noqa: PLR2004 - HTTP statuses
        if answer.extensions.get("truncated"):
            raise RequestFailedError("the response is too large")
        return
    wanted = " or ".join(map(str, expected)) if expected else "200 to 299"
    sentence = f"the response has the status {status}, not {wanted}"
    kept = kept_answer(answer, context.mask)
    if 400 <= status < 500 and status not in _WORTH_ANOTHER_TRY:  # noqa: PLR2004 - HTTP statuses
        raise RefusedRequestError(sentence, kept)
    raise UnexpectedStatusError(sentence, kept)


def _json(answer: httpx.Response) -> Any:
    try:
        return msgspec.json.decode(answer.content)
    except (msgspec.DecodeError, RecursionError):
        return None
