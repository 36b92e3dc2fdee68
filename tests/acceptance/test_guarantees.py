"""docs/guarantees.md promises nothing without a test, and names nothing that the product no longer has."""

import re
from collections.abc import Generator
from typing import NamedTuple

import pytest

from routines_core.db.statements import sql_dir

ROOT = sql_dir().parent
TEST = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)
FILE = re.compile(r"`([\w/]+\.py)`|the same file")
NAME = re.compile(r"`([a-z_]+)`")


class Promise(NamedTuple):
    """A line of the table."""

    promise: str
    held_by: str
    tests: str


def promises() -> list[Promise]:
    table = (ROOT / "docs" / "guarantees.md").read_text("utf-8").partition("## The promises")[2].partition("\n## ")[0]
    return [
        Promise(*(cell.strip() for cell in line.strip("|").split("|"))) for line in table.splitlines() if "**" in line
    ]


def named_tests(rows: list[Promise]) -> Generator[tuple[str, str]]:
    """(file, how a test's name begins) for each test of the table; an empty beginning: the whole file is meant."""
    file = ""
    for row in rows:
        for part in row.tests.split("; "):
            found, _, names = part.partition(" :: ")
            if match := FILE.search(found):
                file = match[1] or file
                for name in names.split(", "):
                    words = re.sub(r"[^\w\s]", "", name.replace("-", " ")).split()
                    yield file, "_".join(["test", *words]).lower() if words else ""


def test_every_promise_names_a_file_of_tests_or_a_benchmark_that_fails() -> None:
    found = promises()
    assert len(found) > 40
    assert [row.promise for row in found if not FILE.search(row.tests)] == []


def test_every_test_that_a_promise_names_is_there() -> None:
    for file, begins in named_tests(promises()):
        path = ROOT / "tests" / file
        assert path.exists(), file
        tests = TEST.findall(path.read_text("utf-8"))
        assert any(test.startswith(begins) for test in tests), f"{file} has no {begins}"


@pytest.fixture(scope="module")
def product() -> str:
    """All of its text."""
    return "\n".join(path.read_text("utf-8") for part in ("src", "sql") for path in (ROOT / part).rglob("*.[ps][yq]*"))


def test_what_a_promise_is_held_by_is_there(product: str) -> None:
    for row in promises():
        for name in NAME.findall(row.held_by):
            assert re.search(rf"\b{name}\b", product), f"{name}: {row.promise}"
