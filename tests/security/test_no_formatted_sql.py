"""Check that src never builds SQL: every statement is a named one in sql/queries with bound parameters."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import routines_core

SRC = Path(routines_core.__file__).parent.parent
EXECUTES = {"execute", "executemany", "copy", "stream"}
SQL = re.compile(r"\s*(SELECT|INSERT\s+INTO|UPDATE|DELETE\s+FROM|WITH|MERGE|COPY|CREATE|ALTER|DROP|SET|DO)\s")
MIGRATION = "migration.text.encode()"
"""The whole text of a file in sql/migrations."""
PART = "part_of_migration.encode()"
"""One of the statements of such a file, where it builds an index."""
STATEMENT = "self._sql"
"""The text of a named statement."""
FIRST = "CREATE DATABASE routines;\n"
"""The statement that the embedded server runs before it has a database."""


def faults(source: str) -> list[str]:
    """Return the places in this module that build SQL, or might."""
    return [
        f"{getattr(node, 'lineno', 0)}: {fault}" for node in ast.walk(ast.parse(source)) for fault in faults_of(node)
    ]


def faults_of(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Call(func=ast.Attribute(attr=name), args=arguments) if name in EXECUTES:
            if arguments and ast.unparse(arguments[0]) not in {MIGRATION, PART, STATEMENT}:
                yield "executes something other than a named statement"
        case ast.Call(func=ast.Name(id="Statement"), args=arguments):
            if not (arguments and isinstance(arguments[0], ast.Constant)):
                yield "a statement without a fixed name"
        case ast.JoinedStr() | ast.Constant() if SQL.match(beginning(node)) and beginning(node) != FIRST:
            yield "SQL in a string"
        case ast.ImportFrom(module="psycopg.sql"):
            yield "psycopg.sql"
        case ast.ImportFrom(module="psycopg", names=names) if "sql" in {name.name for name in names}:
            yield "psycopg.sql"
        case _:
            pass


def beginning(node: ast.JoinedStr | ast.Constant) -> str:
    first = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else node
    return str(first.value) if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def test_no_module_builds_sql() -> None:
    modules = sorted(SRC.glob("routines_*/**/*.py"))
    assert len(modules) > 40
    assert {str(module): found for module in modules if (found := faults(module.read_text("utf-8")))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "connection.execute(f'SELECT {x}')",
        "connection.execute('SELECT ' + x)",
        "connection.execute('SELECT %s' % x)",
        "connection.execute('SELECT {}'.format(x))",
        "connection.execute(text)",
        "cursor.executemany(query, rows)",
        "cursor.copy(query)",
        "Statement(f'routines.{name}', Row)",
        "Statement(name, Row)",
        "query = f'DELETE FROM {table}'",
        "from psycopg import sql",
        "from psycopg.sql import SQL",
    ],
)
def test_built_sql_is_detected(source: str) -> None:
    assert faults(source)
