"""The command `routines` in a process of its own, on a test's database."""

import os
import subprocess
import sys

from support.rows import ENCRYPTION_KEYS, Database


def routines(
    database: Database, *arguments: str, keys: str = ENCRYPTION_KEYS, stdin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    plain = {name: text for name, text in os.environ.items() if not name.startswith("ROUTINES_")}
    return subprocess.run(
        [sys.executable, "-m", "routines_cli.main", *arguments],
        input=stdin,
        env={**plain, "DATABASE_URL": database.url, "ROUTINES_ENCRYPTION_KEYS": keys, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
