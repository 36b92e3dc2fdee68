"""Cadences by HTTP: the types that exist, and the slots of a cadence before it is saved."""

from typing import Any

import pytest
from litestar.testing import AsyncTestClient

from routines_core.cadence import CADENCES, CadenceField, CadenceType
from routines_core.db import Connection
from support.rows import value

Client = AsyncTestClient[Any]
TYPES = "/api/v1/cadence-types/my-org"
PREVIEW = "/api/v1/cadence-preview/my-org"


def read(cadence: CadenceType, field: CadenceField) -> dict[str, Any]:
    """Return how the type uses the field, as the service says it."""
    limits = {"minimum": field.minimum, "maximum": field.maximum, "choices": list(field.choices) or None}
    limits |= {"format": field.format, "example": field.example or None}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    return {"required": field in cadence.required, "default": field.default, **given}


async def test_the_types_are_listed_in_display_order_with_the_fields_that_they_take(client: Client) -> None:
    answer = await client.get(TYPES)
    assert answer.status_code == 200
    listed = [(each["type"], each["fields"]) for each in answer.json()]
    assert listed == [
        (cadence.name, {field.name: read(cadence, field) for field in cadence.fields}) for cadence in CADENCES
    ]
    assert listed[1] == ("hourly", {"minute_utc": {"required": False, "default": 0, "minimum": 0, "maximum": 59}})
    days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    assert dict(listed)["weekly"]["day_of_week"] == {"required": True, "default": None, "choices": days}
    zone = {"required": False, "default": "UTC", "format": "timezone", "example": "Europe/Berlin"}
    assert dict(listed)["cron"]["timezone"] == zone


async def test_each_listed_type_can_be_saved_with_its_required_fields(client: Client) -> None:
    """A client that fills in only the required fields sends a valid cadence."""
    for each in (await client.get(TYPES)).json():
        required = {name: field for name, field in each["fields"].items() if field["required"]}
        given = {
            name: field.get("example", field.get("choices", [field.get("minimum")])[0])
            for name, field in required.items()
        }
        body = {"name": each["type"], "cadence": {"type": each["type"], **given}}
        assert (await client.post("/api/v1/routines/my-org/echo", json=body)).status_code == 201


async def test_a_preview_lists_the_coming_slots_of_a_cadence_and_saves_nothing(
    client: Client, connection: Connection
) -> None:
    body = {"cadence": {"type": "weekly", "hour_utc": 9, "day_of_week": "mon"}, "count": 2}
    answer = await client.post(PREVIEW, json=body)
    assert (answer.status_code, len(answer.json()["slots"])) == (200, 2)
    assert await value(connection, "SELECT count(*) FROM routines.routines") == 0


async def test_a_preview_names_every_field_that_breaks_a_rule(client: Client) -> None:
    bad = await client.post(PREVIEW, json={"cadence": {"type": "weekly"}, "count": 101})
    fields = [error["field"] for error in bad.json()["errors"]]
    assert (bad.status_code, fields) == (400, ["cadence.hour_utc", "cadence.day_of_week", "count"])


@pytest.mark.parametrize("body", ["null", "1", '"name"', '["name"]', "{}"])
async def test_a_preview_without_a_cadence_answers_400(client: Client, body: str) -> None:
    headers = {"Content-Type": "application/json"}
    assert (await client.post(PREVIEW, content=body, headers=headers)).status_code == 400


async def test_a_task_named_preview_is_an_ordinary_task(client: Client) -> None:
    path = "/api/v1/routines/my-org/preview"
    cadence = {"cadence": {"type": "manual"}}
    assert (await client.post(path, json={"name": "r", **cadence})).status_code == 404
    await client.post("/api/v1/tasks/my-org", json={"name": "preview", "workflow": {}})
    nameless = await client.post(path, json=cadence)
    assert (nameless.status_code, nameless.json()["detail"]) == (400, "name: is required.")
    made = await client.post(path, json={"name": "r", **cadence})
    assert (made.status_code, made.json()["task_name"]) == (201, "preview")
    assert len((await client.get(path)).json()) == 1
    assert (await client.get(f"{path}/r")).status_code == 200
