"""Use a revoked key and a mistyped one on real processes."""

from routines_core.db import Connection
from routines_core.db.keys import create_key, revoke_key
from routines_core.db.peppers import Peppers
from routines_core.keyring import Keyring
from support.rows import ENCRYPTION_KEYS, Database
from support.serving import api_process

PATH = "/api/v1/collections"


async def test_every_process_rejects_a_revoked_key_from_that_moment_on(
    connection: Connection, database: Database
) -> None:
    peppers = Peppers(Keyring.parse(ENCRYPTION_KEYS))
    revoked, other = [await create_key(connection, "my-org", peppers) for _ in range(2)]
    with api_process(database.url) as one, api_process(database.url) as two:
        clients = [api.client(key) for api in (one, two) for key in (revoked, other)]
        assert [client.get(PATH).status_code for client in clients for _ in range(3)] == [200] * 12
        await revoke_key(connection, 1)
        assert [client.get(PATH).status_code for client in clients] == [401, 200, 401, 200]
        mistyped = one.client(other[:-1] + ("a" if other[-1] != "a" else "b")).get(PATH)
        assert (mistyped.status_code, mistyped.headers["www-authenticate"]) == (401, "Bearer")
        assert "mistyped" in mistyped.json()["detail"]
        for client in clients:
            client.close()
