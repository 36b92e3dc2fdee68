"""Prove the corpus: without a containment, the attacks that it stops must do harm."""

from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from isolation import corpus  # noqa: F401 - it registers the attacks
from isolation.arena import Verdict
from isolation.attacks import CORPUS, Containment
from isolation.keeper import EVERY, Keeper
from isolation.mutants import MUTANTS, Mutant, Product

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ATTACKS = {each.id: each for each in CORPUS}
Keep = Callable[[Product], Keeper]
every_mutant = pytest.mark.skipif(not EVERY, reason="ROUTINES_ISOLATION=all tries every mutant")


def id_of(mutant: Mutant) -> str:
    """Return the id of the test of this mutant."""
    return mutant.name.replace(" ", "-")


@pytest.fixture
def keep(server_url: str, template: str, tmp_path: Path) -> Generator[Keep]:
    """Return a function that makes a keeper of arenas with this product."""
    with ExitStack() as open_keepers:

        def make(product: Product) -> Keeper:
            source = product.source(tmp_path / "source")
            keeper = Keeper(
                server_url, template, tmp_path, environment=product.environment, limits=product.limits, source=source
            )
            return open_keepers.enter_context(closing(keeper))

        yield make


def _is_seen(mutant: Mutant, verdict: Verdict) -> bool:
    return any(mutant.seen_as in each for each in verdict.harm)


def _harmful_verdict(keeper: Keeper, mutant: Mutant, name: str) -> Verdict:
    """Return the first verdict of three in which the mutant is seen: whether an attack does harm may be chance."""
    verdict = keeper.suffer(ATTACKS[name])
    for _ in range(2):
        if _is_seen(mutant, verdict):
            break
        verdict = keeper.suffer(ATTACKS[name])
    return verdict


@pytest.mark.nightly
@every_mutant
@pytest.mark.parametrize("mutant", MUTANTS, ids=id_of)
def test_a_missing_containment_is_noticed(
    mutant: Mutant, keep: Keep, record_property: Callable[[str, object], None]
) -> None:
    keeper = keep(mutant.product())
    for name in mutant.caught_by:
        verdict = _harmful_verdict(keeper, mutant, name)
        record_property("isolation", f"{mutant.name}, {name}: {verdict}")
        if not _is_seen(mutant, verdict):
            pytest.fail(f"{mutant.name}, but {name} did not show {mutant.seen_as!r}\n{verdict}", pytrace=False)


@pytest.mark.nightly
@every_mutant
@pytest.mark.parametrize("mutant", [each for each in MUTANTS if each.also], ids=id_of)
def test_the_other_containments_alone_are_not_what_is_noticed(mutant: Mutant, keep: Keep) -> None:
    keeper = keep(mutant.others())
    for name in mutant.caught_by:
        verdict = keeper.suffer(ATTACKS[name])
        if _is_seen(mutant, verdict):  # once may be chance
            verdict = keeper.suffer(ATTACKS[name])
        if _is_seen(mutant, verdict):
            pytest.fail(f"{name} shows {mutant.seen_as!r} without this mutant\n{verdict}", pytrace=False)


@pytest.mark.parametrize("mutant", MUTANTS, ids=id_of)
def test_a_mutant_finds_the_text_that_it_breaks(mutant: Mutant, tmp_path: Path) -> None:
    source = mutant.product().source(tmp_path / "source")
    for path in source.rglob("*.py") if source else ():
        compile(path.read_bytes(), path, "exec")


def test_every_containment_has_a_mutant() -> None:
    assert {each.containment for each in MUTANTS} == set(Containment)


def test_every_mutant_changes_the_product_and_says_how_it_is_seen() -> None:
    assert all(each.edits or each.environment or each.limits for each in MUTANTS)
    assert all(each.seen_as and each.caught_by for each in MUTANTS)


def test_mutants_name_attacks_that_exist() -> None:
    assert {name for each in MUTANTS for name in each.caught_by} <= ATTACKS.keys()
