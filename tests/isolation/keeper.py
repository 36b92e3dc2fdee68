"""Decides which attacks run, for how long, and in which arena."""

import os
from contextlib import ExitStack
from pathlib import Path

from isolation.arena import Arena, Verdict
from isolation.attacks import Attack
from isolation.programs import Programs, running
from support.serving import copy_of

CHOSEN = os.environ.get("ROUTINES_ISOLATION", "")
"""`quick`: one attack for each containment. `all`: every attack and every mutant. Otherwise none."""
EVERY = CHOSEN == "all"
SECONDS = 6.0 if EVERY else 2.5
"""Duration of each attack."""


class Keeper:
    """Reuses an arena until an attack has done harm in it.

    Args:
        environment: Settings of the programs, on top of the defaults.
        limits: Limits of alpha's collection; see Arena.
        source: A source tree that they use instead of the installed one.
    """

    def __init__(
        self,
        server_url: str,
        template: str,
        directory: Path,
        *,
        environment: dict[str, str] | None = None,
        limits: dict[str, int | None] | None = None,
        source: Path | None = None,
    ) -> None:
        self._server_url, self._template, self._directory = server_url, template, directory
        self._environment, self._source, self._limits = environment or {}, source, limits or {}
        self._open = ExitStack()
        self._arena: Arena | None = None
        self._count = 0

    def suffer(self, attack: Attack) -> Verdict:
        """Run the attack in an undamaged arena and return the verdict."""
        if self._arena is None or self._arena.is_spent:
            self.close()
            self._arena = self._new()
        try:
            return self._arena.suffer(attack, seconds=SECONDS)
        except BaseException:
            self._arena.is_spent = True
            raise

    def close(self) -> None:
        """Stop everything."""
        self._open.close()

    def _new(self) -> Arena:
        self._count += 1
        directory = self._directory / f"arena-{self._count}"
        directory.mkdir()
        database = self._open.enter_context(copy_of(self._server_url, self._template))
        programs = self._open.enter_context(running(Programs(directory, database.url, self._environment, self._source)))
        arena = Arena(programs, database, limits=self._limits)
        self._open.callback(arena.close)
        arena.open()
        return arena
