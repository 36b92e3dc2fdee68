"""Answers are compressed where the client accepts gzip and the answer is large enough."""

import gzip
from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_api.http import large_answers
from routines_api.http.compression import IN_THREAD_BYTES, MINIMUM_BYTES, accepts_gzip
from routines_core.db import Connection

Client = AsyncTestClient[Any]
TASKS, CONSOLE = "/api/v1/tasks/my-org/", "/console/"


async def raw(client: Client, path: str, encoding: str) -> tuple[dict[str, str], bytes]:
    """Return headers and bytes as they were sent, without the client's own decompression."""
    async with client.stream("GET", path, headers={"Accept-Encoding": encoding}) as answer:
        content = b"".join([piece async for piece in answer.aiter_raw()])
        return dict(answer.headers), content


async def described(client: Client, characters: int) -> None:
    made = await client.put(f"{TASKS}echo", json={"description": "ab" * (characters // 2)})
    assert made.status_code == 200


@pytest.mark.parametrize("characters", [2 * MINIMUM_BYTES, IN_THREAD_BYTES])
async def test_a_large_answer_is_compressed_for_who_accepts_it(client: Client, characters: int) -> None:
    await described(client, characters)
    plain_headers, plain = await raw(client, TASKS, "identity")
    headers, compressed = await raw(client, TASKS, "br, gzip")
    assert "content-encoding" not in plain_headers
    assert (headers["content-encoding"], headers["vary"]) == ("gzip", "accept-encoding")
    assert int(headers["content-length"]) == len(compressed) < len(plain) / 3
    assert gzip.decompress(compressed) == plain


async def test_a_small_answer_is_sent_as_it_is(client: Client) -> None:
    headers, content = await raw(client, "/api/v1/health", "gzip")
    assert "content-encoding" not in headers
    assert content == b'{"status":"ok"}'


async def test_an_answer_in_pieces_is_compressed(
    client: Client, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_answers, "PIECE_CHARACTERS", 100_000)
    run = (await client.post("/api/v1/run/my-org/echo")).json()["trajectory_id"]
    await connection.execute(
        """INSERT INTO routines.steps
               (trajectory_id, name, position, fence, status, activity, inputs, outputs, ended_at)
           VALUES (%s, 's', 0, 1, 'completed', 'a', '{}', jsonb_build_object('text', repeat('ab', 250000)), now())""",
        [run],
    )
    path = f"/api/v1/db/trajectory/my-org/echo/{run}"
    _, plain = await raw(client, path, "identity")
    headers, compressed = await raw(client, path, "gzip")
    assert headers["content-encoding"] == "gzip"
    assert len(compressed) < len(plain) / 50
    assert gzip.decompress(compressed) == plain


async def test_an_overview_takes_at_most_75_bytes_for_a_routine(client: Client, connection: Connection) -> None:
    """So its headline, which comes with the first thousand, takes a quarter of 300 KB. Times have microseconds."""
    await connection.execute(
        """WITH made AS (
               INSERT INTO routines.routines (
                   collection_id, task_id, name, cadence_type, hour_utc, minute_utc, last_run_at)
               SELECT collection_id, id, 'refresh-orders-' || n, 'daily', mod(n, 24), mod(n * 7, 60),
                      now() - random() * interval '1 day'
               FROM routines.tasks, generate_series(1, 1000) AS n
               RETURNING id, collection_id, task_id, last_run_at)
           INSERT INTO routines.trajectories (
               collection_id, task_id, task_version, triggered_by_routine_id, trigger, scheduled_for, init_params,
               status, created_at, started_at, ended_at)
           SELECT collection_id, task_id, 1, id, 'schedule', date_trunc('minute', last_run_at), '{}', 'completed',
                  last_run_at, last_run_at, last_run_at + random() * interval '90 seconds'
           FROM made"""
    )
    ids = [each["id"] for each in (await client.get("/api/v1/routines/my-org")).json()]
    assert len(ids) == 1000
    parts = [",".join(map(str, part)) for part in (ids[:500], ids[500:])]
    paths = ["/api/v1/routines/my-org", *(f"/api/v1/db/outcomes/my-org?slots=1&ids={part}" for part in parts)]
    assert sum([len((await raw(client, path, "gzip"))[1]) for path in paths]) <= 75 * 1000


async def test_the_console_is_compressed_and_still_revalidated(client: Client) -> None:
    headers, content = await raw(client, CONSOLE, "gzip")
    assert headers["content-encoding"] == "gzip"
    assert gzip.decompress(content).startswith(b"<!doctype html>")
    again = await client.get(CONSOLE, headers={"If-None-Match": headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize(
    ("encoding", "is_accepted"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("br , gzip ; q=1", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("xgzip", False),
        ("identity", False),
        ("", False),
    ],
)
def test_only_a_header_with_gzip_accepts_it(encoding: str, *, is_accepted: bool) -> None:
    assert accepts_gzip([(b"host", b"gzip"), (b"accept-encoding", encoding.encode())]) == is_accepted
