"""Tests the console with routines disabled, requests limited, the service down, and a large collection."""

import os
import signal
from collections.abc import Callable

import psycopg
import pytest
from selenium.webdriver import Chrome

from support.browsing import HURRY, Console
from support.rows import Database
from support.serving import TASK, ApiProcess, api_process, new_key

pytestmark = pytest.mark.slow
MANY = 1100
"""More routines than fit on one page of the API's list."""


@pytest.fixture
def open_console(browser: Chrome, database: Database) -> Callable[[ApiProcess], Console]:
    """Return a function that opens the console of a process, with a key of the collection my-org."""
    return lambda api: Console(browser, api.url, new_key(database, "my-org")).arrive()


def make_routines(api: ApiProcess, database: Database, number: int) -> None:
    with api.client(new_key(database, "my-org")) as client:
        assert client.post("/api/v1/tasks/my-org", json={"name": "echo", "workflow": TASK}).status_code == 201
        body = {"name": "the-first", "cadence": {"type": "daily", "hour_utc": 9}}
        assert client.post("/api/v1/routines/my-org/echo", json=body).status_code == 201
    with psycopg.connect(database.url) as connection:
        connection.execute(
            """INSERT INTO routines.routines (collection_id, task_id, name, cadence_type)
               SELECT collection_id, id, 'r-' || lpad(number::text, 5, '0'), 'hourly'
               FROM routines.tasks, generate_series(1, %s) AS number""",
            [number - 1],
        )


def test_disabled_routines_show_how_to_enable_them(
    database: Database, open_console: Callable[[ApiProcess], Console]
) -> None:
    with api_process(database.url, enable_routines=False) as api:
        console = open_console(api)
        console.sign_in()
        console.sees("ENABLE_ROUTINES=true", "main")
        console.press("Tasks and their runs")
        console.sees("No tasks yet")


def test_an_empty_collection_says_how_to_begin(
    database: Database, open_console: Callable[[ApiProcess], Console]
) -> None:
    with api_process(database.url) as api:
        console = open_console(api)
        console.sign_in()
        console.sees("Nothing is scheduled yet.")
        console.press("Create the first one")
        console.sees("No tasks yet")


def test_a_rate_limited_key_waits_as_long_as_the_service_says(
    database: Database, open_console: Callable[[ApiProcess], Console]
) -> None:
    with api_process(database.url) as plenty:
        make_routines(plenty, database, 3)
    with api_process(database.url, rate_per_second=2, rate_burst=1) as api:
        console = open_console(api)
        console.sign_in()
        console.sees("3 routines", "main")
        console.sees("r-00001", ".rows")
        assert any("429" in each for each in console.messages())


def test_an_unavailable_service_is_reported_and_can_be_retried(
    database: Database, open_console: Callable[[ApiProcess], Console]
) -> None:
    with api_process(database.url) as api:
        console = open_console(api)
        console.sign_in()
        console.sees("Nothing is scheduled yet.")
        # The database refuses connections, as in a failover: the API answers 503.
        with psycopg.connect(database.url, autocommit=True) as admin:
            name = admin.info.dbname
        with psycopg.connect(database.url.replace(name, "postgres"), autocommit=True) as admin:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            console.press("Tasks")
            console.sees("Try again", "main")
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())

        def is_back() -> bool:
            for again in console.all(".failure button"):
                again.click()
            return "No tasks yet" in console.title()

        console.until(is_back)


def test_a_large_collection_loads_completely_and_shows_one_screen_at_a_time(
    database: Database, open_console: Callable[[ApiProcess], Console]
) -> None:
    with api_process(database.url) as api:
        make_routines(api, database, MANY)
        console = open_console(api)
        console.sign_in()
        console.sees("1,100 routines, by", "main")
        assert len(console.all(".row")) == 50
        console.press("Show 50 more")
        console.until(lambda: len(console.all(".row")) == 100)
        console.type("#search", "the-first")
        console.until(lambda: len(console.all(".row")) == 1)
        asked = [each["url"] for each in console.requests() if "/api/" in each["url"]]
        assert len(asked) < 20, asked


def test_a_large_collection_is_refreshed_by_itself(
    database: Database, open_console: Callable[[ApiProcess], Console]
) -> None:
    with api_process(database.url) as api:
        make_routines(api, database, MANY)
        console = open_console(api)
        console.sign_in()
        with console.script(HURRY):
            console.driver.refresh()
            console.sees("1,100 routines, by", "main")
            with psycopg.connect(database.url) as connection:
                connection.execute("UPDATE routines.routines SET paused = true WHERE name = 'the-first'")
            console.sees("1 is paused", "main")


def test_a_frozen_server_leaves_the_current_page_in_place(
    database: Database, open_console: Callable[[ApiProcess], Console]
) -> None:
    with api_process(database.url) as api:
        console = open_console(api)
        console.sign_in()
        console.sees("Nothing is scheduled yet.")
        os.kill(api.process.pid, signal.SIGSTOP)
        try:
            console.press("Tasks")
            console.until(lambda: console.find(".progress").is_displayed())
            assert console.title() == "Nothing is scheduled yet."
        finally:
            os.kill(api.process.pid, signal.SIGCONT)
        console.sees("No tasks yet")
