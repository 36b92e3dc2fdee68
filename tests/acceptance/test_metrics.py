"""What an operator scrapes, of real processes: counts that are the ledger's, and alerts when something is wrong."""

import os
import signal
import subprocess
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from routines_core.lifecycle import LIFELINE_VARIABLE
from support.rows import ENCRYPTION_KEYS, Database, with_database
from support.scraping import Page, awaited, scrape
from support.service import ROUTINES, Service, clean_environment, free_port, wait_until

pytestmark = pytest.mark.slow

CANARY = "canary-of-a-tenant"
TOKEN = "a token of more than 16"


@pytest.fixture
def service(tmp_path: Path) -> Generator[Service]:
    service = Service(tmp_path, ROUTINES_MAX_INIT_PARAMS_BYTES="1024", ROUTINES_WEBHOOK_ALLOW_PRIVATE="true")
    service.start()
    yield service
    if service.process.poll() is None:
        service.stop()


def make_due(service: Service, name: str, hours_ago: int = 0) -> None:
    """Its next slot is this moment, which no slot was before, or the same some hours earlier."""
    service.execute(
        f"""UPDATE routines.routines SET next_run_at = now() - interval '{hours_ago} hours'
            WHERE name = '{CANARY}-{name}'"""
    )


def outcomes(service: Service) -> dict[str, int]:
    """Slots by their outcome in the ledger: `started`, or the reason of a skip."""
    rows = service.execute(
        "SELECT coalesce(reason, outcome), sum(slot_count)::integer FROM routines.occurrences GROUP BY 1"
    )
    return dict(rows)


def counted(page: Page) -> dict[str, int]:
    """The same as the ticker counts them."""
    reasons = {reason: page.total("routines_ticker_skipped_slots_total", reason=reason)
               for reason in ("overlap", "missed", "failed_to_start")}  # fmt: skip
    found = {"started": page.total("routines_ticker_fires_total"), **reasons}
    return {name: int(count) for name, count in found.items() if count}


def test_one_scrape_tells_of_all_parts_what_the_ledger_holds_and_nothing_of_any_tenant(service: Service) -> None:
    url = f"{service.url}/metrics"
    page = awaited(url, lambda page: page.total("routines_part_up") == 2, wait_until)
    assert {sample.labels["program"] for sample in page.families["routines_build_info"].samples} == {
        "api",
        "ticker",
        "worker",
    }
    with service.client() as client:
        task = {"init_params": {"text": CANARY}, "steps": [CANARY], "step_configs": {CANARY: {"activity": "text_echo", "text": CANARY}}}  # noqa: E501  # fmt: skip
        assert client.post("/tasks/demo", json={"name": CANARY, "workflow": task}).status_code == 201
        for name in ("plain", "blocked", "late", "bad"):
            secrets: dict[str, Any] = {
                "secret_params": {"KEY": f"{CANARY}-secret"},
                "webhook_secret": f"{CANARY}-signs",
            }
            hook = f"http://127.0.0.1:{free_port()}/{CANARY}"
            overrides = {"text": "x" * 2000} if name == "bad" else {}
            body = {"name": f"{CANARY}-{name}", "cadence": {"type": "hourly"}, "webhook_url": hook}
            made = client.post(f"/routines/demo/{CANARY}", json={**body, **secrets, "init_params_overrides": overrides})
            assert made.status_code == 201, made.text
    # A run that lasts for ever, for all that anybody knows, holds up one of them.
    service.execute(
        f"""INSERT INTO routines.trajectories (collection_id, task_id, task_version, triggered_by_routine_id, trigger,
                                               init_params, status, lease_expires_at)
            SELECT collection_id, task_id, 1, id, 'run-now', '{{}}', 'running', now() + interval '1 hour'
            FROM routines.routines WHERE name = '{CANARY}-blocked'"""
    )
    make_due(service, "plain")
    make_due(service, "blocked")
    make_due(service, "late", hours_ago=4)
    for strike in range(1, 4):
        make_due(service, "bad")
        wait_until(lambda strike=strike: outcomes(service).get("failed_to_start") == strike)
    wait_until(lambda: service.execute("SELECT count(*) FROM routines.routines WHERE next_run_at <= now()") == [(0,)])
    expected = outcomes(service)
    assert set(expected) == {"started", "overlap", "missed", "failed_to_start"}
    page = awaited(url, lambda page: counted(page) == expected, wait_until)
    assert page.total("routines_ticker_start_delay_seconds_count") == expected["started"]
    assert page.total("routines_ticker_paused_total") == 1
    ended = "SELECT count(*) FROM routines.trajectories WHERE status = 'completed'"
    page = awaited(
        url, lambda page: page.total("routines_worker_run_duration_seconds_count", status="completed") == 2, wait_until
    )
    assert service.execute(ended) == [(2,)]
    assert page.total("routines_worker_steps_total", activity="text_echo", outcome="completed") == 2
    page = awaited(url, lambda page: page.total("routines_worker_deliveries_total", outcome="failed") == 2, wait_until)
    page = awaited(url, lambda page: page.total("routines_paused_by_strikes") == 1, wait_until)
    assert page.total("routines_active_runs", status="running") == 1
    for reason in ("overlap", "missed", "failed_to_start"):
        assert page.total("routines_skipped_slots_last_hour", reason=reason) == expected[reason]
    assert page.total("routines_api_requests_total", status="201") == 5
    for word in (CANARY, "demo", "hello", "every-hour", (service.data_dir / "demo.key").read_text().strip()):
        assert word not in page.text


