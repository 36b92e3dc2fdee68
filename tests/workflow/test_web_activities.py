"""http_request and webhook_notify against a real server on loopback."""

import base64
import gzip
import hashlib
import hmac
import json
import time
from collections.abc import Generator
from typing import Any
from urllib.parse import quote

import pytest

from routines_engine.steps.flow import StepFailedError
from routines_workflow.activities.web import MAX_ANSWER_BYTES
from support.endpoint import Asked, Endpoint, Said, serving
from support.flows import RUN_ID, FakeServices, Journal, flow_of, run_step


@pytest.fixture
def endpoint() -> Generator[Endpoint]:
    with serving() as served:
        yield served


async def ask(url: str, secrets: dict[str, str] | None = None, **config: Any) -> Any:
    services = FakeServices(secrets=secrets or {})
    return await run_step({"activity": "http_request", "url": url, **config}, allow_private=True, services=services)


async def refusal(url: str, **config: Any) -> str:
    with pytest.raises(StepFailedError) as caught:
        await ask(url, **config)
    return str(caught.value)


async def test_a_request_is_sent_as_given_and_its_response_parsed(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _: Said(201, b'{"id": 5}', {"X-Mark": "m"})
    outputs = await ask(
        endpoint.url + "/a?x=1",
        method="PUT",
        headers={"X-Own": "o"},
        params={"q": ["a b", 2], "t": True},
        json={"k": [None]},
    )
    [asked] = endpoint.asked
    assert (asked.method, asked.path, asked.body) == ("PUT", "/a?x=1&q=a+b&q=2&t=true", b'{"k":[null]}')
    assert (asked.headers["x-own"], asked.headers["content-type"]) == ("o", "application/json")
    assert (outputs["status"], outputs["text"], outputs["json"]) == (201, '{"id": 5}', {"id": 5})
    assert outputs["headers"]["x-mark"] == "m"
    assert outputs["url"] == endpoint.url + "/a?x=1&q=a+b&q=2&t=true"


async def test_a_text_body_is_sent_unchanged_and_a_response_that_is_not_json_is_text(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _: Said(200, "grün".encode(), {"Content-Type": "text/plain; charset=utf-8"})
    outputs = await ask(endpoint.url, method="POST", body="plain")
    assert (endpoint.asked[0].body, outputs["text"], outputs["json"]) == (b"plain", "grün", None)


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (400, 1), (429, 2), (500, 2), (302, 2)])
async def test_an_unexpected_status_fails_the_step_and_a_final_4xx_is_not_retried(
    endpoint: Endpoint, status: int, tries: int
) -> None:
    endpoint.answer = lambda _: Said(status)
    retry = {"max_attempts": 2, "backoff": 0}
    assert f"the response has the status {status}, not 200 to 299" in await refusal(endpoint.url, retry=retry)
    assert len(endpoint.asked) == tries


@pytest.mark.parametrize("status", [404, 500])
async def test_a_refusal_keeps_what_was_answered_without_secrets(endpoint: Endpoint, status: int) -> None:
    said = {"Retry-After": "7", "Set-Cookie": "a=b", "X-Request-Id": "sesame-1"}
    endpoint.answer = lambda asked: Said(status, b"wrong key: " + asked.headers["x-key"].encode(), said)
    journal = Journal()
    config = {"activity": "http_request", "url": endpoint.url, "headers": {"X-Key": "{{ secret_params.KEY }}"}}
    workflow = {"steps": ["only"], "step_configs": {"only": config}}
    services = FakeServices(secrets={"KEY": "sesame"})
    with pytest.raises(StepFailedError):
        await flow_of(workflow, journal, services=services, allow_private=True).run()
    assert "sesame" not in repr(journal.records)
    kept = journal.records[-1].answer
    assert kept is not None
    assert (kept["status"], kept["body"], kept["truncated"]) == (status, "wrong key: ********", False)
    assert {"retry-after": "7", "x-request-id": "********-1"}.items() <= kept["headers"].items()
    assert "set-cookie" not in kept["headers"]


