"""The pages of the console as an ASGI application: files that are read once, and nothing else.

All files but the page itself are served below a name that is a digest of all of them, so that they never change and may
be kept for ever; the page names that digest and is asked for again each time. Paths in the page are relative, so that
it works behind a proxy that puts a prefix before it.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from html import escape
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import Any

MOUNT = "/console"
"""Where the console is; the contract is beside it, at `/api/v1`."""
INDEX = "index.html"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""What is served at all, by the end of its name."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
"""Nothing from elsewhere, nothing inline, in no frame, and no text ever becomes markup."""
_GUARDS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"
_NO_SUCH_PAGE = b"There is no such page of the console: it begins at /console/\n"

Headers = Iterable[tuple[bytes, bytes]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Page:
    """A file as it is sent.

    Attributes:
        caching: What Cache-Control says.
    """

    content: bytes
    media_type: str
    caching: str

    @property
    def etag(self) -> str:
        """Changes with the content."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


class Console:
    """The console of one process; its files are read when it is made."""

    def __init__(self) -> None:
        files = dict(sorted(_read(resources.files("routines_console").joinpath("static"))))
        build = hashlib.sha256(b"\0".join(name.encode() + b"\0" + text for name, text in files.items())).hexdigest()[
            :16
        ]
        page = _page(files.pop(INDEX).decode(), build, files)
        self._pages = {f"{MOUNT}/": Page(page, MEDIA_TYPES[".html"], _ASK_AGAIN)}
        for name, content in files.items():
            media_type = MEDIA_TYPES[PurePosixPath(name).suffix]
            self._pages[f"{MOUNT}/{build}/{name}"] = Page(content, media_type, _FOR_EVER)

    @staticmethod
    def serves(method: str, path: str) -> bool:
        """Whether a request is the console's to answer."""
        return method in {"GET", "HEAD"} and (path == MOUNT or path.startswith(f"{MOUNT}/"))

    @property
    def paths(self) -> list[str]:
        """All that is there, the page first."""
        return list(self._pages)

    async def __call__(self, scope: MutableMapping[str, Any], _receive: object, send: Send) -> None:
        """Answer a request that it serves."""
        status, headers, content = self._answer(scope["path"], dict(scope["headers"]))
        await send({"type": "http.response.start", "status": status, "headers": [*_GUARDS, *headers]})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})

    def _answer(self, path: str, headers: dict[bytes, bytes]) -> tuple[int, Headers, bytes]:
        if path == MOUNT:
            return 308, [(b"location", f"{MOUNT[1:]}/".encode()), (b"content-length", b"0")], b""
        page = self._pages.get(path)
        if page is None:
            return 404, _headers("text/plain; charset=utf-8", "no-store", _NO_SUCH_PAGE), _NO_SUCH_PAGE
        etag = (b"etag", page.etag.encode())
        if page.etag in headers.get(b"if-none-match", b"").decode("latin-1"):
            return 304, [etag, (b"cache-control", page.caching.encode())], b""
        return 200, [etag, *_headers(page.media_type, page.caching, page.content)], page.content


def _headers(media_type: str, caching: str, content: bytes) -> Headers:
    return [
        (b"content-type", media_type.encode()),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", caching.encode()),
    ]


def _read(directory: Traversable, prefix: str = "") -> Iterable[tuple[str, bytes]]:
    """The files below a directory that are to be served, by their paths from there."""
    for entry in directory.iterdir():
        name = prefix + entry.name
        if entry.is_dir():
            yield from _read(entry, f"{name}/")
        elif PurePosixPath(name).suffix in MEDIA_TYPES:
            yield name, entry.read_bytes()


def _page(template: str, build: str, files: Iterable[str]) -> bytes:
    """The page with the digest in its paths, and with all modules named, so that they are fetched side by side."""
    modules = [f"{build}/{name}" for name in files if name.endswith(".js")]
    links = "\n".join(f'<link rel="modulepreload" href="{escape(module)}">' for module in modules)
    return template.replace("{{build}}", build).replace("<!-- modules -->", links).encode()
