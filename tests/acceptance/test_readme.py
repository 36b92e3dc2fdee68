"""The commands in the README and the docs work as printed, one block after another in one folder."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from routines_core.embedded.binaries import find_binaries
from support.rows import with_database
from support.service import ROOT, Service

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="the walk needs curl and bash"),
]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
WALK = "## Five minutes with curl and psql"


def blocks(page: Path, language: str | None = None, *, heading: str = "") -> list[tuple[str, str]]:
    """Return language and text of each code block of a page, or of its section under a heading."""
    text = page.read_text("utf-8")
    if heading:
        text = text.partition(heading)[2].partition("\n## ")[0]
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [block for block in found if language in {None, block[0]}]


def command(service: Service, language: str, text: str) -> str:
    """Return what a shell runs for a block.

    Only the port differs from the page, since 8080 may be taken, and waits are longer, since other tests keep the
    machine busy.
    """
    if language == "sql":
        text = f'psql -v ON_ERROR_STOP=1 "$(.venv/bin/routines doctor --url)" <<"END"\n{text}\nEND\n'
    return text.replace("http://127.0.0.1:8080", service.url).replace("sleep 1\n", "sleep 6\n")


COMPANY = """BEGIN:VCALENDAR
BEGIN:VEVENT
DTSTART;VALUE=DATE:20271231
SUMMARY:Stocktaking
END:VEVENT
END:VCALENDAR
"""


def run(service: Service, *commands: str) -> str:
    """Run commands in one shell, as a reader would paste them, and return what they print.

    A machine without psql uses the server's own.
    """
    (service.directory / ".venv").exists() or (service.directory / ".venv").symlink_to(sys.prefix)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(commands)],
        cwd=service.directory,
        env={**service.environment, "PATH": f"{os.environ['PATH']}:{find_binaries()}", "PAGER": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_walk_of_the_readme_works_as_printed(service: Service) -> None:
    printed = "".join(run(service, command(service, language, text)) for language, text in blocks(README, heading=WALK))
    assert "urn:routines:problem:" not in printed, "a request was refused"
    assert '"name":"morning"' in printed
    assert '"status":"completed"' in printed
    assert "Good morning, team!" in printed
    assert "up to date" in printed
    assert "next_run_at" in printed  # printed by \d+
    assert "UPDATE 1" in printed


def test_the_walk_shows_http_and_sql() -> None:
    assert {language for language, _ in blocks(README, heading=WALK)} == {"sh", "sql"}


def test_the_readme_stays_short() -> None:
    assert len(README.read_text("utf-8").splitlines()) < 130


def test_the_tutorial_works_as_printed(service: Service) -> None:
    steps = [block for block in blocks(DOCS / "start" / "tutorial.md") if block[0] in {"sh", "sql"}]
    printed = run(service, *(command(service, *step) for step in steps))  # one shell: later steps use its functions
    assert "urn:routines:problem:" not in printed, "a request was refused"
    assert "For blue: days [1,2,3]" in printed
    assert "step 'days' failed: must be an integer, got a string, at $.count" in printed
    assert "No slot: the routine was created later" in printed
    assert '"status":"completed"' in printed


def test_tasks_are_saved_changed_and_deleted_as_the_page_says(service: Service) -> None:
    steps = [text for _, text in blocks(DOCS / "use" / "tasks.md", "sh")]
    printed = run(service, *(command(service, "sh", text) for text in steps))
    assert "urn:routines:problem:" not in printed, "a request was refused"
    assert "Good morning, blue!" in printed
    assert "Task greet was deleted." in printed


def test_cadences_are_previewed_as_the_page_says(service: Service) -> None:
    given = f"KEY=$(cat .routines/demo.key) API={service.url}/api/v1"
    (service.directory / "company.ics").write_text(COMPANY, "utf-8")
    texts = [text for _, text in blocks(DOCS / "start" / "choosing-a-cadence.md", "sh")]
    printed = run(service, given, *texts)
    assert "urn:routines:problem:" not in printed, "a request was refused"
    assert printed.count('"slots":[') == 3
    assert '"warnings":["02:30 does not exist in Europe/Berlin on 2127-03-30; it fires at 03:00.",' in printed
    assert '"suggestions":[' in printed
    assert '"buckets":[' in printed
    assert '"type":"weekdays"' in printed


def test_reports_are_made_as_the_page_says(service: Service) -> None:
    given = f"KEY=$(cat .routines/demo.key) API={service.url}/api/v1"
    texts = [text for _, text in blocks(DOCS / "use" / "reports.md", "sh")]
    printed = run(service, given, *texts)
    assert "urn:routines:problem:" not in printed, "a request was refused"
    assert printed.count('"total":{"expected":') == 2
    assert '"task":"hello","routine":"every-hour","routine_id":1,"deleted":false,' in printed
    assert "task,routine,routine_id,deleted,expected,started,on_time,late," in printed
    assert (service.directory / "report.csv").read_text("utf-8").splitlines()[1].startswith("hello,every-hour,1,false,")
    assert printed.endswith("[][]")


def test_the_statements_of_the_operations_page_work(service: Service) -> None:
    questions = blocks(DOCS / "run" / "operations.md", "sql")
    assert questions
    for question in questions:
        assert "row" in run(service, command(service, *question))


def test_a_backup_can_be_taken_and_restored_as_the_page_says(service: Service) -> None:
    [(_, backup)] = blocks(DOCS / "run" / "backup.md", "sh")
    service.execute("CREATE DATABASE restored")
    restored = with_database(service.database_url(), "restored")
    tools = f'PATH={find_binaries()}:$PATH; DATABASE_URL="{restored}"; routines() {{ .venv/bin/routines "$@"; }}'
    run(service, tools, backup)
    with psycopg.connect(restored) as connection:
        assert connection.execute("SELECT name FROM routines.routines").fetchall() == [("every-hour",)]
