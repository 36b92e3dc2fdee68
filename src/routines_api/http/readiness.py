"""Whether an API process can do its work: its database, the schema, its role, and the encryption keys."""

import asyncio
import time
from dataclasses import dataclass, field

import msgspec

from routines_core.bulkhead import Bulkhead
from routines_core.db import Connection, connect
from routines_core.db.peppers import list_peppers, pepper_context
from routines_core.db.schema import examine_schema
from routines_core.db.standing import lacking_rights, standing
from routines_core.db.timeouts import within
from routines_core.diagnosis import diagnose
from routines_core.errors import MigrationError, SecretError
from routines_core.keyring import Keyring

KEPT_SECONDS = 1.0
"""How long an answer is reused, so that nobody can keep the database busy by asking."""
LIMIT_SECONDS = 3.0
"""The limit for connecting and checking everything."""
OK = "ok"
ROLE = "routines_api"


class Readiness(msgspec.Struct):
    """Whether the process is ready, and each check: `ok`, a cause, or `unknown` if an earlier check failed.

    The causes are fixed phrases; the log has more.
    """

    status: str = "failing"
    database: str = "unknown"
    schema: str = "unknown"
    role: str = "unknown"
    keys: str = "unknown"

    @property
    def is_ready(self) -> bool:
        """Whether every check passed."""
        return self.status == OK


@dataclass
class ReadinessCheck:
    """Checks at most once in KEPT_SECONDS, for all who ask."""

    database_url: str
    keyring: Keyring
    bulkhead: Bulkhead = field(default_factory=lambda: Bulkhead("readyz"))
    _found: Readiness = field(default_factory=Readiness)
    _checked_at: float = float("-inf")
    _checking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def check(self) -> Readiness:
        """Return whether the process is ready."""
        async with self._checking:
            if time.monotonic() - self._checked_at >= KEPT_SECONDS:
                self._found = await self._examine()
                self._checked_at = time.monotonic()
            return self._found

    async def _examine(self) -> Readiness:
        found = Readiness()
        try:
            await within(LIMIT_SECONDS, self._fill(found))
        except Exception as error:  # noqa: BLE001 - whatever it is, the process is not ready
            self.bulkhead.failed(error)
            check = next(name for name in ("database", "schema", "role", "keys") if getattr(found, name) == "unknown")
            setattr(found, check, _cause(error))
        else:
            found.status = OK if all(text == OK for text in (found.role, found.keys)) else found.status
            self.bulkhead.worked()
        return found

    async def _fill(self, found: Readiness) -> None:
        async with connect(self.database_url, "routines-readyz", role=ROLE, statement_timeout="2s") as connection:
            found.database = OK
            await examine_schema(connection)
            found.schema = OK
            role = (await standing(connection)).role
            lacking = await lacking_rights(connection, ROLE, role)
            found.role = "the role lacks rights" if lacking else OK
            found.keys = await self._keys(connection)

    async def _keys(self, connection: Connection) -> str:
        """Check that the stored peppers can be opened, without which no API key is recognised."""
        try:
            for stored in await list_peppers(connection):
                self.keyring.open(stored.ciphertext, pepper_context(stored.id))
        except SecretError as error:
            self.bulkhead.failed(error)
            return "the encryption keys do not open what is stored"
        return OK


def _cause(error: Exception) -> str:
    """Return the cause as anybody may read it, without the names of migrations."""
    return "missing, or older than this version" if isinstance(error, MigrationError) else diagnose(error).cause
