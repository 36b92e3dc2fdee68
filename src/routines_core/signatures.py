"""The headers of a webhook: X-Mise and Standard Webhooks over the same bytes. Pure code."""

import base64
import binascii
import hashlib
import hmac


def headers(*, event_id: str, trajectory_id: int, timestamp: int, body: bytes, secret: str | None) -> dict[str, str]:
    """What goes with this body.

    Args:
        event_id: The same at every attempt.
        trajectory_id: The run.
        timestamp: Unix seconds; part of what is signed.
        body: The bytes that are sent.
        secret: Signs both ways; None: neither signature is sent.

    Source: https://www.standardwebhooks.com for the headers in lower case.
    """
    made = {
        "Content-Type": "application/json",
        "X-Mise-Timestamp": str(timestamp),
        "X-Mise-Trajectory-Id": str(trajectory_id),
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
    }
    if secret is not None:
        signed = f"{event_id}.{timestamp}.".encode() + body
        made["X-Mise-Signature"] = hmac.digest(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hex()
        standard = hmac.digest(_standard_key(secret), signed, hashlib.sha256)
        made["webhook-signature"] = f"v1,{base64.b64encode(standard).decode()}"
    return made


def _standard_key(secret: str) -> bytes:
    """What `whsec_<base64>` encodes; any other secret is its own bytes."""
    encoded = secret.removeprefix("whsec_")
    if encoded == secret:
        return secret.encode()
    try:
        return base64.b64decode(encoded, validate=True) or secret.encode()
    except binascii.Error:
        return secret.encode()
