"""Run the README's walk as printed: its code blocks, one after the other, in one directory."""

import os
import re
import shutil
import subprocess
import sys

import psycopg
import pytest

from routines_core.embedded.binaries import find_binaries
from support.rows import with_database
from support.service import ROOT, Service

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="the walk needs curl and bash"),
]
WALK = "## Five minutes with curl and psql"


def blocks(page: str) -> list[tuple[str, str]]:
    """Return the language and the text of each code block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def operations(language: str) -> list[str]:
    page = blocks((ROOT / "docs" / "operations.md").read_text("utf-8"))
    return [text for its_language, text in page if its_language == language]


def walk() -> list[tuple[str, str]]:
    return blocks((ROOT / "README.md").read_text("utf-8").partition(WALK)[2].partition("\n## ")[0])


def run(service: Service, language: str, text: str) -> str:
    """Run a block as a reader would paste it and return its output.

    On a machine without psql, the one that comes with the embedded server is used.
    """
    if language == "sql":
        text = f'psql -v ON_ERROR_STOP=1 "$(.venv/bin/routines doctor --url)" <<"END"\n{text}\nEND\n'
    # The one difference from the printed text is the port, because 8080 may be taken.
    text = text.replace("http://127.0.0.1:8080", service.url)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=service.directory,
        env={**service.environment, "PATH": f"{os.environ['PATH']}:{find_binaries()}", "PAGER": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_walk_works_as_printed(service: Service) -> None:
    (service.directory / ".venv").symlink_to(sys.prefix)
    printed = ""
    for language, text in walk():
        printed += run(service, language, text)
    assert "urn:routines:problem:" not in printed, "a request was refused"
    assert '"name":"morning"' in printed
    assert '"status":"completed"' in printed
    assert "Good morning, team!" in printed
    assert "up to date" in printed
    assert "next_run_at" in printed  # printed by \d+
    assert "UPDATE 1" in printed


def test_the_walk_uses_http_and_sql() -> None:
    assert {language for language, _ in walk()} == {"sh", "sql"}


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 200


def test_the_queries_of_the_operations_page_run(service: Service) -> None:
    (service.directory / ".venv").symlink_to(sys.prefix)
    queries = [
        text for language, text in blocks((ROOT / "docs" / "operations.md").read_text("utf-8")) if language == "sql"
    ]
    assert queries
    for text in queries:
        assert "row" in run(service, "sql", text)


def test_a_backup_works_and_restores_as_the_operations_page_describes(service: Service) -> None:
    (service.directory / ".venv").symlink_to(sys.prefix)
    [backup] = [text for text in operations("sh") if "pg_dump" in text]
    service.execute("CREATE DATABASE restored")
    restored = with_database(service.database_url(), "restored")
    tools = f'PATH={find_binaries()}:$PATH; DATABASE_URL="{restored}"; routines() {{ .venv/bin/routines "$@"; }}'
    run(service, "sh", f"{tools}\n{backup}")
    with psycopg.connect(restored) as connection:
        assert connection.execute("SELECT name FROM routines.routines").fetchall() == [("every-hour",)]
