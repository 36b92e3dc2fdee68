"""compose.yaml gives each program its own login, which docker/logins.sql makes, and only the secrets that it needs."""

import os
import re
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml
from litestar.testing import AsyncTestClient

from routines_api.app import create_app
from routines_core.db import connect, runs
from routines_core.db.migrations import migrate
from routines_core.db.roles import role_report
from routines_core.db.tick import tick
from routines_core.embedded import EmbeddedServer
from routines_core.embedded.binaries import find_psql
from support.command import routines
from support.rows import CATCHUP, Database, api_settings, make_key, with_database, with_login
from support.service import ROOT

PROGRAMS = ("api", "ticker", "worker")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
EXAMPLE = re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE)
PASSWORDS = {name: name.lower() for name in EXAMPLE if name.endswith("_PASSWORD")}
IMAGES = {"POSTGRES_IMAGE", "PYTHON_IMAGE"}
SECRETS = {*PASSWORDS, "ROUTINES_ENCRYPTION_KEYS"}


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = COMPOSE["services"][name]
    return found


def login_of(name: str) -> tuple[str, str]:
    """Return the login of a service and the name of the variable with its password."""
    environment = service(name)["environment"]
    found = re.fullmatch(r"\$\{(\w+)(:\?.*)?\}", environment["PGPASSWORD"])
    assert found
    return str(urlsplit(environment["DATABASE_URL"]).username), found[1]


def secrets_of(name: str) -> set[str]:
    return {secret for secret in SECRETS if f"${{{secret}" in str(service(name).get("environment"))}


@pytest.mark.parametrize(
    ("name", "login", "secrets"),
    [
        ("api", "routines_api", {"ROUTINES_API_PASSWORD", "ROUTINES_ENCRYPTION_KEYS"}),
        ("ticker", "routines_ticker", {"ROUTINES_TICKER_PASSWORD"}),
        ("worker", "routines_worker", {"ROUTINES_WORKER_PASSWORD", "ROUTINES_ENCRYPTION_KEYS"}),
        ("migrate", "routines_owner", {"ROUTINES_OWNER_PASSWORD"}),
        ("admin", "routines_owner", {"ROUTINES_OWNER_PASSWORD", "ROUTINES_ENCRYPTION_KEYS"}),
    ],
)
def test_a_service_has_its_own_login_and_only_the_secrets_it_needs(name: str, login: str, secrets: set[str]) -> None:
    assert login_of(name) == (login, f"{login.upper()}_PASSWORD")
    assert secrets_of(name) == secrets


def test_every_variable_of_the_file_is_in_the_example() -> None:
    named = set(re.findall(r"\$\{(\w+)", (ROOT / "compose.yaml").read_text("utf-8")))
    assert named - IMAGES == set(EXAMPLE)
    assert set(re.findall(r"^# (\w+_IMAGE)=", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE)) == IMAGES


