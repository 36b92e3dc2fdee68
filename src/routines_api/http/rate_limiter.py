"""Rate limits per key: a token bucket in the database, from which a process takes a handful of tokens at a time.

All API processes share the bucket, so the rate holds however many of them run. A handful is 2 % of the bucket: few
requests have to write to the database, and few tokens are lost if a process takes some and never uses them.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from routines_api.http.errors import RateLimitedError
from routines_core.db import Connection
from routines_core.db.keys import take_tokens

HANDFUL_SHARE = 0.02
"""The share of the bucket that is taken at once."""
KEPT_SECONDS = 10.0
"""How long a process may use the tokens that it took."""
MOST_HANDFULS = 10_000
"""At so many it forgets those that are over. A collection can create and revoke feeds without end."""


@dataclass
class _Handful:
    tokens: int = 0
    kept_until: float = 0.0
    empty_until: float = 0.0

    def is_over(self, now: float) -> bool:
        return now > self.kept_until and now > self.empty_until


@dataclass
class RateLimiter:
    """The rate limiter of one process.

    Attributes:
        rate: Requests per second that a key may send over time.
        burst: Requests that it may send at once.
        take: Takes tokens out of the bucket of a key, or of what else is limited.
        what: What that is, for messages.
    """

    rate: float
    burst: int
    take: Callable[..., Awaitable[bool]] = take_tokens
    what: str = "key"
    _handfuls: dict[int, _Handful] = field(default_factory=dict[int, _Handful])

    def spend_taken(self, key_id: int) -> bool:
        """Spend a token that this process took before. Returns False if it has none left.

        Raises:
            RateLimitedError: The bucket was empty a moment ago.
        """
        handful, now = self._handfuls.get(key_id), time.monotonic()
        if handful is None:
            return False
        if handful.tokens and now <= handful.kept_until:
            handful.tokens -= 1
            return True
        if now < handful.empty_until:
            raise RateLimitedError(handful.empty_until - now, self.what)
        return False

    async def spend(self, connection: Connection, key_id: int) -> None:
        """Spend one token of the key.

        Raises:
            RateLimitedError: The bucket is empty.
        """
        now = time.monotonic()
        if len(self._handfuls) >= MOST_HANDFULS and key_id not in self._handfuls:
            self._handfuls = {each: held for each, held in self._handfuls.items() if not held.is_over(now)}
        handful = self._handfuls.setdefault(key_id, _Handful())
        if now > handful.kept_until:
            handful.tokens = 0
        if handful.tokens == 0:
            await self._take(connection, key_id, handful, now)
        handful.tokens -= 1

    async def _take(self, connection: Connection, key_id: int, handful: _Handful, now: float) -> None:
        wanted = max(1, int(self.burst * HANDFUL_SHARE))
        wait = wanted / self.rate
        if now < handful.empty_until:
            raise RateLimitedError(handful.empty_until - now, self.what)
        if not await self.take(connection, key_id, wanted=wanted, rate=self.rate, burst=self.burst):
            handful.empty_until = now + wait
            raise RateLimitedError(wait, self.what)
        handful.tokens += wanted  # another request may have taken some in the meantime
        handful.kept_until = now + KEPT_SECONDS
