"""The headers of a webhook and the schedule of its retries."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routines_core.signatures import headers, signing_key
from routines_engine.webhooks.retry_schedule import DELAYS_SECONDS, delay_seconds


def test_the_retry_schedule_is_the_documented_one() -> None:
    waits = [delay_seconds(failures, jitter=0) for failures in range(1, 11)]
    assert waits == [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400, None]


@given(st.integers(0, 100), st.floats(0, 1))
def test_a_delay_is_never_shorter_than_scheduled_and_at_most_a_tenth_longer(failures: int, jitter: float) -> None:
    wait = delay_seconds(failures, jitter=jitter)
    assert (wait is None) == (failures >= len(DELAYS_SECONDS))
    assert wait is None or DELAYS_SECONDS[failures] <= wait <= 1.1 * DELAYS_SECONDS[failures]


@given(st.binary(min_size=1))
def test_a_standard_webhooks_secret_is_decoded_with_or_without_padding(key: bytes) -> None:
    encoded = base64.b64encode(key).decode()
    assert signing_key(f"whsec_{encoded}") == signing_key(f"whsec_{encoded.rstrip('=')}") == key


@pytest.mark.parametrize("secret", ["plain", "whsec_", "whsec_%%%", "whsec_a", "WHSEC_YWJj", "schlüssel"])
def test_any_other_secret_is_used_as_it_is(secret: str) -> None:
    assert signing_key(secret) == secret.encode()


def test_without_a_secret_only_the_signatures_are_missing() -> None:
    sent = headers(event_id="e", trajectory_id=7, timestamp=1_700_000_000, body=b"{}", secret=None)
    assert not [name for name in sent if "signature" in name.lower()]
    assert sent["X-Mise-Timestamp"] == sent["webhook-timestamp"] == "1700000000"
    assert (sent["X-Mise-Trajectory-Id"], sent["webhook-id"], sent["Content-Type"]) == ("7", "e", "application/json")


def test_the_signatures_match_a_known_answer() -> None:
    """Computed with `printf '1700000000.{}' | openssl dgst -sha256 -hmac secret`; the other one likewise."""
    sent = headers(event_id="e", trajectory_id=7, timestamp=1_700_000_000, body=b"{}", secret="secret")
    assert sent["X-Mise-Signature"] == "b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"
    assert sent["webhook-signature"] == "v1,XhvcYiWkOkrEek4Qf7L4HUO1q4LeilJ7/QRrzV910JI="