def test_base_images_can_be_replaced_by_digests_without_a_change_of_the_files() -> None:
    # The defaults of both files are the same, so that `docker build` and compose build the same image.
    argument = service("api")["build"]["args"]["PYTHON_IMAGE"]
    default = re.search(r"^ARG PYTHON_IMAGE=(.*)$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert default
    assert argument == f"${{PYTHON_IMAGE:-{default[1]}}}"
    assert service("postgres")["image"].startswith("${POSTGRES_IMAGE:-postgres:")


def test_programs_run_confined_and_the_data_is_on_the_volume() -> None:
    for name in ("migrate", "admin", *PROGRAMS):
        made = service(name)
        assert (made["init"], made["read_only"], made["cap_drop"]) == (True, True, ["ALL"])
        assert made["security_opt"] == ["no-new-privileges:true"]
    assert "files:/files" not in str(service("ticker"))
    postgres = service("postgres")
    assert "ports" not in postgres
    [volume] = [each.split(":")[1] for each in postgres["volumes"] if each.startswith("database:")]
    # Images before 18 declare a volume at /var/lib/postgresql/data, which is dropped at `down`.
    assert Path(postgres["environment"]["PGDATA"]).parent == Path(volume)


@pytest.mark.parametrize("image", [service("postgres")["image"], (ROOT / "Dockerfile").read_text("utf-8")])
def test_base_images_have_exact_versions(image: str) -> None:
    assert re.search(r"(postgres:|PYTHON_IMAGE=python:)\d+(\.\d+)+-(slim-)?[a-z]+", image)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """A cluster as the image makes it: the database, and then the script."""
    server = EmbeddedServer(tmp_path_factory.mktemp("compose"), settings={"fsync": "off"})
    server.start()
    try:
        script = next(each for each in service("postgres")["volumes"] if "docker-entrypoint-initdb.d" in each)
        psql = find_psql()
        assert psql
        subprocess.run(
            [psql, "--no-psqlrc", "--quiet", "-f", str(ROOT / script.split(":")[0]), server.url("routines")],
            env={**os.environ, **PASSWORDS},
            check=True,
        )
        yield server.url("routines")
    finally:
        server.stop()


def url_of(cluster: str, name: str) -> str:
    login, password = login_of(name)
    return with_login(cluster, login, PASSWORDS[password])


async def test_the_service_works_with_these_logins(cluster: str) -> None:
    async with connect(url_of(cluster, "migrate"), "migrate") as owner:
        await migrate(owner)
        report = await role_report(owner)
        assert (report.is_owner, report.bypasses_row_security, report.missing_roles) == (True, False, [])
        assert not report.lets_create_temporary_tables
        key = await make_key(owner, "my-org")
    async with AsyncTestClient(create_app(api_settings(), url_of(cluster, "api"))) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        task = {"name": "echo", "workflow": {"steps": [], "step_configs": {}}}
        assert (await client.post("/api/v1/tasks/my-org", json=task)).status_code == 201
        assert (await client.post("/api/v1/run/my-org/echo", json={})).status_code in {200, 201, 202}
    async with connect(url_of(cluster, "ticker"), "ticker", role="routines_ticker") as ticker:
        assert (await tick(ticker, batch_size=10, **CATCHUP)).claimed == 0
    async with connect(url_of(cluster, "worker"), "worker", role="routines_worker") as worker:
        claimed = await runs.claim(worker, worker="w", capacity=5, lease_seconds=60, deadline_seconds=60)
        assert claimed
    for name in PROGRAMS:
        async with connect(url_of(cluster, name), name) as program:
            report = await role_report(program)
            assert (report.is_owner, report.bypasses_row_security) == (False, False)
            assert report.can_take_roles == [f"routines_{name}"]
        done = routines(Database(url_of(cluster, name)), "doctor", "--quick", keys="")
        assert done.returncode == 0, done.stdout + done.stderr
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            psycopg.connect(with_database(url_of(cluster, name), "postgres"))


def test_no_login_has_the_rights_of_an_administrator(cluster: str) -> None:
    with psycopg.connect(cluster) as admin:
        cursor = admin.execute(
            """SELECT count(*), bool_or(rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)
               FROM pg_roles WHERE rolname LIKE 'routines\\_%'"""
        )
        assert cursor.fetchone() == (5, False)


def test_health_checks_ask_the_programs_and_not_the_doctor() -> None:
    """`doctor` starts a whole command, and connects to the database, each time."""
    checks = {name: " ".join(service(name)["healthcheck"]["test"]) for name in PROGRAMS}
    assert checks == {
        "api": "CMD python -m routines_cli.probe /readyz",
        "ticker": "CMD python -m routines_cli.probe /readyz 9464",
        "worker": "CMD python -m routines_cli.probe /readyz 9464",
    }
    for name in ("ticker", "worker"):
        assert service(name)["environment"]["ROUTINES_METRICS_PORT"] == "9464"


def test_the_image_has_an_init_and_asks_the_api_whether_it_is_ready() -> None:
    image = (ROOT / "Dockerfile").read_text("utf-8")
    assert 'ENTRYPOINT ["tini", "-s", "--", "routines"]' in image
    assert '["python", "-m", "routines_cli.probe", "/readyz"]' in image
