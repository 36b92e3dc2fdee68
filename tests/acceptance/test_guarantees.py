"""docs/trust/guarantee-tests.md promises nothing without a test, and names nothing that the product no longer has."""

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
    """A row of the table."""

    promise: str
    held_by: str
    tests: str


def promises() -> list[Promise]:
    page = (ROOT / "docs" / "trust" / "guarantee-tests.md").read_text("utf-8")
    table = page.partition("## The guarantees")[2].partition("\n## ")[0]
    return [
        Promise(*(cell.strip() for cell in line.strip("|").split("|"))) for line in table.splitlines() if "**" in line
    ]


def named_tests(rows: list[Promise]) -> Generator[tuple[str, str]]:
    """Yield (file, beginning of the test's name) for each test in the table; an empty beginning stands for the file."""
    file = ""
    for row in rows:
        for entry in row.tests.split("; "):
            found, _, names = entry.partition(" :: ")
            if match := FILE.search(found):
                file = match[1] or file
                for name in names.split(", "):
                    words = re.sub(r"[^\w\s]", "", name.replace("-", " ")).split()
                    yield file, "_".join(["test", *words]).lower() if words else ""


def test_every_promise_names_a_test_file() -> None:
    found = promises()
    assert len(found) > 40
    assert [row.promise for row in found if not FILE.search(row.tests)] == []


def test_every_test_that_a_promise_names_exists() -> None:
    for file, begins in named_tests(promises()):
        path = ROOT / "tests" / file
        assert path.exists(), file
        tests = TEST.findall(path.read_text("utf-8"))
        assert any(test.startswith(begins) for test in tests), f"{file} has no test whose name begins with {begins}"


@pytest.fixture(scope="module")
def product() -> str:
    """Return the text of all Python and SQL files of the product."""
    return "\n".join(path.read_text("utf-8") for top in ("src", "sql") for path in (ROOT / top).rglob("*.[ps][yq]*"))


def test_every_mechanism_that_a_promise_names_exists(product: str) -> None:
    for row in promises():
        for name in NAME.findall(row.held_by):
            assert re.search(rf"\b{name}\b", product), f"the product has no {name}: {row.promise}"
