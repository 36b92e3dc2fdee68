"""Resolves names in a bounded number of threads, shared fairly between those who ask.

The system's resolver blocks: a name whose servers do not answer occupies a thread for half a minute, long after the
caller has given up. The threads are daemons, so such a name does not delay the program's exit either.
"""

import asyncio
import os
import threading
from collections import Counter, deque
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from socket import SOCK_STREAM, gaierror, getaddrinfo

from routines_core.addresses import Address, literal

THREADS = 64
"""Maximum number of lookups at once in a process; one that was abandoned counts until the system returns."""
THREADS_PER_OWNER = 8
"""Maximum number of lookups at once for one owner, so that eight owners of hanging names are needed to use all."""


@dataclass(frozen=True)
class _Lookup:
    """A queued lookup and the future for its outcome."""

    host: str
    owner: Hashable
    answer: "asyncio.Future[list[Address]]"
    loop: asyncio.AbstractEventLoop

    def make(self) -> None:
        """Ask the system, unless the caller was cancelled."""
        if not self.answer.done():
            try:
                self.end(_ask(self.host))
            except OSError as error:
                self.end(error)

    def end(self, found: list[Address] | OSError) -> None:
        """Give the caller the outcome."""
        with suppress(RuntimeError):  # the loop is already closed
            self.loop.call_soon_threadsafe(self._settle, found)

    def _settle(self, found: list[Address] | OSError) -> None:
        if self.answer.done():
            return
        if isinstance(found, OSError):
            self.answer.set_exception(found)
        else:
            self.answer.set_result(found)


@dataclass
class Resolver:
    """Up to `size` threads, started on demand and ended when nothing waits; usable from several event loops.

    Attributes:
        size: Maximum number of threads.
        per_owner: Maximum number of threads that work for one owner.
    """

    size: int = THREADS
    per_owner: int = THREADS_PER_OWNER
    _waiting: dict[Hashable, deque[_Lookup]] = field(default_factory=dict[Hashable, deque[_Lookup]])
    _active: Counter[Hashable] = field(default_factory=Counter[Hashable])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    async def resolve(self, host: str, owner: Hashable = None) -> list[Address]:
        """Resolve a host to its addresses, in the system's order. An address is returned without a lookup.

        Args:
            host: In ASCII, as DNS expects it.
            owner: On whose behalf, for example the id of a collection. With None, all lookups below one domain share.

        Raises:
            OSError: The host has no address or is not a valid name.
        """
        if (address := literal(host)) is not None:
            return [address]
        loop = asyncio.get_running_loop()
        lookup = _Lookup(host, _domain_of(host) if owner is None else owner, loop.create_future(), loop)
        with self._lock:
            self._waiting.setdefault(lookup.owner, deque()).append(lookup)
            first = self._next() if self._active.total() < self.size else None
        if first is not None:
            self._start(first)
        return await lookup.answer

    def _start(self, first: _Lookup) -> None:
        try:
            threading.Thread(target=self._work, args=(first,), daemon=True, name="resolver").start()
        except RuntimeError:  # the system gives no more threads
            first.end(OSError("no thread for a lookup"))
            with self._lock:
                self._leave(first.owner)

    def _leave(self, owner: Hashable) -> None:
        """Decrease the count of active lookups. Call it with the lock held."""
        self._active[owner] -= 1
        if not self._active[owner]:
            del self._active[owner]

    def _next(self) -> _Lookup | None:
        """Take the next lookup: of the owner with the fewest active ones, and among equals the one that waited longest.

        Call it with the lock held.
        """
        admitted = [owner for owner in self._waiting if self._active[owner] < self.per_owner]
        if not admitted:
            return None
        owner = min(admitted, key=lambda each: self._active[each])
        # To the end of the order, so that equals take turns.
        queue = self._waiting.pop(owner)
        lookup = queue.popleft()
        if queue:
            self._waiting[owner] = queue
        self._active[owner] += 1
        return lookup

    def _work(self, first: _Lookup) -> None:
        lookup: _Lookup | None = first
        while lookup is not None:
            lookup.make()
            with self._lock:
                self._leave(lookup.owner)
                lookup = self._next()


RESOLVER = Resolver()
"""The threads of this process."""


def _domain_of(host: str) -> str:
    """Return the last two labels: names below one domain share its servers, and hang together."""
    return ".".join(host.rstrip(".").rsplit(".", 2)[-2:])


def _ask(host: str) -> list[Address]:
    try:
        found = getaddrinfo(host.removeprefix("[").removesuffix("]"), None, type=SOCK_STREAM)
    except UnicodeError:  # a label is too long
        raise gaierror from None
    except OSError:
        os.close(
            os.open(os.devnull, os.O_RDONLY)
        )  # raises if the process has no descriptor left, which is the reason then
        raise
    return list(dict.fromkeys(ip_address(str(each[4][0])) for each in found))
