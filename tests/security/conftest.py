"""Provide a separate login for each role of Routines: the rights of a program that has no others to fall back on."""

import secrets
from collections.abc import Generator

import psycopg
import pytest
from psycopg import sql

from support.rows import Database, with_login

ROLES = ("routines_api", "routines_ticker", "routines_worker", "routines_reader")


@pytest.fixture(scope="session")
def passwords(server_url: str, template: str) -> Generator[dict[str, tuple[str, str]]]:
    """Yield for each role a login that is a member of that role only, and the login's password."""
    assert template  # its migrations have created the roles
    logins = {role: (f"{role}_{secrets.token_hex(4)}", secrets.token_hex(8)) for role in ROLES}
    with psycopg.connect(server_url, autocommit=True) as admin:
        for role, (login, password) in logins.items():
            made = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}")
            admin.execute(made.format(sql.Identifier(login), sql.Literal(password), sql.Identifier(role)))
        yield logins
        for login, _ in logins.values():
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(login)))


@pytest.fixture
def logins(database: Database, passwords: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Return for each role the URL of the test's database for a login that is a member of that role only."""
    return {role: with_login(database.url, *login) for role, login in passwords.items()}
