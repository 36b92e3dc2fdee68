"""From what people send to what is stored: secrets sealed on the way in, masks understood."""

from collections.abc import Mapping

import msgspec

from routines_api.access import Caller
from routines_api.requests import MASK, CadenceConfig, RoutineCreate, RunCreate
from routines_api.requests import RoutinePatch as PatchBody
from routines_core.db.routines import Cadence, RoutinePatch, RoutineSpec
from routines_core.db.secrets import SealedSecret, SecretKind, seal
from routines_core.db.trajectories import RunSpec

_UNCHANGED = {"name", "init_params_overrides", "webhook_url", "paused", "catchup_window_seconds"}
"""The fields of a PATCH that are stored as they are sent."""


def create_spec(caller: Caller, body: RoutineCreate) -> RoutineSpec:
    """The routine to save, its secrets sealed for the caller's collection."""
    return RoutineSpec(
        name=body.name,
        cadence=cadence_of(body.cadence),
        init_params_overrides=body.init_params_overrides,
        secret_params={name: _seal(caller, text, "secret_param") for name, text in body.secret_params.items()},
        webhook_url=body.webhook_url,
        webhook_secret=_seal(caller, body.webhook_secret, "webhook_secret") if body.webhook_secret else None,
        paused=body.paused,
        catchup_window_seconds=body.catchup_window_seconds,
    )


def run_spec(caller: Caller, body: RunCreate, file_paths: list[str] | None) -> RunSpec:
    """The run to start, its secrets sealed for the caller's collection."""
    return RunSpec(
        init_params=body.init_params,
        secret_params={name: _seal(caller, text, "secret_param") for name, text in body.secret_params.items()},
        webhook_url=body.webhook_url,
        webhook_secret=_seal(caller, body.webhook_secret, "webhook_secret") if body.webhook_secret else None,
        file_paths=file_paths,
    )


def environment_change(
    caller: Caller, variables: Mapping[str, str | None]
) -> tuple[dict[str, SealedSecret], list[str], list[str]]:
    """What a change of the environment sets, sealed; the names that it removes; and those that a mask keeps."""
    new = {name: text for name, text in variables.items() if text is not None and text != MASK}
    return (
        {name: _seal(caller, text, "environment") for name, text in new.items()},
        [name for name, text in variables.items() if text is None],
        [name for name, text in variables.items() if text == MASK],
    )


def patch_spec(caller: Caller, body: PatchBody) -> RoutinePatch:
    """The change to make: fields that were not sent stay UNSET, and so does a webhook_secret that is the mask."""
    sent = body.model_fields_set
    change = RoutinePatch(
        **{field: getattr(body, field) for field in sent & _UNCHANGED},
        keeps_webhook_secret=body.webhook_secret == MASK,
    )
    if "cadence" in sent:
        change = msgspec.structs.replace(change, cadence=cadence_of(body.cadence))
    if "secret_params" in sent:
        change = msgspec.structs.replace(change, secret_params=_seal_new(caller, body.secret_params))
    if "webhook_secret" in sent and body.webhook_secret != MASK:
        sealed = _seal(caller, body.webhook_secret, "webhook_secret") if body.webhook_secret else None
        change = msgspec.structs.replace(change, webhook_secret=sealed)
    return change


def cadence_of(config: CadenceConfig) -> Cadence:
    """The cadence in the database's terms: a minute that is null is the default."""
    return Cadence(config.type, config.hour_utc, config.minute_utc or 0, config.day_of_week)


def _seal(caller: Caller, plaintext: str, kind: SecretKind) -> SealedSecret:
    return seal(caller.services.keyring, plaintext, collection_id=caller.auth.collection_id, kind=kind)


def _seal_new(caller: Caller, secrets: Mapping[str, str]) -> dict[str, SealedSecret | None]:
    """Each sealed; None in the place of a mask."""
    return {name: None if secret == MASK else _seal(caller, secret, "secret_param") for name, secret in secrets.items()}
