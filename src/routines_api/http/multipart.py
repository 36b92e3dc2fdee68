"""Multipart and urlencoded form bodies, within limits. Files are streamed to the file store.

A form becomes the JSON value that a JSON body would be, and is then checked by the same rules.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from litestar.exceptions import InternalServerException
from multipart import (  # pyright: ignore[reportMissingTypeStubs] - it has none
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
)

from routines_api.http import json_body
from routines_api.http.access import ApiRequest, ApiServices
from routines_api.http.errors import BodyTooLargeError, MalformedBodyError, SlowBodyError
from routines_core.errors import Fault, FaultsError

MULTIPART = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"
FILES = "files"
"""The only field that takes files."""
JSON_FIELDS = frozenset({"init_params", "secret_params"})
TEXT_FIELDS = frozenset({"webhook_url", "webhook_secret"})
FIELDS = JSON_FIELDS | TEXT_FIELDS | {FILES}
_MOST_FIELDS = 20
_MOST_HEADERS = 8
_HEADER_BYTES = 4096
_LONGEST_BOUNDARY = 70
"""RFC 2046, section 5.1.1."""
_BOUNDARY = re.compile(r""";\s*boundary=("[^"]*"|[^;\s"]*)""", re.IGNORECASE)

Event = MultipartSegment | bytes | None
"""An event of the parser: the start of a part, a piece of its content, or None at its end."""


@dataclass
class Upload:
    """The content of a form.

    Attributes:
        texts: The fields that are not files, in the order received.
        paths: The paths of the stored files, in the order received.
        digests: The name and SHA-256 of each file.
        file_bytes: The size of all files, in bytes.
        is_used: Whether a run uses the files, so that they must be kept.
    """

    texts: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    paths: list[str] = field(default_factory=list[str])
    digests: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    file_bytes: int = 0
    is_used: bool = False

    @property
    def content(self) -> bytes:
        """Boundary-independent content, hashed for the Idempotency-Key. Its prefix is not valid JSON."""
        return b"form\0" + msgspec.json.encode([self.texts, self.digests])


@asynccontextmanager
async def received(request: ApiRequest, services: ApiServices, collection_id: int) -> AsyncGenerator[Upload]:
    """Receive a multipart body and store its files. At the end of the block they are deleted unless a run uses them.

    Raises:
        MalformedBodyError: It is not a valid multipart form, or it ended early.
        BodyTooLargeError: It is over a limit.
        SlowBodyError: It did not arrive in time.
        FaultsError: A field is unknown.
        StorageError: The files cannot be stored.
    """
    upload = Upload()
    try:
        async with asyncio.timeout(services.settings.upload_timeout_seconds):
            await _Receiver(services, collection_id, upload).receive(request)
        yield upload
    except TimeoutError:
        limit = services.settings.upload_timeout_seconds
        raise SlowBodyError(f"The body did not arrive within {limit:g} s.") from None
    finally:
        if not upload.is_used:
            for path in upload.paths:
                await services.files.delete(collection_id, path)


@dataclass
class _Receiver:
    services: ApiServices
    collection_id: int
    upload: Upload
    _text_bytes: int = 0

    async def receive(self, request: ApiRequest) -> None:
        events = _events(request, self.services)
        try:
            async for event in events:
                if isinstance(event, MultipartSegment):
                    await self._part(event, events)
        except ParserLimitReached:
            raise BodyTooLargeError("The form has too many parts, or the headers of a part are too large.") from None
        except MultipartError as error:
            raise MalformedBodyError(f"The body is not a valid multipart form: {error.args[0]}.") from None
        except InternalServerException:  # raised by Litestar when the stream breaks
            raise MalformedBodyError("The body ended early, or its chunks are malformed.") from None
        finally:
            await events.aclose()

    async def _part(self, part: MultipartSegment, events: AsyncGenerator[Event]) -> None:
        name = part.name or ""
        if name not in FIELDS:
            raise FaultsError([Fault(name[:100], "unknown field")])
        if name == FILES and part.filename is not None:
            await self._file(part.filename, events)
        else:
            self.upload.texts.append((name, await self._text(name, events)))

    async def _text(self, name: str, events: AsyncGenerator[Event]) -> str:
        content = bytearray()
        limit = self.services.settings.max_body_bytes
        async for piece in _pieces(await anext(events), events):
            content += piece
            self._text_bytes += len(piece)
            if self._text_bytes > limit:
                raise BodyTooLargeError(f"The fields of the form have more than {limit} bytes.")
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise MalformedBodyError(f"{name}: is not valid UTF-8.", name) from None

    async def _file(self, filename: str, events: AsyncGenerator[Event]) -> None:
        first = await anext(events)
        if not isinstance(first, bytes) and not filename:
            return  # a browser sends this for a file field that was left empty
        if len(self.upload.paths) >= self.services.settings.max_files:
            raise BodyTooLargeError(f"The form has more than {self.services.settings.max_files} files.")
        digest = hashlib.sha256()
        pieces = self._content(first, events, digest)
        self.upload.paths.append(await self.services.files.write(self.collection_id, filename, pieces))
        self.upload.digests.append((filename, digest.hexdigest()))

    async def _content(self, first: Event, events: AsyncGenerator[Event], digest: Any) -> AsyncIterator[bytes]:
        """Yield the pieces of a file, up to the size limit."""
        limit, size = self.services.settings.max_file_bytes, 0
        async for piece in _pieces(first, events):
            size += len(piece)
            if size > limit:
                raise BodyTooLargeError(f"A file has more than {limit} bytes.")
            digest.update(piece)
            self.upload.file_bytes += len(piece)
            yield piece


async def _pieces(event: Event, events: AsyncGenerator[Event]) -> AsyncIterator[bytes]:
    """Yield the pieces of the current part, from this event until the part ends."""
    while isinstance(event, bytes):
        yield event
        event = await anext(events)


async def _events(request: ApiRequest, services: ApiServices) -> AsyncGenerator[Event]:
    limit = services.settings.max_upload_bytes
    too_large = BodyTooLargeError(f"The body is larger than {limit} bytes.")
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length[:20]) > limit:
        raise too_large
    with PushMultipartParser(
        _boundary(request),
        max_header_size=_HEADER_BYTES,
        max_header_count=_MOST_HEADERS,
        max_segment_count=services.settings.max_files + _MOST_FIELDS,
    ) as parser:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise too_large
            for event in parser.parse(chunk) if chunk else ():
                yield event


def _boundary(request: ApiRequest) -> str:
    found = _BOUNDARY.search(request.headers.get("content-type", ""))
    boundary = found[1].strip('"') if found else ""
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY or not boundary.isascii():
        raise MalformedBodyError("The Content-Type has no boundary, or one of more than 70 characters.")
    return boundary


def urlencoded_texts(body: bytes) -> list[tuple[str, str]]:
    """Parse an urlencoded form into its fields.

    Raises:
        MalformedBodyError: It is not a valid urlencoded form, or not UTF-8.
    """
    try:
        return parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError:  # also UnicodeDecodeError, a subclass
        raise MalformedBodyError("The body is not a valid urlencoded form in UTF-8.") from None


def value_of(texts: Sequence[tuple[str, str]], limits: json_body.JsonLimits) -> dict[str, Any]:
    """Convert the fields of a form to the JSON value of an equivalent JSON body. Empty fields are left out.

    Raises:
        FaultsError: A field is unknown, was sent twice, or should be a file.
        MalformedBodyError: A JSON field is not valid JSON, or a field cannot be stored.
    """
    names = [name for name, _ in texts]
    faults = [Fault(name[:100], "unknown field") for name in sorted(set(names) - FIELDS)]
    faults += [Fault(name, "was sent more than once") for name in sorted(FIELDS - {FILES}) if names.count(name) > 1]
    if any(name == FILES and text for name, text in texts):
        faults.append(Fault(FILES, f"must be files: send {MULTIPART} with a filename in each part"))
    if faults:
        raise FaultsError(faults)
    return {name: _field(name, text, limits) for name, text in texts if text and name != FILES}


def _field(name: str, text: str, limits: json_body.JsonLimits) -> Any:
    try:
        if name in JSON_FIELDS:
            return json_body.decode(text.encode(), limits)
        json_body.check(text, limits)
    except MalformedBodyError as error:
        raise MalformedBodyError(f"{name}: {str(error).replace('The body', 'it')}", name) from None
    return text
