"""Each limit, tried one below, at and one above it, and the rate across several processes."""

import asyncio
import json
import time
from collections.abc import Generator
from contextlib import AsyncExitStack, ExitStack
from typing import Any, NamedTuple

import httpx
import pytest

from api.hostile.message import KEPT, KEY, ROUTINES, TASKS, request
from routines_api.http.rate_limiter import HANDFUL_SHARE
from support.rows import Database
from support.sampling import sample
from support.serving import TASK, Answer, ApiProcess, api_process, new_key, send

BODY, HEADERS, DEPTH, STRING, ITEMS = 8192, 4096, 5, 3000, 100
OK, CREATED, INVALID, TOO_LARGE, HEADERS_TOO_LARGE = 200, 201, 400, 413, 431


@pytest.fixture(scope="module")
def api(shared: Database, key: str) -> Generator[ApiProcess]:
    """A process with small limits, and the routine `kept`."""
    limits: dict[str, Any] = {
        "max_body_bytes": BODY,
        "max_header_bytes": HEADERS,
        "max_json_depth": DEPTH,
        "max_string_length": STRING,
        "max_items": ITEMS,
    }
    with api_process(shared.url, **limits) as process:
        with process.client(key) as client:
            assert client.post(TASKS, json={"name": "echo", "workflow": TASK}).status_code == CREATED
            kept = {"name": "kept", "cadence": {"type": "manual"}}
            assert client.post(ROUTINES, json=kept).status_code == CREATED
        yield process


def patch(api: ApiProcess, key: str, body: Any) -> Answer:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return send(api, request("PATCH", KEPT, body=encoded).replace(KEY, key.encode()))


def refused(answer: Answer, limit: int) -> bool:
    """Return whether the answer names the limit."""
    return str(limit) in json.loads(answer.content)["detail"]


@pytest.mark.parametrize(("size", "status"), [(BODY - 1, OK), (BODY, OK), (BODY + 1, TOO_LARGE)])
@pytest.mark.parametrize("framing", sample(["length", "chunks"], 1))
def test_the_limit_of_bytes_in_a_body(api: ApiProcess, key: str, size: int, status: int, framing: str) -> None:
    body = b'{"paused": false}'.ljust(size)
    if framing == "chunks":
        head = request("PATCH", KEPT, headers={"Transfer-Encoding": "chunked", "Content-Type": "application/json"})
        answer = send(api, head.replace(KEY, key.encode()) + b"%x\r\n%s\r\n0\r\n\r\n" % (size, body))
    else:
        answer = patch(api, key, body)
    assert answer.status == status
    assert status == OK or refused(answer, BODY)


@pytest.mark.parametrize(("size", "status"), [(HEADERS - 1, OK), (HEADERS, OK), (HEADERS + 1, HEADERS_TOO_LARGE)])
def test_the_limit_of_bytes_in_all_header_names_and_values(api: ApiProcess, key: str, size: int, status: int) -> None:
    others = "HostlocalhostConnectioncloseAuthorizationBearer X-Pad" + key
    message = request("GET", KEPT, headers={"X-Pad": "a" * (size - len(others))})
    answer = send(api, message.replace(KEY, key.encode()))
    assert answer.status == status
    assert status == OK or refused(answer, HEADERS)


@pytest.mark.parametrize(("depth", "status"), [(DEPTH - 1, OK), (DEPTH, OK), (DEPTH + 1, INVALID)])
def test_the_limit_of_levels_in_json(api: ApiProcess, key: str, depth: int, status: int) -> None:
    value: list[Any] = []
    for _ in range(depth - 3):  # two levels for the body and the overrides, one for the innermost array
        value = [value]
    answer = patch(api, key, {"init_params_overrides": {"text": value}})
    assert answer.status == status
    assert status == OK or refused(answer, DEPTH)


@pytest.mark.parametrize(("length", "status"), [(STRING - 1, OK), (STRING, OK), (STRING + 1, INVALID)])
@pytest.mark.parametrize("character", ["a", "\u00e9", "\U0001f4a9"])
def test_the_limit_of_characters_in_a_string(
    api: ApiProcess, key: str, length: int, status: int, character: str
) -> None:
    body = json.dumps({"init_params_overrides": {"text": character * length}}, ensure_ascii=False).encode()
    if len(body) > BODY:
        body = json.dumps(
            {"init_params_overrides": {"text": "a" * (length - 1) + character}}, ensure_ascii=False
        ).encode()
    answer = patch(api, key, body)
    assert answer.status == status
    assert status == OK or refused(answer, STRING)


@pytest.mark.parametrize(("length", "status"), [(STRING - 1, OK), (STRING, OK), (STRING + 1, INVALID)])
def test_the_limit_of_characters_in_an_object_key(api: ApiProcess, key: str, length: int, status: int) -> None:
    assert patch(api, key, {"init_params_overrides": {"text": {"a" * length: 1}}}).status == status


@pytest.mark.parametrize(("items", "status"), [(ITEMS - 1, OK), (ITEMS, OK), (ITEMS + 1, INVALID)])
def test_the_limit_of_items_in_an_array_or_object(api: ApiProcess, key: str, items: int, status: int) -> None:
    for value in ([0] * items, {f"k{n}": n for n in range(items)}):
        answer = patch(api, key, {"init_params_overrides": {"text": value}})
        assert answer.status == status
        assert status == OK or refused(answer, ITEMS)


LISTS = [(ROUTINES, 1000), ("/api/v1/routines/my-org", 1000), (TASKS, 1000), (f"{KEPT}/runs", 100)]
LISTS += [("/api/v1/db/trajectories/my-org/echo", 100)]


