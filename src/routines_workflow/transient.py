"""Which errors of a step may go away by themselves."""

import httpx

from routines_core.errors import StorageError, TransientError
from routines_workflow.activity import AnsweredError

STATUSES = frozenset({408, 425, 429})
"""HTTP statuses below 500 that say to try again later."""
_ERRORS = (TransientError, TimeoutError, ConnectionError, StorageError, httpx.TransportError)


def is_transient(error: Exception) -> bool:
    """Return whether the cause of an error may go away by itself.

    That is so for timeouts, connections that fail, the HTTP statuses in STATUSES and those of 500 and above, and a file
    store that is away.
    """
    if isinstance(error, AnsweredError):
        status = error.answer["status"]
        return status in STATUSES or status >= 500  # noqa: PLR2004 - HTTP statuses
    return isinstance(error, _ERRORS)
