"""Who may see comes before what is valid."""

from typing import Any

from litestar.testing import AsyncTestClient

Client = AsyncTestClient[Any]


async def test_without_a_key_no_parameter_is_looked_at(client: Client) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    asked = 0
    for path, operations in paths.items():
        for method, operation in operations.items():
            names = [each["name"] for each in operation.get("parameters", []) if each["in"] == "query"]
            if not names or operation.get("security") == []:
                continue
            target = path.replace("{collection}", "my-org")
            answers = [
                await client.request(method, target, params={name: "x"}, headers={"Authorization": ""})
                for name in names
            ]
            assert (method, path, {answer.status_code for answer in answers}) == (method, path, {401})
            asked += 1
    assert asked > 5
