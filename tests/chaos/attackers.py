"""Attacks of other tenants as traffic: the corpus of tests/isolation, one attack after another, while things break.

Attacks and quiet come by turns, so one run tells how long the chaos collection waits with and without them. The
attackers use an API of their own, which is not a target of faults; it must survive both.
"""

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg

from chaos.history import History
from chaos.stretches import Violation
from isolation import corpus  # noqa: F401 - it registers the attacks
from isolation.alpha import Alpha
from isolation.arena import cancel_at_psql
from isolation.attacks import CORPUS
from routines_core.errors import DatabaseError
from routines_core.lifecycle import LIFELINE_VARIABLE
from support.rows import ENCRYPTION_KEYS, Database
from support.serving import free_port, new_key, wait_until

ATTACK_SECONDS, QUIET_SECONDS = 90.0, 30.0
"""How long attacks and quiet last by turns."""
EACH_SECONDS = 6.0
"""Duration of one attack."""
QUIET_FACTOR, LEAST_BOUND_SECONDS = 3.0, 1.0
"""A delay under attack may be this many times as long as without attacks, or this long if that is more."""
LEAST_SAMPLES = 50
"""With fewer samples of either kind, delays are not judged."""

Turn = tuple[datetime, datetime]


@dataclass
class Attackers:
    """Tenants that attack, until stopped.

    Attributes:
        url: The database's URL, not through the proxy.
        lifeline: Of the API: it ends when this is closed.
        done: How often each attack was made; "useless" counts those that a fault kept from being set up.
        turns: When there were attacks.
    """

    url: str
    directory: Path
    rng: random.Random
    environment: dict[str, str]
    lifeline: int
    done: Counter[str] = field(default_factory=Counter[str])
    turns: list[Turn] = field(default_factory=list[Turn])
    _stopping: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Start the API and the attacks."""
        port = free_port()
        self.api_url = f"http://127.0.0.1:{port}"
        self._api = self._spawn(port)
        wait_until(self._is_healthy)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self) -> list[Violation]:
        """Stop the attacks and the API; cancel what the attackers left running. Returns what went wrong."""
        is_attacking = self._thread.is_alive()
        self._stopping.set()
        self._thread.join()
        code = self._api.poll()
        self._api.kill()
        self._api.wait()
        for number in range(self.done.total()):
            self._cancel(f"alpha-{number}")
        found = [] if code is None else [Violation("api", f"the attackers' API ended with code {code}")]
        return found if is_attacking else [*found, Violation("attackers", "the attacks broke off")]

    def _work(self) -> None:
        while not self._stopping.is_set():
            began_at = datetime.now(UTC)
            until = time.monotonic() + ATTACK_SECONDS
            while time.monotonic() < until and not self._stopping.is_set():
                self._attack()
            self.turns.append((began_at, datetime.now(UTC)))
            self._stopping.wait(QUIET_SECONDS)

    def _attack(self) -> None:
        attack = self.rng.choice(CORPUS)
        name = f"alpha-{self.done.total()}"
        try:
            alpha = Alpha(self.api_url, new_key(Database(self.url), name), name, self.url, EACH_SECONDS)
            try:
                attack.launch(alpha)
                alpha.hold()
            finally:
                alpha.close()
            self.done[attack.id] += 1
        except (AssertionError, DatabaseError, psycopg.Error, httpx.HTTPError, OSError):
            self.done["useless"] += 1
            self._stopping.wait(0.5)
        self._cancel(name)

    def _cancel(self, name: str) -> None:
        with contextlib.suppress(psycopg.Error), psycopg.connect(self.url, autocommit=True) as connection:
            cancel_at_psql(connection, name)

    def _is_healthy(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.api_url}/api/v1/health", timeout=2, verify=False).is_success
        return False

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        plain = {key: text for key, text in os.environ.items() if not key.startswith(("ROUTINES_", "PG"))}
        own = {
            "DATABASE_URL": self.url,
            "ENABLE_ROUTINES": "true",
            "ROUTINES_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
            "ROUTINES_FILES": str(self.directory / "files"),
            "ROUTINES_WEBHOOK_ALLOW_PRIVATE": "true",
            "ROUTINES_LOG_FORMAT": "json",
            "ROUTINES_PORT": str(port),
            LIFELINE_VARIABLE: str(self.lifeline),
        }
        with (self.directory / "api.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "routines_cli.main", "api"],
                env={**plain, **self.environment, **own},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self.lifeline],
            )


@dataclass(frozen=True)
class Delays:
    """How long the chaos collection waited, with and without attacks, in seconds."""

    what: str
    attacked: list[float]
    quiet: list[float]

    def __str__(self) -> str:
        both = (("attacked", self.attacked), ("quiet", self.quiet))
        return f"{self.what}: " + "; ".join(
            f"{name} p50 {share(0.5, seconds):.2f} s, p99 {share(0.99, seconds):.2f} s of {len(seconds):,}"
            for name, seconds in both
        )

    def violations(self) -> list[Violation]:
        """Return what exceeds its bound."""
        if min(len(self.attacked), len(self.quiet)) < LEAST_SAMPLES:
            return []
        return [
            Violation("delay", f"{self.what}: p{round(100 * part)} {measured:.2f} s under attack, bound {bound:.2f} s")
            for part in (0.5, 0.99)
            if (measured := share(part, self.attacked))
            > (bound := max(QUIET_FACTOR * share(part, self.quiet), LEAST_BOUND_SECONDS))
        ]


def delays_of(history: History, turns: list[Turn]) -> list[Delays]:
    """Return the delays from a slot that comes due to its run, and from a run's creation to its end."""
    ordered_at: dict[int, list[datetime]] = {}
    for order in history.orders:
        ordered_at.setdefault(order.routine_id, []).append(order.at)

    def to_start(run: Any) -> float:
        decided = run.created_at - run.away
        before = [at for at in ordered_at.get(run.routine_id, []) if at <= decided]
        return (decided - max([run.scheduled_for, *before[-1:]])).total_seconds()

    def to_end(run: Any) -> float:
        return (run.ended_at - run.created_at).total_seconds()

    def is_attacked(run: Any) -> bool:
        return any(begin <= run.created_at < end for begin, end in turns)

    runs = [run for run in history.runs if run.scheduled_for and run.ended_at]
    return [
        Delays(
            what,
            [measure(run) for run in runs if is_attacked(run)],
            [measure(run) for run in runs if not is_attacked(run)],
        )
        for what, measure in (("due to run", to_start), ("run to end", to_end))
    ]


def share(part: float, seconds: list[float]) -> float:
    """Return a percentile by nearest rank; 0 if there are none."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0
