"""A bulkhead logs trouble once, counts it, and makes the loop wait longer each time."""

import psycopg
import pytest
from structlog.testing import capture_logs

from routines_core import bulkhead as module
from routines_core.bulkhead import Bulkhead
from routines_core.errors import SilenceError


class MissingTable(psycopg.errors.UndefinedTable):
    sqlstate = "42P01"


def test_the_same_trouble_is_logged_once_and_counted_each_time() -> None:
    counted: list[tuple[str, str]] = []
    bulkhead = Bulkhead("reap", lambda loop, kind: counted.append((loop, kind)))
    with capture_logs() as said:
        for _ in range(3):
            bulkhead.failed(MissingTable("x"))
        bulkhead.worked()
        bulkhead.worked()
    assert [line["event"] for line in said] == ["refused, retrying", "works again"]
    assert said[0]["loop"] == "reap"
    assert said[0]["sqlstate"] == "42P01"
    assert "routines migrate" in said[0]["remedy"]
    assert counted == [("reap", "refused")] * 3


def test_trouble_that_comes_and_goes_does_not_fill_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    bulkhead = Bulkhead("queries")
    with capture_logs() as said:
        for _ in range(100):
            bulkhead.failed(MissingTable("x"))
            bulkhead.worked()
        assert len(said) == 2
        monkeypatch.setattr(module, "REMIND_SECONDS", 0)
        bulkhead.failed(MissingTable("x"))
    assert len(said) == 3


def test_delays_grow_until_it_works_again_unless_the_database_is_away() -> None:
    bulkhead = Bulkhead("journal", longest_seconds=5, first_seconds=0.5)
    with capture_logs():
        assert [bulkhead.failed(KeyError("x")) for _ in range(6)] == [0.5, 1, 2, 4, 5, 5]
        bulkhead.worked()
        assert bulkhead.failed(KeyError("x")) == 0.5
        assert [bulkhead.failed(SilenceError("…")) for _ in range(3)] == [0.5, 0.5, 0.5]
