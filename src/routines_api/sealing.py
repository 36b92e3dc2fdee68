"""From what people send to what is stored: secrets sealed on the way in, masks understood."""

from collections.abc import Mapping

import msgspec

from routines_api.access import Caller
from routines_api.requests import MASK, CadenceConfig, RoutineCreate
from routines_api.requests import RoutinePatch as PatchBody
from routines_core.db.routines import Cadence, RoutinePatch, RoutineSpec
from routines_core.db.secrets import SealedSecret, SecretKind, seal
from routines_core.guarded_http import refuse_forbidden_url

_UNCHANGED = {"name", "init_params_overrides", "webhook_url", "paused", "catchup_window_seconds"}
"""The fields of a PATCH that are stored as they are sent."""


def create_spec(caller: Caller, body: RoutineCreate) -> RoutineSpec:
    """The routine to save, its secrets sealed for the caller's collection."""
    refuse_forbidden_webhook(caller, body.webhook_url)
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


def patch_spec(caller: Caller, body: PatchBody) -> RoutinePatch:
    """The change to make: fields that were not sent stay UNSET, and so does a webhook_secret that is the mask."""
    sent = body.model_fields_set
    refuse_forbidden_webhook(caller, body.webhook_url)
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


def refuse_forbidden_webhook(caller: Caller, url: str | None) -> None:
    """Refuse a webhook_url that could never be called; what its name leads to is asked when it is called.

    Raises:
        InvalidError: It is no URL, or its host is spelled as an address that is not public.
    """
    if url is not None:
        allow_private = caller.services.settings.webhook_allow_private
        refuse_forbidden_url(url, allow_private=allow_private, field="webhook_url")


def cadence_of(config: CadenceConfig) -> Cadence:
    """The cadence in the database's terms: a minute that is null is the default."""
    return Cadence(config.type, config.hour_utc, config.minute_utc or 0, config.day_of_week)


def _seal(caller: Caller, plaintext: str, kind: SecretKind) -> SealedSecret:
    return seal(caller.services.keyring, plaintext, collection_id=caller.auth.collection_id, kind=kind)


def _seal_new(caller: Caller, secrets: Mapping[str, str]) -> dict[str, SealedSecret | None]:
    """Each sealed; None in the place of a mask."""
    return {name: None if secret == MASK else _seal(caller, secret, "secret_param") for name, secret in secrets.items()}
