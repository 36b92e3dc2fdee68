"""The headers of a webhook: X-Mise and Standard Webhooks, over the same bytes. Pure."""

import base64
import binascii
import hashlib
import hmac

_PREFIX = "whsec_"


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
    unsigned = {
        "Content-Type": "application/json",
        "User-Agent": "Routines-Webhooks/1",
        "X-Mise-Timestamp": str(timestamp),
        "X-Mise-Trajectory-Id": str(trajectory_id),
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
    }
    if secret is None:
        return unsigned
    standard = hmac.digest(signing_key(secret), f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return {
        **unsigned,
        "X-Mise-Signature": hmac.digest(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hex(),
        "webhook-signature": f"v1,{base64.b64encode(standard).decode()}",
    }


def signing_key(secret: str) -> bytes:
    """The key of webhook-signature: what `whsec_<base64>` encodes; of any other secret its own bytes.

    X-Mise-Signature takes every secret as it is given, `whsec_` included. A receiver with a library of Standard
    Webhooks and a plain secret gives that library the base64 of the secret.
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
