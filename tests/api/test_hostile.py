"""A corpus of hostile requests to the real server. Each is refused, changes nothing and harms no other client."""

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from api.hostile.corpus import CORPUS
from api.hostile.message import KEPT, KEY, ROUTINES, TASKS, Hostile, request
from support.rows import Database
from support.serving import TASK, Answer, ApiProcess, api_process, contents, send

PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which the process keeps files."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def api(shared: Database, key: str, files: Path) -> Generator[ApiProcess]:
    """A process, and a routine that must not change."""
    with api_process(shared.url, files=files) as process:
        with process.client(key) as client:
            assert client.post(TASKS, json={"name": "echo", "workflow": TASK}).status_code == 201
            kept = {"name": "kept", "cadence": {"type": "manual"}}
            assert client.post(ROUTINES, json=kept).status_code == 201
        yield process


def answer_of(api: ApiProcess, key: str, hostile: Hostile) -> Answer:
    return send(api, hostile.message.replace(KEY, key.encode()))


def test_the_corpus_has_at_least_200_requests_with_distinct_names() -> None:
    assert len(CORPUS) >= 200
    assert len({hostile.name for hostile in CORPUS}) == len(CORPUS)


@pytest.mark.parametrize("hostile", CORPUS, ids=lambda hostile: hostile.name)
def test_a_hostile_request_is_refused_and_changes_nothing(
    api: ApiProcess, key: str, shared: Database, files: Path, hostile: Hostile
) -> None:
    before = contents(shared)
    answer = answer_of(api, key, hostile)
    if answer.headers.get("content-type") == PROBLEM or not hostile.may_be_cut:
        assert answer.status in hostile.statuses or (not hostile.statuses and 400 <= answer.status < 500)
        assert answer.headers["content-type"] == PROBLEM
        if not hostile.message.startswith(b"HEAD "):
            problem = json.loads(answer.content)
            assert problem["status"] == answer.status
            assert problem["detail"]
    else:  # refused by the web server itself
        assert answer.status == 0 or 400 <= answer.status < 500
    assert contents(shared) == before
    assert [path for path in files.rglob("*") if path.is_file()] == []
    assert api.is_healthy()


WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "YQ==",
    "Sec-WebSocket-Version": "13",
}
HTTP2 = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk"}
HARMLESS = {
    "HTTP/1.0": request("GET", KEPT, version="1.0"),
    "a body on GET": request("GET", KEPT, body=b'{"name": "stolen"}'),
    "an absolute target": request("GET", f"http://localhost{KEPT}"),
    "Expect": request("GET", KEPT, headers={"Expect": "100-continue"}),
    "an upgrade to WebSocket": request("GET", KEPT, headers={**WEBSOCKET}),
    "an upgrade to HTTP/2": request("GET", KEPT, headers={**HTTP2}),
    "forwarded headers": request("GET", KEPT, headers={"X-Forwarded-For": "127.0.0.1", "X-Original-URL": "/admin"}),
    "a wildcard Accept": request("GET", KEPT, headers={"Accept": "text/html;q=x, */*"}),
}


@pytest.mark.parametrize("message", HARMLESS.values(), ids=HARMLESS)
def test_an_odd_but_valid_request_is_answered_like_any_other(
    api: ApiProcess, key: str, shared: Database, message: bytes
) -> None:
    before = contents(shared)
    answer = send(api, message.replace(KEY, key.encode()))
    assert (answer.status, json.loads(answer.content)["name"]) == (200, "kept")
    assert contents(shared) == before
