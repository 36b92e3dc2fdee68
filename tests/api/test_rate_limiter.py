"""The rate limiter of a process."""

import pytest

from routines_api.http import rate_limiter
from routines_api.http.errors import RateLimitedError
from routines_api.http.rate_limiter import RateLimiter
from routines_core.db import Connection


async def grants(*_: object, **__: object) -> bool:
    return True


async def refuses(*_: object, **__: object) -> bool:
    return False


async def test_what_is_over_is_forgotten(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection could otherwise fill the memory with feeds that it creates, reads and revokes."""
    monkeypatch.setattr(rate_limiter, "MOST_HANDFULS", 100)
    monkeypatch.setattr(rate_limiter, "KEPT_SECONDS", -1)
    limiter = RateLimiter(1, 20, grants)
    for number in range(1000):
        await limiter.spend(connection, number)
    assert len(vars(limiter)["_handfuls"]) <= 100


async def test_an_empty_bucket_is_not_forgotten(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limiter, "MOST_HANDFULS", 10)
    limiter = RateLimiter(0.001, 20, refuses)
    for number in range(100):
        with pytest.raises(RateLimitedError):
            await limiter.spend(connection, number)
    with pytest.raises(RateLimitedError):
        limiter.spend_taken(0)
