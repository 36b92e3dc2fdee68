"""Who may see a page of metrics."""

import hmac
import ipaddress


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on this address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def is_bearer(authorization: str, token: str) -> bool:
    """Whether this header brings the token; compared in constant time."""
    scheme, _, given = authorization.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