async def test_a_large_error_page_is_told_by_its_status(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _: Said(503, b"x" * (MAX_ANSWER_BYTES + 1))
    assert "the response has the status 503" in await refusal(endpoint.url)


async def test_any_status_may_be_the_expected_one(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _: Said(404)
    assert (await ask(endpoint.url, expected_status=[200, 404]))["status"] == 404
    assert "the response has the status 404, not 200 or 201" in await refusal(endpoint.url, expected_status=[200, 201])


async def test_redirects_are_followed_only_on_request_and_at_most_five_times(endpoint: Endpoint) -> None:
    def count_down(asked: Asked) -> Said:
        left = int(asked.path.strip("/"))
        return Said(302, b"", {"Location": f"/{left - 1}"}) if left else Said(200, b"there")

    endpoint.answer = count_down
    assert "status 302" in await refusal(endpoint.url + "/1")
    outputs = await ask(endpoint.url + "/5", follow_redirects=True, headers={"X-Key": "k"})
    assert (outputs["text"], outputs["url"]) == ("there", endpoint.url + "/0")
    assert endpoint.asked[-1].headers["x-key"] == "k"
    assert "status 302" in await refusal(endpoint.url + "/6", follow_redirects=True)


async def test_a_redirect_to_another_origin_drops_the_steps_headers(endpoint: Endpoint) -> None:
    with serving() as other:
        endpoint.answer = lambda _: Said(307, b"", {"Location": other.url + "/there"})
        headers = {"X-Key": "k", "Authorization": "Bearer k", "Accept": "text/plain"}
        await ask(endpoint.url, method="POST", body="x", headers=headers, follow_redirects=True)
        [asked] = other.asked
    assert (asked.method, asked.body, asked.headers["accept"]) == ("POST", b"x", "text/plain")
    assert not {"x-key", "authorization"} & asked.headers.keys()


@pytest.mark.parametrize(
    "name",
    [
        *("Content-Length", "transfer-encoding", "HOST", "Connection", "Keep-Alive", "TE", "Trailer", "Upgrade"),
        *("Expect", "Proxy-Connection", "Proxy-Authorization", "HTTP2-Settings"),
    ],
)
async def test_a_header_of_the_connection_is_refused(endpoint: Endpoint, name: str) -> None:
    cause = await refusal(endpoint.url, method="POST", body="x", headers={"X-Own": "o", name: "1"})
    assert f"headers: {name.lower()} cannot be set" in cause
    assert endpoint.asked == []


async def test_a_compressed_response_is_read_and_an_unknown_compression_refused(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _: Said(200, gzip.compress(b'{"a": 1}'), {"Content-Encoding": "gzip"})
    assert (await ask(endpoint.url))["json"] == {"a": 1}
    endpoint.answer = lambda _: Said(200, gzip.compress(bytes(50_000_000)), {"Content-Encoding": "gzip"})
    assert "the response is too large" in await refusal(endpoint.url)
    endpoint.answer = lambda _: Said(200, b"x", {"Content-Encoding": "br"})
    assert "unknown or broken compression" in await refusal(endpoint.url)


async def test_a_hostile_charset_costs_no_time(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _: Said(200, b"-" + b"a" * 300_000, {"Content-Type": "text/plain; charset=punycode"})
    started_at = time.process_time()
    assert len((await ask(endpoint.url))["text"]) == 300_001
    assert time.process_time() - started_at < 1


@pytest.mark.parametrize("path", ["/{{ secret_params.KEY }}/x", "/x?key={{ secret_params.KEY }}", "/there"])
async def test_the_final_url_shows_no_secret_however_a_url_spells_it(endpoint: Endpoint, path: str) -> None:
    key = "it's (a) key!*é"
    endpoint.answer = lambda asked: (
        Said(302, b"", {"Location": f"/to/{quote(key, safe=chr(39) + '()!*')}"}) if asked.path == "/there" else Said()
    )
    outputs = await ask(
        endpoint.url + path,
        follow_redirects=True,
        headers={"X-Key": "{{ secret_params.ASCII }}"},
        secrets={"KEY": key, "ASCII": "it's (a) key!*"},
    )
    assert "********" in outputs["url"]
    assert "key" not in outputs["url"].replace("key=", "")


async def test_a_large_response_is_refused(endpoint: Endpoint) -> None:
    endpoint.answer = lambda asked: Said(200, b"x" * (MAX_ANSWER_BYTES + (asked.path == "/more")))
    assert len((await ask(endpoint.url))["text"]) == MAX_ANSWER_BYTES
    assert "the response is too large" in await refusal(endpoint.url + "/more")


async def test_a_response_that_is_nested_too_deep_is_text(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _: Said(200, b"[" * 100_000)
    assert (await ask(endpoint.url))["json"] is None


@pytest.mark.parametrize(
    ("config", "cause"),
    [
        ({"url": "ftp://127.0.0.1/"}, "url: must be an http or https URL"),
        ({"url": "nowhere"}, "url: must be an http or https URL"),
        ({"url": "http://[::1"}, "the request cannot be made"),
        ({"headers": {"a": "b\r\nc: d"}}, "the request cannot be made"),
        ({"url": "http://127.0.0.1:1/", "headers": {"a": "grün\u20ac"}}, "the request cannot be made"),
        ({"headers": {"a\r\nContent-Length": "0"}}, "the request cannot be made"),
        ({"headers": {"Content-Length ": "0"}}, "headers: content-length cannot be set"),
        ({"headers": {"a": "b\nTransfer-Encoding: chunked"}}, "the request cannot be made"),
        ({"headers": {"a": "b\x01"}}, "the request cannot be made"),
        ({"headers": {"": "b"}}, "the request cannot be made"),
        ({"url": "http://127.0.0.1:1/"}, "no response: no connection"),
        ({"url": "http://127.0.0.1/", "json": 1, "body": "x"}, "json and body: give only one of them"),
    ],
)
async def test_an_invalid_request_fails_with_a_clear_error(
    endpoint: Endpoint, config: dict[str, Any], cause: str
) -> None:
    assert cause in await refusal(**{"url": endpoint.url, **config})
    assert endpoint.asked == []


@pytest.mark.parametrize(
    "config",
    [
        {"url": "http://user:{{ secret_params.KEY }}@127.0.0.1/"},
        {"url": "http://{{ secret_params.KEY }}/"},
        {"headers": {"Authorization": "{{ secret_params.KEY }}"}},
    ],
)
async def test_an_error_about_an_invalid_request_shows_no_part_of_a_secret(
    endpoint: Endpoint, config: dict[str, Any]
) -> None:
    services = FakeServices(secrets={"KEY": "first-part/second-pärt"})
    with pytest.raises(StepFailedError) as caught:
        await run_step(
            {"activity": "http_request", "url": endpoint.url, **config}, allow_private=True, services=services
        )
    said = str(caught.value)
    assert said.startswith("step 'only' failed: ")
    for part in ("first", "second", "xe4", "ä"):
        assert part not in said


@pytest.mark.parametrize("activity", ["http_request", "webhook_notify"])
async def test_private_addresses_are_refused_unless_they_are_allowed(endpoint: Endpoint, activity: str) -> None:
    config = {"activity": activity, "url": endpoint.url} | ({"payload": 1} if activity == "webhook_notify" else {})
    with pytest.raises(StepFailedError, match="not a public address"):
        await run_step(config)
    assert endpoint.asked == []


async def test_a_notification_is_signed_in_both_ways(endpoint: Endpoint) -> None:
    config = {"activity": "webhook_notify", "url": endpoint.url, "payload": {"a": "ü"}}
    services = FakeServices(secrets={"HOOK": "hook-secret"})
    outputs = await run_step(config | {"secret_path": "secret_params.HOOK"}, allow_private=True, services=services)
    [asked] = endpoint.asked
    key = f"{RUN_ID}/only"
    assert outputs == {"status": 200, "idempotency_key": key}
    assert (asked.method, json.loads(asked.body)) == ("POST", {"a": "ü"})
    assert asked.headers["idempotency-key"] == asked.headers["webhook-id"] == key
    assert asked.headers["x-mise-trajectory-id"] == "1"
    timestamp = asked.headers["x-mise-timestamp"]
    assert asked.headers["webhook-timestamp"] == timestamp
    ours = hmac.new(b"hook-secret", f"{timestamp}.".encode() + asked.body, hashlib.sha256).hexdigest()
    standard = hmac.new(b"hook-secret", f"{key}.{timestamp}.".encode() + asked.body, hashlib.sha256).digest()
    assert asked.headers["x-mise-signature"] == ours
    assert asked.headers["webhook-signature"] == "v1," + base64.b64encode(standard).decode()


async def test_a_notification_without_a_secret_is_unsigned_and_keeps_its_idempotency_key(endpoint: Endpoint) -> None:
    endpoint.answer = lambda _: Said(500 if len(endpoint.asked) == 1 else 204)
    config = {"activity": "webhook_notify", "url": endpoint.url, "payload": None}
    await run_step(config | {"retry": {"max_attempts": 2, "backoff": 0}}, allow_private=True)
    assert len({asked.headers["idempotency-key"] for asked in endpoint.asked}) == 1
    assert len(endpoint.asked) == 2
    assert "x-mise-signature" not in endpoint.asked[0].headers
