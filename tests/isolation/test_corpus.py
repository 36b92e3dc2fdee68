"""One tenant cannot hurt another: a corpus of attacks, and a victim that must not notice.

Real programs run on a real Postgres, as production runs them: one API, one ticker, one worker. Collection *alpha*
attacks; collection *beta*, in a process of its own (probe.py), runs a step and waits for it, reads a trajectory, has
routines fire and gets webhooks. arena.py says what must hold. Each attack of the corpus (workflows.py, receivers.py,
requests.py) is one test with its name as id, in the order of the issue's table.

`make test` makes one attack for each containment; ROUTINES_ISOLATION=all makes all, each for longer. mutants.py takes
the containments away one by one, and test_mutants.py sees that the corpus tells.
"""

import os
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from isolation import receivers, requests, workflows  # noqa: F401 - they register their attacks
from isolation.alpha import Alpha
from isolation.arena import Arena, Verdict
from isolation.attacks import CORPUS, Attack, Containment
from isolation.programs import Programs, running
from support.serving import copy_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
EVERY = os.environ.get("ROUTINES_ISOLATION") == "all"
SECONDS = 6.0 if EVERY else 2.5
"""How long each attack goes on."""
LAST = 99
"""Attacks that are in no row of the issue's table come after those that are."""
Make = Callable[[Attack], Verdict]


class Keeper:
    """Keeps an arena as long as no attack has left its marks on it.

    Args:
        environment: Settings of the programs, on top of the defaults.
        source: A source tree for them that goes before the installed one.
    """

    def __init__(
        self,
        server_url: str,
        template: str,
        directory: Path,
        *,
        environment: dict[str, str] | None = None,
        source: Path | None = None,
    ) -> None:
        self._server_url, self._template, self._directory = server_url, template, directory
        self._environment, self._source = environment or {}, source
        self._open = ExitStack()
        self._arena: Arena | None = None
        self._count = 0

    def suffer(self, attack: Attack) -> Verdict:
        """Make the attack in an arena that is as new."""
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
        arena = Arena(programs, database)
        self._open.callback(arena.close)
        arena.open()
        return arena


@pytest.fixture(scope="module")
def make(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Make]:
    """Makes an attack and returns what it did."""
    keeper = Keeper(server_url, template, tmp_path_factory.mktemp("isolation"))
    yield keeper.suffer
    keeper.close()


def marks(attack: Attack) -> list[pytest.MarkDecorator]:
    """What a test of this attack is marked with."""
    if attack.in_make_test:
        return []
    return [pytest.mark.nightly, pytest.mark.skipif(not EVERY, reason="ROUTINES_ISOLATION=all makes every attack")]


def nothing(_: Alpha) -> None:
    """Alpha does nothing."""


def test_a_quiet_beta_is_not_hurt(make: Make) -> None:
    verdict = make(Attack("nothing", "Alpha does nothing.", Containment.FAIR_SHARES, nothing))
    if verdict.harm:
        pytest.fail(str(verdict), pytrace=False)


@pytest.mark.parametrize(
    "attack",
    [pytest.param(each, id=each.id, marks=marks(each)) for each in sorted(CORPUS, key=lambda each: each.row or LAST)],
)
def test_beta_does_not_notice(attack: Attack, make: Make, record_property: Callable[[str, object], None]) -> None:
    verdict = make(attack)
    if verdict.harm and not EVERY:  # other tests keep the machine busy: what hurts, hurts twice
        verdict = make(attack)
    record_property("isolation", f"{attack.id}: {verdict}")
    if verdict.harm:
        pytest.fail(f"{attack.does}\nTo be held by: {attack.containment}.\n{verdict}", pytrace=False)


def test_the_corpus_is_large_and_covers_every_row_and_containment() -> None:
    assert len(CORPUS) >= 40
    assert len({each.id for each in CORPUS}) == len(CORPUS)
    assert {each.row for each in CORPUS} >= set(range(1, 11))
    assert {each.containment for each in CORPUS} == set(Containment)
