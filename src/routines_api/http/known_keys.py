"""A cache of API keys: the parts of a key that never change are read from the database once per process."""

from dataclasses import dataclass, field

from routines_core.db import Connection
from routines_core.db.keys import AuthContext, authenticate, hash_of
from routines_core.db.peppers import Peppers

MOST_KEYS = 10_000
"""Maximum number of keys in the cache; at the limit it is emptied."""


@dataclass
class KnownKeys:
    """The keys that one process has seen, by the hash of the whole token.

    A key's secret and collection never change, so they are cached. Revocation and expiry are never cached: every
    statement checks them (routines.collection_of_key).

    Attributes:
        peppers: The keys of the stored hashes.
    """

    peppers: Peppers
    _by_hash: dict[bytes, AuthContext] = field(default_factory=dict[bytes, AuthContext])

    def find(self, token: str) -> AuthContext | None:
        """Return what is cached of a token; None if this process has not seen it."""
        return self._by_hash.get(hash_of(token))

    async def recognise(self, connection: Connection, token: str) -> AuthContext:
        """Look up a token. For a token seen before, only later statements check that it is still valid.

        Returns:
            The key and the collection that it opens.

        Raises:
            UnauthorizedError: It is malformed or unknown, or was revoked or expired when first seen.
        """
        # Looked up by the hash alone, so that timing reveals nothing about a stored value.
        digest = hash_of(token)
        known = self._by_hash.get(digest)
        if known is None:
            known = await authenticate(connection, token, self.peppers)
            if len(self._by_hash) >= MOST_KEYS:
                self._by_hash.clear()
            self._by_hash[digest] = known
        return known

    async def confirm(self, connection: Connection, token: str) -> None:
        """Check in the database that this token is valid now, bypassing the cache.

        Raises:
            UnauthorizedError: The token is no longer valid.
        """
        await authenticate(connection, token, self.peppers)
