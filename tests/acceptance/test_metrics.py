"""Scrape real processes as an operator does: counts match the ledger, and alerts fire when something is wrong."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from routines_core.lifecycle import LIFELINE_VARIABLE
from support.rows import ENCRYPTION_KEYS, Database, with_database
from support.scraping import Page, scrape, scrape_until
from support.service import ROUTINES, Service, clean_environment, far_minute, free_port, wait_until

pytestmark = pytest.mark.slow

CANARY = "canary-of-a-tenant"
TOKEN = "a token of more than 16"


def two_free_ports() -> int:
    """Return a free TCP port whose successor is free too."""
    while True:
        port = free_port()
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port + 1))
            return port


@pytest.fixture
def service(tmp_path: Path) -> Generator[Service]:
    """Yield a service whose ticker and worker each have a management listener."""
    service = Service(
        tmp_path,
        ROUTINES_METRICS_PORT=str(two_free_ports()),
        ROUTINES_MAX_INIT_PARAMS_BYTES="1024",
        ROUTINES_WEBHOOK_ALLOW_PRIVATE="true",
    )
    service.start()
    yield service
    if service.process.poll() is None:
        service.stop()


def metrics_url(service: Service, program: str) -> str:
    """Return where a program of `routines up` shows its metrics.

    The ticker listens on ROUTINES_METRICS_PORT, the worker on the next port, and the API shows its own on /metrics.
    """
    port = int(service.environment["ROUTINES_METRICS_PORT"])
    urls = {"api": service.url, "ticker": f"http://127.0.0.1:{port}", "worker": f"http://127.0.0.1:{port + 1}"}
    return f"{urls[program]}/metrics"


def make_due(service: Service, name: str, hours_ago: int = 0) -> None:
    """Make the routine's next slot due: this moment, which was never a slot before, or some hours earlier."""
    service.execute(
        f"""UPDATE routines.routines SET next_run_at = now() - interval '{hours_ago} hours'
            WHERE name = '{CANARY}-{name}'"""
    )


def outcomes(service: Service) -> dict[str, int]:
    """Return the number of slots in the ledger by outcome: `started`, or the reason of a skip."""
    rows = service.execute(
        "SELECT coalesce(reason, outcome), sum(slot_count)::integer FROM routines.occurrences GROUP BY 1"
    )
    return dict(rows)


def counted(page: Page) -> dict[str, int]:
    """Return the same numbers as the ticker counts them."""
    reasons = {reason: page.total("routines_ticker_skipped_slots_total", reason=reason)
               for reason in ("overlap", "missed", "failed_to_start")}  # fmt: skip
    found = {"started": page.total("routines_ticker_fires_total"), **reasons}
    return {name: int(count) for name, count in found.items() if count}


def test_metrics_match_the_ledger_and_show_nothing_of_any_tenant(service: Service) -> None:
    api, ticker, worker = (metrics_url(service, program) for program in ("api", "ticker", "worker"))
    for program, url in {"api": api, "ticker": ticker, "worker": worker}.items():
        page = scrape_until(url, lambda page: page.has("routines_build_info"), wait_until)
        assert [sample.labels["program"] for sample in page.families["routines_build_info"].samples] == [program]
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
            cadence = {"type": "hourly", "minute_utc": far_minute()}
            body = {"name": f"{CANARY}-{name}", "cadence": cadence, "webhook_url": hook}
            made = client.post(f"/routines/demo/{CANARY}", json={**body, **secrets, "init_params_overrides": overrides})
            assert made.status_code == 201, made.text
    service.execute("UPDATE routines.routines SET paused = true WHERE name = 'every-hour'")
    # One routine is blocked by a run that does not end.
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
    page = scrape_until(ticker, lambda page: counted(page) == expected, wait_until)
    assert page.total("routines_ticker_start_delay_seconds_count") == expected["started"]
    assert page.total("routines_ticker_paused_total") == 1
    ended = "SELECT count(*) FROM routines.trajectories WHERE status = 'completed'"
    page = scrape_until(
        worker,
        lambda page: page.total("routines_worker_run_duration_seconds_count", status="completed") == 2,
        wait_until,
    )
    assert service.execute(ended) == [(2,)]
    assert page.total("routines_worker_steps_total", activity="text_echo", outcome="completed") == 2
    scrape_until(worker, lambda page: page.total("routines_worker_deliveries_total", outcome="failed") == 2, wait_until)
    page = scrape_until(api, lambda page: page.total("routines_paused_by_strikes") == 1, wait_until)
    assert page.total("routines_active_runs", status="running") == 1
    for reason in ("overlap", "missed", "failed_to_start"):
        assert page.total("routines_skipped_slots_last_hour", reason=reason) == expected[reason]
    assert page.total("routines_api_requests_total", status="201") == 5
    shown = [scrape(url).text for url in (api, ticker, worker)]
    for word in (CANARY, "demo", "hello", "every-hour", (service.data_dir / "demo.key").read_text().strip()):
        assert not any(word in text for text in shown), word


