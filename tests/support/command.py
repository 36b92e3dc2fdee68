"""Run the command `routines` as a separate process on a test's database."""

import os
import subprocess
import sys

from support.rows import ENCRYPTION_KEYS, Database


def routines(
    database: Database, *arguments: str, keys: str = ENCRYPTION_KEYS, stdin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command and return its exit code and output."""
    plain = {name: text for name, text in os.environ.items() if not name.startswith("ROUTINES_")}
    return subprocess.run(
        [sys.executable, "-m", "routines_cli.main", *arguments],
        input=stdin,
        env={**plain, "DATABASE_URL": database.url, "ROUTINES_ENCRYPTION_KEYS": keys, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
