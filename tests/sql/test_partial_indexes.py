"""Look through all SQL for searches that a partial index may answer by reading all of it."""

import re
from collections.abc import Generator
from pathlib import Path

import pytest

from routines_core.db.statements import sql_dir

CONDITION = re.compile(
    r"\b(?:WHERE|ON)\b(.*?)(?=\b(?:SELECT|FROM|WHERE|ORDER|GROUP|LIMIT|OFFSET|SET|RETURNING|JOIN|FOR|THEN)\b|;|\Z)",
    re.DOTALL,
)
OF_A_KEY = re.compile(r"\b(?:id|parent_id|retry_of|rerun_of|trajectory_id|notice_id|backfill_id) (?:= |IN )")
"""Where it names a column by which rows of those indexes are not in order."""
IS_OPEN = re.compile(r"\b(?:ended_at|closed_at) IS NULL|\b(?:next_attempt_at|claimed_at) IS NOT NULL")
"""What is true of all rows of the partial indexes of active runs, open alerts and backfills, and deliveries to make."""
OF_A_ROUTINE = re.compile(r"\btriggered_by_routine_id = ")
IS_WAITING = re.compile(r"\bplace = 0 .*\bfinal_status IS NULL")
"""The same for the index of waiting runs."""


def careless(text: str) -> Generator[str]:
    """Yield the conditions that search a key, and that an index of all open rows can answer too."""
    for found in CONDITION.finditer(text):
        condition = " ".join(found[1].split())
        if (OF_A_KEY.search(condition) and IS_OPEN.search(condition)) or (
            OF_A_ROUTINE.search(condition) and IS_WAITING.search(condition)
        ):
            yield condition


FILES = sorted(path for part in ("queries", "schema") for path in (sql_dir() / part).glob("*.sql"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_search_by_key_leaves_no_other_index_a_choice(path: Path) -> None:
    assert list(careless(path.read_text())) == []


def test_such_a_search_is_found() -> None:
    text = "UPDATE routines.alerts SET closed_at = now()\nWHERE id = 5\n  AND closed_at IS NULL;"
    assert list(careless(text)) == ["id = 5 AND closed_at IS NULL"]
