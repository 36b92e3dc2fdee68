"""The Python distribution that these packages are installed from. On package indexes, `routines` is another project."""

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "routines-scheduler"
"""Its name on a package index. The command and the packages to import keep their own names."""


def installed_version() -> str:
    """Return the installed version; `unknown` for a checkout that is on the path without being installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"


def how_to_install(extra: str) -> str:
    """Return the command that adds an extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"