@pytest.mark.parametrize(("path", "most"), LISTS)
def test_the_bounds_of_limit_in_lists(api: ApiProcess, key: str, path: str, most: int) -> None:
    with api.client(key) as client:
        found = {
            limit: client.get(path, params={"limit": limit}).status_code for limit in (0, 1, most - 1, most, most + 1)
        }
    assert found == {0: INVALID, 1: OK, most - 1: OK, most: OK, most + 1: INVALID}


def test_the_bounds_of_page_in_lists(api: ApiProcess, key: str) -> None:
    with api.client(key) as client:
        pages = (0, 1, 999_999, 1_000_000, 1_000_001)
        found = [client.get("/api/v1/db/trajectories/my-org/echo", params={"page": page}).status_code for page in pages]
    assert found == [INVALID, OK, OK, OK, INVALID]


@pytest.mark.parametrize(
    ("length", "status"), [(0, INVALID), (1, CREATED), (99, CREATED), (100, CREATED), (101, INVALID)]
)
def test_the_limit_of_characters_in_a_slug(api: ApiProcess, key: str, length: int, status: int) -> None:
    with api.client(key) as client:
        name = "a" * length
        assert client.post(ROUTINES, json={"name": name, "cadence": {"type": "manual"}}).status_code == status
        assert client.post(TASKS, json={"name": name, "workflow": TASK}).status_code == status


@pytest.mark.parametrize(("length", "status"), [(2047, OK), (2048, OK), (2049, INVALID)])
def test_the_limit_of_characters_in_a_webhook_url(api: ApiProcess, key: str, length: int, status: int) -> None:
    assert patch(api, key, {"webhook_url": "https://example.com/".ljust(length, "a")}).status == status


@pytest.mark.parametrize(("length", "status"), [(0, INVALID), (1, OK), (99, OK), (100, OK), (101, INVALID)])
def test_the_limit_of_characters_in_the_name_of_a_secret(api: ApiProcess, key: str, length: int, status: int) -> None:
    assert patch(api, key, {"secret_params": {"A" * length: "s"}}).status == status


@pytest.mark.parametrize(("length", "status"), [(0, INVALID), (1, OK), (254, OK), (255, OK), (256, INVALID)])
def test_the_limit_of_characters_in_an_idempotency_key(api: ApiProcess, key: str, length: int, status: int) -> None:
    with api.client(key) as client:
        assert client.post(f"{KEPT}/run-now", headers={"Idempotency-Key": "k" * length}).status_code == status


# --- the rate ---------------------------------------------------------------------------------------------------------

RATE, BURST, SECONDS, PROCESSES = 50, 100, 5.0, 3
HANDFUL = int(BURST * HANDFUL_SHARE)
"""The tokens that a process takes at once."""


class Asked(NamedTuple):
    """A request with its times by the monotonic clock and its status."""

    sent: float
    answered: float
    status: int


async def ask_until(client: httpx.AsyncClient, deadline: float, asked: list[Asked]) -> None:
    while (sent := time.monotonic()) < deadline:
        status = (await client.get(KEPT)).status_code
        asked.append(Asked(sent, time.monotonic(), status))


async def ask_all(processes: list[ApiProcess], key: str) -> list[Asked]:
    """Send requests with one key to all processes as fast as they answer."""
    asked: list[Asked] = []
    headers = {"Authorization": f"Bearer {key}"}
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=process.url, headers=headers, timeout=30))
            for process in processes
            for _ in range(4)
        ]
        deadline = time.monotonic() + SECONDS
        await asyncio.gather(*(ask_until(client, deadline, asked) for client in clients))
        return asked


def test_the_rate_of_a_key_holds_across_three_processes_and_does_not_affect_other_keys(
    shared: Database, api: ApiProcess
) -> None:
    """A key gets `burst` requests at first and `rate` per second afterwards, however slow the machine is.

    Upper bound: the tokens that the bucket can have held between the first request and the last answer. Lower bound: at
    a refusal the bucket was empty, except for tokens that processes had taken and not used, so the rest was granted.
    """
    greedy, modest = new_key(shared, "my-org"), new_key(shared, "my-org")
    with ExitStack() as stack:
        limits = {"rate_per_second": RATE, "rate_burst": BURST}
        processes = [stack.enter_context(api_process(shared.url, **limits)) for _ in range(PROCESSES)]
        asked = asyncio.run(ask_all(processes, greedy))
        refusal = refusal_of(processes[0], greedy)
        assert processes[0].client(modest).get(KEPT).status_code == OK
    assert {each.status for each in asked} == {OK, 429}
    granted = [each for each in asked if each.status == OK]
    longest = max(each.answered for each in asked) - min(each.sent for each in asked)
    assert len(granted) <= BURST + 1.01 * RATE * longest
    last_refusal = max(each.sent for each in asked if each.status == 429)
    shortest = last_refusal - HANDFUL / RATE - min(each.answered for each in granted)
    assert shortest > SECONDS / 2, "the requests were too slow to test the rate"
    assert len(granted) >= BURST + 0.99 * RATE * shortest - HANDFUL * (PROCESSES + 1)
    assert refusal.headers["content-type"] == "application/problem+json"
    assert int(refusal.headers["retry-after"]) >= 1
    assert "Retry-After" in refusal.json()["detail"]


def refusal_of(process: ApiProcess, key: str) -> httpx.Response:
    with process.client(key) as client:
        return next(answer for _ in range(100_000) if (answer := client.get(KEPT)).status_code == 429)
