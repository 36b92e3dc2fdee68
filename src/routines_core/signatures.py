"""The headers of a webhook, signed both ways: X-Mise and Standard Webhooks. Pure code."""

import base64
import binascii
import hashlib
import hmac

_PREFIX = "whsec_"


def headers(
    *, event_id: str, trajectory_id: int | None, timestamp: int, body: bytes, secret: str | None
) -> dict[str, str]:
    """Build the headers for a webhook body.

    Args:
        event_id: Identifies the event; the same for every attempt.
        trajectory_id: The run; None for a notice of alerts.
        timestamp: Unix seconds; part of the signed content.
        body: The exact bytes that are sent.
        secret: Key of both signatures; None sends neither.

    Source: https://www.standardwebhooks.com for the headers in lower case.
    """
    unsigned = {
        "Content-Type": "application/json",
        "User-Agent": "Routines-Webhooks/1",
        "X-Mise-Timestamp": str(timestamp),
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
    }
    if trajectory_id is not None:
        unsigned["X-Mise-Trajectory-Id"] = str(trajectory_id)
    if secret is None:
        return unsigned
    standard = hmac.digest(signing_key(secret), f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return {
        **unsigned,
        "X-Mise-Signature": hmac.digest(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hex(),
        "webhook-signature": f"v1,{base64.b64encode(standard).decode()}",
    }


def signing_key(secret: str) -> bytes:
    """Return the key of webhook-signature: the decoded part of `whsec_<base64>`, or the bytes of any other secret.

    X-Mise-Signature always uses the secret as given, including `whsec_`. A receiver that verifies a plain secret with a
    Standard Webhooks library passes the base64 of the secret to that library.
    """
    if secret.startswith(_PREFIX):
        encoded = secret.removeprefix(_PREFIX)
        try:
            key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except binascii.Error:
            key = b""
        if key:
            return key
    return secret.encode()
