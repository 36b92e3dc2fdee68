"""The keys that a process has seen: what never changes of a key is asked of the database once."""

from dataclasses import dataclass, field

from routines_core.db import Connection
from routines_core.db.keys import AuthContext, authenticate, hash_of
from routines_core.db.peppers import Peppers

MOST_KEYS = 10_000
"""Keys that a process remembers; then it starts anew."""


@dataclass
class KnownKeys:
    """The keys of one process, by the hash of the whole token.

    A key's secret and its collection never change, so they are kept. Whether it is revoked or has expired does: that
    is asked in every statement (routines.collection_of_key), and never kept.

    Attributes:
        peppers: What the stored hashes are keyed with.
    """

    peppers: Peppers
    _by_hash: dict[bytes, AuthContext] = field(default_factory=dict[bytes, AuthContext])

    async def recognise(self, connection: Connection, token: str) -> AuthContext:
        """Whom this token speaks for; of a token that was seen before, only a statement tells whether it still counts.

        Raises:
            UnauthorizedError: It is malformed or unknown, or at its first sight revoked or expired.
        """
        # Found by the hash alone: nothing that is compared here can be steered towards a stored value.
        digest = hash_of(token)
        known = self._by_hash.get(digest)
        if known is None:
            known = await authenticate(connection, token, self.peppers)
            if len(self._by_hash) >= MOST_KEYS:
                self._by_hash.clear()
            self._by_hash[digest] = known
        return known

    async def confirm(self, connection: Connection, token: str) -> None:
        """See that this token still counts, whatever is known of it.

        Raises:
            UnauthorizedError: It does not.
        """
        await authenticate(connection, token, self.peppers)
