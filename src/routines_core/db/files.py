"""Where the .sql files are: inside the installed package, or at the root of the checkout."""

from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


@cache
def sql_dir() -> Path:
    """The directory `sql/`: shipped in the wheel as routines_core/sql; an editable install uses the checkout's."""
    shipped = _PACKAGE / "sql"
    return shipped if shipped.is_dir() else _PACKAGE.parent.parent / "sql"
