"""What is kept of a response that made a step or a webhook fail: bounded, and without secrets."""

import json

import httpx
import pytest

from routines_core.kept_answer import KEPT_HEADERS, MAX_BODY_BYTES, MAX_HEADER_BYTES, kept_answer
from routines_core.mask import MASK


def unmasked(text: str) -> str:
    return text


def without_token(text: str) -> str:
    return text.replace("tok-en", MASK)


def answered(body: str, *, truncated: bool = False, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return httpx.Response(503, text=body, headers=named, extensions={"truncated": truncated})


def test_status_headers_of_use_and_body_are_kept() -> None:
    answer = answered("busy", content_type="text/plain", retry_after="30", x_request_id="r-1", set_cookie="session=1")
    assert kept_answer(answer, unmasked) == {
        "status": 503,
        "headers": {"content-type": "text/plain", "retry-after": "30", "x-request-id": "r-1"},
        "body": "busy",
        "truncated": False,
    }


@pytest.mark.parametrize(("size", "truncated"), [(MAX_BODY_BYTES, False), (MAX_BODY_BYTES + 1, True)])
def test_at_most_4_kib_of_the_body_are_kept(*, size: int, truncated: bool) -> None:
    kept = kept_answer(answered("x" * size), unmasked)
    assert (len(kept["body"]), kept["truncated"]) == (MAX_BODY_BYTES, truncated)


def test_a_body_is_cut_between_characters() -> None:
    kept = kept_answer(answered("x" + "é" * MAX_BODY_BYTES, content_type="text/plain; charset=utf-8"), unmasked)
    assert kept["body"] == "x" + "é" * (MAX_BODY_BYTES // 2 - 1)


def test_a_secret_that_the_cut_would_halve_is_masked() -> None:
    kept = kept_answer(answered("x" * (MAX_BODY_BYTES - 3) + "tok-en", x_request_id="tok-en"), without_token)
    assert "tok" not in json.dumps(kept)
    assert kept["headers"]["x-request-id"] == MASK


def test_half_a_secret_at_the_end_of_what_was_read_is_dropped() -> None:
    """The masks shrink the text, so that its end comes within what would be kept."""
    assert "tok" not in kept_answer(answered("x" * 100 + "tok-e", truncated=True), without_token)["body"]
    kept = kept_answer(answered("x" * 65536, truncated=True), unmasked)
    assert (len(kept["body"]), kept["truncated"]) == (MAX_BODY_BYTES, True)


def test_the_kept_part_is_bounded_whatever_was_answered() -> None:
    headers = dict.fromkeys(KEPT_HEADERS, "h" * 5000) | {"content-type": "text/plain; charset=utf-8"}
    kept = kept_answer(httpx.Response(500, content=b"\0" * 60_000, headers=headers), unmasked)
    assert "\0" not in kept["body"]
    assert len(json.dumps(kept, ensure_ascii=False).encode()) < MAX_BODY_BYTES + len(KEPT_HEADERS) * (
        MAX_HEADER_BYTES + 40
    )