def test_the_age_of_the_oldest_due_slot_reveals_a_frozen_ticker_and_drops_once_it_resumes(service: Service) -> None:
    api, ticker, worker = (metrics_url(service, program) for program in ("api", "ticker", "worker"))
    for url in (ticker, worker):
        scrape_until(url, lambda page: page.has("routines_build_info"), wait_until)
    frozen = service.program_pid("ticker")
    os.kill(frozen, signal.SIGSTOP)
    service.execute("UPDATE routines.routines SET next_run_at = now() - interval '70 seconds'")
    try:
        page = scrape_until(api, lambda page: page.total("routines_oldest_due_seconds") > 60, wait_until)
        assert page.total("routines_due") == 1
        with pytest.raises(httpx.TimeoutException):
            httpx.get(ticker, timeout=1)
        assert scrape(worker).has("routines_build_info")
    finally:
        os.kill(frozen, signal.SIGCONT)
    scrape_until(api, lambda page: not page.total("routines_due"), wait_until)
    scrape_until(ticker, lambda page: page.total("routines_ticker_fires_total") == 1, wait_until)


# --- programs on their own --------------------------------------------------------------------------------------------


class Program:
    """A `routines <name>` process with a management listener, on a test's database."""

    def __init__(self, name: str, database: Database, **settings: object) -> None:
        self.port = free_port()
        self.management = f"http://127.0.0.1:{self.port}"
        lifeline, self.lifeline_end = os.pipe()
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
        """Return the status and body of /health, or status 0 if nothing answers."""
        try:
            answer = httpx.get(f"{self.management}/health", timeout=10)
        except httpx.TransportError:
            return 0, None
        return answer.status_code, answer.json()

    def stop(self) -> None:
        """Stop the process, gracefully if possible."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        finally:
            self.process.kill()
            os.close(self.lifeline_end)


@contextmanager
def programs(database: Database, **settings: object) -> Generator[dict[str, Program]]:
    """Yield an API, a ticker and a worker that are healthy, by name."""
    with ExitStack() as stack:
        started: dict[str, Program] = {}
        for name in ("api", "ticker", "worker"):
            own = {"PORT": free_port(), "HOST": "127.0.0.1"} if name == "api" else {}
            started[name] = Program(name, database, **own, **settings)
            stack.callback(started[name].stop)
        for program in started.values():
            wait_until(lambda program=program: program.health()[0] == 200, 60)
        yield started


def test_each_program_shows_its_own_metrics_and_the_api_notices_a_killed_ticker_and_worker(database: Database) -> None:
    with programs(database) as started:
        for name, program in started.items():
            lag = "routines_process_event_loop_lag_seconds_count"
            own = scrape_until(
                f"{program.management}/metrics",
                lambda page, lag=lag, name=name: page.total(lag, program=name),
                wait_until,
            )
            assert own.total("routines_build_info", program=name) == 1
            assert own.has("routines_database_up") is (name == "api")
        url = f"{started['api'].management}/metrics"
        connected = ("routines_tickers_connected", "routines_workers_connected")
        scrape_until(url, lambda page: [page.total(name) for name in connected] == [1, 1], wait_until)
        for name in ("ticker", "worker"):
            started[name].process.kill()
            started[name].process.wait()
            assert started[name].health()[0] == 0
        scrape_until(url, lambda page: [page.total(name) for name in connected] == [0, 0], wait_until)


def test_every_program_reports_a_database_outage_and_is_healthy_again_after_it(
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
        scrape_until(
            f"{started['api'].management}/metrics", lambda page: page.total("routines_database_up") == 1, wait_until
        )


def test_a_frozen_ticker_does_not_answer_health_checks(database: Database) -> None:
    with programs(database) as started:
        started["ticker"].process.send_signal(signal.SIGSTOP)
        began_at = time.monotonic()
        with pytest.raises(httpx.TimeoutException):
            httpx.get(f"{started['ticker'].management}/health", timeout=1)
        assert time.monotonic() - began_at < 10


def test_every_listener_requires_the_token_once_it_is_set(database: Database) -> None:
    with programs(database, METRICS_TOKEN=TOKEN) as started:
        for program in started.values():
            assert httpx.get(f"{program.management}/metrics").status_code == 401
            assert scrape(f"{program.management}/metrics", TOKEN).has("routines_build_info")
