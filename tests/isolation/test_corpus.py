"""One tenant cannot hurt another: a corpus of attacks, and a victim that must not notice.

Real programs run on a real Postgres, as in production: one API, one ticker, one worker. Collection *alpha*
attacks. Collection *beta*, in a separate process (probe.py), waits for runs, reads a trajectory, fires routines and
receives webhooks. arena.py defines what must hold. Each attack of the corpus (corpus/) is one test, with its name as
the id, in the order of the ten kinds that attacks.py lists.

The attacks measure times, so they need a machine of their own: ROUTINES_ISOLATION=quick makes one attack for each
containment, ROUTINES_ISOLATION=all (`make isolation`) makes all of them, each for longer. mutants.py removes the
containments one by one, and test_mutants.py checks that the corpus notices.
"""

from collections.abc import Callable, Generator

import pytest

from isolation import corpus  # noqa: F401 - it registers the attacks
from isolation.alpha import Alpha
from isolation.arena import Verdict
from isolation.attacks import CORPUS, Attack, Containment
from isolation.keeper import CHOSEN, EVERY, Keeper
from support.service import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
SECURITY = ROOT / "docs" / "trust" / "security.md"
LAST = 99
"""Sorts attacks of no kind last."""
Make = Callable[[Attack], Verdict]


@pytest.fixture(scope="module")
def make(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Make]:
    """Return a function that runs an attack and returns the verdict."""
    keeper = Keeper(server_url, template, tmp_path_factory.mktemp("isolation"))
    yield keeper.suffer
    keeper.close()


def marks(attack: Attack) -> list[pytest.MarkDecorator]:
    """Return the pytest marks for the test of this attack."""
    if attack.in_make_test:
        return [pytest.mark.skipif(not CHOSEN, reason="ROUTINES_ISOLATION=quick makes one attack for each containment")]
    return [pytest.mark.nightly, pytest.mark.skipif(not EVERY, reason="ROUTINES_ISOLATION=all makes every attack")]


def nothing(_: Alpha) -> None:
    """Do nothing."""


@pytest.mark.skipif(not CHOSEN, reason="ROUTINES_ISOLATION=quick or all")
def test_a_quiet_beta_is_not_hurt(make: Make) -> None:
    verdict = make(Attack("nothing", "Alpha does nothing.", Containment.FAIR_SHARES, nothing))
    if verdict.harm:
        pytest.fail(str(verdict), pytrace=False)


@pytest.mark.parametrize(
    "attack",
    [pytest.param(each, id=each.id, marks=marks(each)) for each in sorted(CORPUS, key=lambda each: each.kind or LAST)],
)
def test_beta_does_not_notice(attack: Attack, make: Make, record_property: Callable[[str, object], None]) -> None:
    verdict = make(attack)
    if verdict.harm and not EVERY:  # other tests keep the machine busy: what hurts, hurts twice
        verdict = make(attack)
    record_property("isolation", f"{attack.id}: {verdict}")
    if verdict.harm:
        pytest.fail(f"{attack.does}\nExpected containment: {attack.containment}.\n{verdict}", pytrace=False)


def test_the_corpus_is_large_and_covers_every_kind_and_containment() -> None:
    assert len(CORPUS) >= 40
    assert len({each.id for each in CORPUS}) == len(CORPUS)
    assert {each.kind for each in CORPUS} >= set(range(1, 11))
    assert {each.containment for each in CORPUS if each.in_make_test} == set(Containment)


def test_the_docs_say_how_many_attacks_there_are() -> None:
    assert f"attacks a running service in {len(CORPUS)} ways" in " ".join(SECURITY.read_text("utf-8").split())
