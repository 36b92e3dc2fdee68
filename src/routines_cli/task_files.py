"""Tasks in files, for `routines tasks apply`."""

from routines_api.http.json_body import JsonLimits, decode
from routines_api.schemas.requests import TaskCreate, validate

LIMITS = JsonLimits(depth=32, string_length=1_000_000, items=10_000)
"""How much a file may hold: an operator's, so that its texts may be longer than those of a request."""


def read_task(text: bytes) -> TaskCreate:
    """The task that the file describes, held to the rules of the API.

    Raises:
        InvalidError: It is no JSON, or breaks a rule; the message names each field.
    """
    return validate(TaskCreate, decode(text, LIMITS))
