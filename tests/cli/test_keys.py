"""`routines keys` refuses invalid ids and times in one line."""

import pytest
from click.testing import CliRunner

from routines_cli.main import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("revoke", "many"), "'many' is not a valid integer"),
        (("revoke", str(2**63)), f"{2**63} is not in the range"),
        (("rotate", "0"), "0 is not in the range"),
        (("rotate", "1", "--grace", "1e9"), "is not in the range"),
        (("create", "--collection", "my-org", "--expires-in", "1e9"), "is not in the range"),
    ],
)
def test_invalid_ids_and_times_are_refused_before_the_database_is_asked(arguments: tuple[str, ...], said: str) -> None:
    told = CliRunner().invoke(main, ["keys", *arguments])
    assert (told.exit_code, said in told.stderr) == (2, True)