def test_a_frozen_ticker_shows_in_the_age_of_the_oldest_slot_and_a_ticker_that_goes_on_ends_the_alert(
    service: Service,
) -> None:
    url = f"{service.url}/metrics"
    awaited(url, lambda page: page.total("routines_part_up") == 2, wait_until)
    ticker = service.part("ticker")
    os.kill(ticker, signal.SIGSTOP)
    service.execute("UPDATE routines.routines SET next_run_at = now() - interval '70 seconds'")
    try:
        page = awaited(url, lambda page: page.total("routines_oldest_due_seconds") > 60, wait_until)
        assert page.total("routines_due") == 1
        assert page.total("routines_part_up", part="ticker") == 0
        assert page.total("routines_part_up", part="worker") == 1
        assert not page.has("routines_ticker_since_success_seconds")
    finally:
        os.kill(ticker, signal.SIGCONT)
    page = awaited(url, lambda page: page.total("routines_part_up") == 2 and not page.total("routines_due"), wait_until)
    assert page.total("routines_ticker_fires_total") == 1


# --- programs by themselves -------------------------------------------------------------------------------------------


class Program:
    """A `routines <name>` with a management listener, on a database of the test."""

    def __init__(self, name: str, database: Database, **settings: object) -> None:
        self.port = free_port()
        self.management = f"http://127.0.0.1:{self.port}"
        lifeline, self.held = os.pipe()
        defaults = {"METRICS_PORT": self.port, "ENCRYPTION_KEYS": ENCRYPTION_KEYS, "LEASE_SECONDS": 2}
        given = {f"ROUTINES_{key}": str(text) for key, text in {**defaults, **settings}.items()}
        self.process = subprocess.Popen(
            [*ROUTINES, name],
            env={**clean_environment(), **given, "DATABASE_URL": database.url, LIFELINE_VARIABLE: str(lifeline)},
            pass_fds=[lifeline],
            stderr=subprocess.DEVNULL,
        )
        os.close(lifeline)

    def health(self) -> tuple[int, Any]:
        """Status and body of /health; status 0 where nobody answers."""
        try:
            answer = httpx.get(f"{self.management}/health", timeout=10)
        except httpx.TransportError:
            return 0, None
        return answer.status_code, answer.json()

    def stop(self) -> None:
        """End it, in order where it can be."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        finally:
            self.process.kill()
            os.close(self.held)


@contextmanager
def programs(database: Database, **settings: object) -> Generator[dict[str, Program]]:
    with ExitStack() as stack:
        started: dict[str, Program] = {}
        for name in ("api", "ticker", "worker"):
            own = {"PORT": free_port(), "HOST": "127.0.0.1"} if name == "api" else {}
            started[name] = Program(name, database, **own, **settings)
            stack.callback(started[name].stop)
        for program in started.values():
            wait_until(lambda program=program: program.health()[0] == 200, 60)
        yield started


def test_each_program_shows_its_own_and_a_killed_ticker_and_worker_are_missed(database: Database) -> None:
    with programs(database) as started:
        for name, program in started.items():
            own = scrape(f"{program.management}/metrics")
            assert own.total("routines_build_info", program=name) == 1
            assert own.has("routines_database_up") is (name == "api")
        url = f"{started['api'].management}/metrics"
        connected = ("routines_tickers_connected", "routines_workers_connected")
        awaited(url, lambda page: [page.total(name) for name in connected] == [1, 1], wait_until)
        for name in ("ticker", "worker"):
            started[name].process.kill()
            started[name].process.wait()
            assert started[name].health()[0] == 0
        awaited(url, lambda page: [page.total(name) for name in connected] == [0, 0], wait_until)


def test_a_database_that_is_away_shows_everywhere_and_programs_are_healthy_again_once_it_is_back(
    database: Database, server_url: str
) -> None:
    name = urlsplit(database.url).path.removeprefix("/")
    with (
        programs(database) as started,
        psycopg.connect(with_database(server_url, "postgres"), autocommit=True) as admin,
    ):
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        try:
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            for program in started.values():
                wait_until(lambda program=program: program.health()[0] == 503, 60)
                assert program.health()[1]["status"] == "failing"
            page = scrape(f"{started['api'].management}/metrics")
            assert page.total("routines_database_up") == 0
            ticker = scrape(f"{started['ticker'].management}/metrics")
            assert ticker.total("routines_ticker_database_connected") == 0
            assert ticker.total("routines_ticker_database_failures_total") >= 1
            worker = scrape(f"{started['worker'].management}/metrics")
            assert worker.total("routines_worker_database_failures_total") >= 1
        finally:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())
        for program in started.values():
            wait_until(lambda program=program: program.health()[0] == 200, 60)
        awaited(
            f"{started['api'].management}/metrics", lambda page: page.total("routines_database_up") == 1, wait_until
        )


def test_a_frozen_ticker_is_no_health_at_all_and_does_not_answer(database: Database) -> None:
    with programs(database) as started:
        started["ticker"].process.send_signal(signal.SIGSTOP)
        began_at = time.monotonic()
        with pytest.raises(httpx.TimeoutException):
            httpx.get(f"{started['ticker'].management}/health", timeout=1)
        assert time.monotonic() - began_at < 10


def test_with_a_token_every_listener_asks_for_it(database: Database) -> None:
    with programs(database, METRICS_TOKEN=TOKEN) as started:
        for program in started.values():
            assert httpx.get(f"{program.management}/metrics").status_code == 401
            assert scrape(f"{program.management}/metrics", TOKEN).has("routines_build_info")
