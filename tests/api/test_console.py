"""Tests how the API serves the console: headers, caching, and that only the console's own files are served."""

import re
from collections.abc import Generator
from html.parser import HTMLParser

import httpx
import pytest

from routines_console.site import MOUNT, Console
from support.rows import Database
from support.serving import ApiProcess, api_process, send

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self' data:",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}
KEEPS_CHOICES = {"clock.js", "saved-views.js", "seen.js"}
"""Modules that keep in the browser what a person chose, and no secret: see docs/use/console.md."""
FOREIGN = re.compile(r"https?://(?!www\.w3\.org/2000/svg)\w", re.ASCII)


@pytest.fixture(scope="module")
def api(shared: Database) -> Generator[ApiProcess]:
    with api_process(shared.url) as process:
        yield process


@pytest.fixture
def client(api: ApiProcess) -> Generator[httpx.Client]:
    with api.client() as opened:
        yield opened


class PageParser(HTMLParser):
    """Collects what a page loads, and any inline code or style in it."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [text for name in ("src", "href") if (text := given.get(name))]
        self.inline += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


def parse(page: str) -> PageParser:
    parser = PageParser()
    parser.feed(page)
    return parser


@pytest.mark.parametrize("path", [MOUNT, f"{MOUNT}/", f"{MOUNT}/nothing", "page"])
def test_every_answer_carries_the_security_headers(client: httpx.Client, path: str) -> None:
    answer = client.get(Console().paths[-1] if path == "page" else path)
    given = answer.headers["content-security-policy"].split("; ")
    assert {name: rest for name, _, rest in (each.partition(" ") for each in given)} == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_the_path_redirects_to_the_page_behind_any_proxy_prefix(client: httpx.Client) -> None:
    answer = client.get(MOUNT)
    assert (answer.status_code, answer.headers["location"]) == (308, "console/")


def test_the_page_loads_existing_files_by_relative_paths_and_has_no_inline_code(client: httpx.Client) -> None:
    page = parse(client.get(f"{MOUNT}/").text)
    assert not page.inline
    assert len(page.links) > 20
    for link in page.links:
        assert not link.startswith(("/", "http"))
        assert client.get(f"{MOUNT}/{link}").status_code == 200


def test_the_page_preloads_every_module_and_all_other_files_are_cached_forever(client: httpx.Client) -> None:
    page, *files = Console().paths
    answer = client.get(page)
    assert answer.headers["cache-control"] == "no-cache"
    for path in files:
        assert client.get(path).headers["cache-control"] == "public, max-age=31536000, immutable"
        if path.endswith(".js"):
            assert f'href="{path.removeprefix(f"{MOUNT}/")}"' in answer.text


def test_an_unchanged_file_is_not_sent_again(client: httpx.Client) -> None:
    for path in Console().paths:
        etag = client.get(path).headers["etag"]
        again = client.get(path, headers={"If-None-Match": etag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert client.get(path, headers={"If-None-Match": '"another"'}).status_code == 200


def test_files_have_their_media_types(client: httpx.Client) -> None:
    types = {path.rpartition(".")[2]: client.get(path).headers["content-type"] for path in Console().paths[1:]}
    assert types == {
        "css": "text/css; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "svg": "image/svg+xml",
    }


def test_head_answers_like_get_without_the_content(client: httpx.Client) -> None:
    for path in (f"{MOUNT}/", Console().paths[-1], f"{MOUNT}/nothing"):
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert head.headers["content-length"] == str(len(got.content))


@pytest.mark.parametrize(
    "path",
    [
        "nothing",
        "index.html",
        "main.js",
        "0000000000000000/main.js",
        "../api/v1/health",
        "..",
        "../../pyproject.toml",
        "%2e%2e/site.py",
        "..%2fsite.py",
        "..%5csite.py",
        "%00",
        "{build}/../../site.py",
        "{build}/",
        "{build}",
        "{build}/index.html",
        "{build}//main.js",
        "{build}/main.js/",
        "{build}/main.js%00.css",
    ],
)
def test_other_paths_are_not_served(api: ApiProcess, path: str) -> None:
    build = Console().paths[1].split("/")[2]
    target = f"{MOUNT}/{path.format(build=build)}"
    answer = send(api, f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.status in {400, 404}
    assert b"import " not in answer.content


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_get_404(client: httpx.Client, method: str) -> None:
    assert client.request(method, f"{MOUNT}/").status_code == 404


def test_the_console_can_be_disabled(shared: Database) -> None:
    with api_process(shared.url, console=False) as process, process.client() as client:
        answer = client.get(f"{MOUNT}/")
        assert (answer.status_code, answer.json()["title"]) == (404, "Not found")


def test_no_file_names_another_origin_turns_text_into_markup_or_stores_data(client: httpx.Client) -> None:
    for path in Console().paths:
        text = client.get(path).text
        assert not FOREIGN.search(text), path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path
        )
        assert not re.search(r"document\.cookie|indexedDB", text), path
        assert "localStorage" not in text or path.rpartition("/")[2] in KEEPS_CHOICES, path


def test_modules_have_fewer_than_250_lines(client: httpx.Client) -> None:
    for path in Console().paths:
        if path.endswith(".js"):
            assert client.get(path).text.count("\n") < 250, path
