"""Access to the metrics."""

import hmac
import ipaddress


def is_loopback(host: str) -> bool:
    """Check whether a listener on this address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def is_bearer(authorization: str, token: str) -> bool:
    """Check an Authorization header for the bearer token, in constant time."""
    scheme, _, given = authorization.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
