"""Reads task files for `routines tasks apply`."""

from routines_api.http.json_body import JsonLimits, decode
from routines_api.schemas.faults import validate
from routines_api.schemas.tasks import TaskCreate

LIMITS = JsonLimits(depth=32, string_length=1_000_000, items=10_000)
"""Limits of a file; operators may use longer strings than API clients."""


def read_task(text: bytes) -> TaskCreate:
    """Parse a task file and validate it by the rules of the API.

    Raises:
        InvalidError: It is not JSON or breaks a rule; the message names each field.
    """
    return validate(TaskCreate, decode(text, LIMITS))
