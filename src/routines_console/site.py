"""Serves the console's static files as an ASGI application; the files are read once, at startup.

Every file except the page itself has a URL that contains a digest of all files, so browsers may cache it forever. The
page names the current digest and is revalidated on each load. Paths in the page are relative, so the console also works
behind a proxy that adds a prefix.
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
"""The console's path; the API is next to it, at `/api/v1`."""
INDEX = "index.html"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""The media types of the files that are served, by suffix; other files are not served."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
"""Allows the console's own files only: no other origins, no inline code, no frames, and no text turned into markup."""
_GUARDS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_FOREVER = "public, max-age=31536000, immutable"
_REVALIDATE = "no-cache"
_NOT_FOUND = b"Page not found. The console starts at /console/\n"

Headers = Iterable[tuple[bytes, bytes]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Page:
    """A file and how to send it.

    Attributes:
        caching: The value of the Cache-Control header.
    """

    content: bytes
    media_type: str
    caching: str

    @property
    def etag(self) -> str:
        """Return a tag that changes with the content. A weak one, because answers may be compressed."""
        return f'W/"{hashlib.sha256(self.content).hexdigest()[:32]}"'


class Console:
    """The console of one process; creating it reads the files."""

    def __init__(self) -> None:
        files = dict(sorted(_read(resources.files("routines_console").joinpath("static"))))
        build = hashlib.sha256(b"\0".join(name.encode() + b"\0" + text for name, text in files.items())).hexdigest()[
            :16
        ]
        page = _page(files.pop(INDEX).decode(), build, files)
        self._pages = {f"{MOUNT}/": Page(page, MEDIA_TYPES[".html"], _REVALIDATE)}
        for name, content in files.items():
            media_type = MEDIA_TYPES[PurePosixPath(name).suffix]
            self._pages[f"{MOUNT}/{build}/{name}"] = Page(content, media_type, _FOREVER)

    @staticmethod
    def serves(method: str, path: str) -> bool:
        """Return whether the console answers this request."""
        return method in {"GET", "HEAD"} and (path == MOUNT or path.startswith(f"{MOUNT}/"))

    @property
    def paths(self) -> list[str]:
        """Return the paths of all files, the page first."""
        return list(self._pages)

    async def __call__(self, scope: MutableMapping[str, Any], _receive: object, send: Send) -> None:
        """Answer a request for which `serves` returned True."""
        status, headers, content = self._answer(scope["path"], dict(scope["headers"]))
        await send({"type": "http.response.start", "status": status, "headers": [*_GUARDS, *headers]})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})

    def _answer(self, path: str, headers: dict[bytes, bytes]) -> tuple[int, Headers, bytes]:
        if path == MOUNT:
            return 308, [(b"location", f"{MOUNT[1:]}/".encode()), (b"content-length", b"0")], b""
        page = self._pages.get(path)
        if page is None:
            return 404, _headers("text/plain; charset=utf-8", "no-store", _NOT_FOUND), _NOT_FOUND
        etag = (b"etag", page.etag.encode())
        if page.etag.removeprefix("W/") in headers.get(b"if-none-match", b"").decode("latin-1"):
            return 304, [etag, (b"cache-control", page.caching.encode())], b""
        return 200, [etag, *_headers(page.media_type, page.caching, page.content)], page.content


def _headers(media_type: str, caching: str, content: bytes) -> Headers:
    return [
        (b"content-type", media_type.encode()),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", caching.encode()),
    ]


def _read(directory: Traversable, prefix: str = "") -> Iterable[tuple[str, bytes]]:
    """Yield the files to serve below a directory: relative path and content."""
    for entry in directory.iterdir():
        name = prefix + entry.name
        if entry.is_dir():
            yield from _read(entry, f"{name}/")
        elif PurePosixPath(name).suffix in MEDIA_TYPES:
            yield name, entry.read_bytes()


def _page(template: str, build: str, files: Iterable[str]) -> bytes:
    """Return the page with the digest in its paths and with links that preload all modules in parallel."""
    modules = [f"{build}/{name}" for name in files if name.endswith(".js")]
    links = "\n".join(f'<link rel="modulepreload" href="{escape(module)}">' for module in modules)
    return template.replace("{{build}}", build).replace("<!-- modules -->", links).encode()
