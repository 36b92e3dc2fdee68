"""Run the command `routines` as a separate process on a test's database."""

import os
import subprocess
import sys

from support.rows import ENCRYPTION_KEYS, Database

TASK = '{"name": "greet", "workflow": {}}'
COMMANDS = {
    "doctor": ("doctor",),
    "doctor --quick": ("doctor", "--quick"),
    "migrate": ("migrate",),
    "keys create": ("keys", "create", "--collection", "my-org"),
    "keys list": ("keys", "list"),
    "keys revoke": ("keys", "revoke", "1"),
    "keys rotate": ("keys", "rotate", "1"),
    "limits": ("limits",),
    "limits of": ("limits", "--collection", "my-org"),
    "limits set": ("limits", "set", "tasks", "3", "--collection", "my-org"),
    "limits set-default": ("limits", "set-default", "tasks", "3"),
    "limits reset": ("limits", "reset", "tasks"),
    "secrets rotate": ("secrets", "rotate"),
    "after-restore": ("after-restore",),
    "recompute": ("recompute",),
    "tasks apply": ("tasks", "apply", "-", "--collection", "my-org"),
}
"""Every command that uses the database and exits."""


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
