"""The endpoints of a collection's environment variables."""

from litestar import get, patch

from routines_api.http.access import Caller
from routines_api.http.sealing import environment_change
from routines_api.openapi.description import operation
from routines_api.schemas.environment import Environment, EnvironmentPatch
from routines_core.db import collections as db
from routines_core.errors import ConflictError, Fault, FaultsError
from routines_core.mask import MASK


@get("/collections/{collection:str}/environment", tags=["Collections"], **operation("getEnvironment"))
async def get_environment(caller: Caller) -> Environment:
    """List the environment variables.

    Values are masked. Steps see them together with the secret params of their run.
    """
    return await _environment(caller)


@patch(
    "/collections/{collection:str}/environment",
    tags=["Collections"],
    **operation("updateEnvironment", body=EnvironmentPatch, conflict=True),
)
async def update_environment(caller: Caller) -> Environment:
    """Set and remove environment variables.

    Null removes a variable, the mask keeps its stored value, and variables left out are kept. Stored encrypted.
    """
    body = await caller.body(EnvironmentPatch)
    sealed, removed, kept = environment_change(caller, body.environment_variables)
    if not await db.patch_environment(
        caller.connection, key_id=caller.key_id, sealed=sealed, removed=removed, kept=kept
    ):
        await _explain(caller, kept)
    return await _environment(caller)


async def _environment(caller: Caller) -> Environment:
    names = await db.environment_names(caller.connection, caller.key_id)
    return Environment(dict.fromkeys(names, MASK))


async def _explain(caller: Caller, kept: list[str]) -> None:
    """Raise an error that explains why nothing changed."""
    existing = await db.environment_names(caller.connection, caller.key_id)
    rule = f"{MASK} keeps a stored value, but none is stored: send the value itself"
    faults = [Fault(f"environment_variables.{name}", rule) for name in kept if name not in existing]
    if faults:
        raise FaultsError(faults)
    raise ConflictError("The environment was changed at the same time: send the request again.")


HANDLERS = [get_environment, update_environment]
