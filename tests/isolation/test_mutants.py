"""Prove the corpus: without a containment, the attacks that it stops must do harm."""

from pathlib import Path

import pytest

from isolation import receivers, requests, workflows  # noqa: F401 - they register their attacks
from isolation.attacks import CORPUS, Containment
from isolation.keeper import EVERY, Keeper
from isolation.mutants import AWAITED, MUTANTS, Mutant

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ATTACKS = {each.id: each for each in CORPUS}


@pytest.mark.nightly
@pytest.mark.skipif(not EVERY, reason="ROUTINES_ISOLATION=all tries every mutant")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_missing_containment_is_noticed(
    mutant: Mutant, server_url: str, template: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if not mutant.is_built:
        pytest.skip("this containment is not built yet")
    source = mutant.source(tmp_path / "source")
    keeper = Keeper(server_url, template, tmp_path, environment=mutant.environment, source=source)
    request.addfinalizer(keeper.close)
    for name in mutant.caught_by:
        verdict = keeper.suffer(ATTACKS[name])
        if not any(mutant.seen_as in each for each in verdict.harm):
            pytest.fail(f"{mutant.name}, but {name} did not show {mutant.seen_as!r}\n{verdict}", pytrace=False)


@pytest.mark.parametrize("mutant", [each for each in MUTANTS if each.is_built], ids=lambda mutant: mutant.name)
def test_a_mutant_finds_the_text_that_it_breaks(mutant: Mutant, tmp_path: Path) -> None:
    mutant.source(tmp_path / "source")


def test_every_containment_has_a_mutant_or_is_awaited() -> None:
    assert {each.containment for each in MUTANTS} | AWAITED.keys() == set(Containment)


def test_mutants_name_attacks_that_exist() -> None:
    named = [*(each.caught_by for each in MUTANTS), *(attacks for _, attacks in AWAITED.values())]
    assert {name for names in named for name in names} <= ATTACKS.keys()
