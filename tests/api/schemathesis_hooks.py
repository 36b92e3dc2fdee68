"""Hooks loaded by schemathesis: before each call, recreate what an earlier case may have renamed or deleted."""

import os
from typing import Any

import httpx
import schemathesis

URL = os.environ["ROUTINES_TEST_URL"]
CLIENT = httpx.Client(base_url=URL, headers={"Authorization": f"Bearer {os.environ['ROUTINES_TEST_KEY']}"})
TASKS, ROUTINES = "/api/v1/tasks/my-org", "/api/v1/routines/my-org/echo"
TASK = {"workflow": {"init_params": {"text": "hello"}}}
ROUTINE = {"cadence": {"type": "manual"}}
CALENDARS = "/api/v1/calendars/my-org"
ALERT_RULES = "/api/v1/alert-rules/my-org"
ALERT_RULE = {"on": ["failed"], "webhook_url": "https://example.com/alerts"}
RECREATED: dict[str, tuple[str, dict[str, Any]]] = {
    "updateRoutine": (ROUTINES, {"name": "kept", **ROUTINE}),
    "deleteRoutine": (ROUTINES, {"name": "doomed", **ROUTINE}),
    "updateTask": (TASKS, {"name": "spare", **TASK}),
    "deleteTask": (TASKS, {"name": "doomed", **TASK}),
}


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:
    name = case.operation.definition.raw.get("operationId")
    made = RECREATED.get(name)
    if made:
        CLIENT.post(made[0], json=made[1])
    if name == "deleteCalendar":
        CLIENT.put(f"{CALENDARS}/doomed", json={"days": []})
    elif name == "getCalendar":
        CLIENT.put(f"{CALENDARS}/kept", json={"days": [{"from": "2026-12-24", "label": "Christmas"}]})

    if name in {"getAlertRule", "deleteAlertRule"}:
        CLIENT.put(f"{ALERT_RULES}/{'kept' if name == 'getAlertRule' else 'doomed'}", json=ALERT_RULE)


@schemathesis.serializer("text/calendar")
def calendar_file(_context: Any, value: Any) -> bytes:
    """Send a generated text as the file, or as the title of an event of a valid one. Other values are no such title."""
    text = str(value)
    if isinstance(value, str) and len(text) % 2:
        lines = (
            "BEGIN:VCALENDAR",
            "BEGIN:VEVENT",
            "DTSTART:20261224",
            f"SUMMARY:{text}",
            "END:VEVENT",
            "END:VCALENDAR",
        )
        text = "\r\n".join(lines)
    return text.encode(errors="replace")
