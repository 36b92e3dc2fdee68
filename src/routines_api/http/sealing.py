"""Conversion of requests to what is stored: secrets are encrypted, and masks keep stored values."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from routines_api.http.access import Caller
from routines_api.schemas.cadences import CadenceConfig
from routines_api.schemas.routines import RoutineCreate, RoutinePatch
from routines_api.schemas.runs import RerunCreate, RoutineRunNow, RunCreate
from routines_core.db.routines import Cadence, RoutineChanges, RoutineSpec, RunNow, draw_routine_id, find_routine
from routines_core.db.secrets import SealedSecret, SecretKind, seal
from routines_core.db.trajectories import RerunSpec, RunSpec, draw_trajectory_id, find_run_of_key
from routines_core.errors import InvalidError
from routines_core.guarded_http import refuse_forbidden_url
from routines_core.keyring import owner_of_routine, owner_of_run
from routines_core.mask import MASK

_OF_PAUSE = {"paused_until", "paused_note"}
_BOUNDS = {"starts_at", "ends_at"}
_RULES = {"calendar", "active_hours", "retry"}
_TIMING = {"paused", "catchup_window_seconds", "spread_seconds", "timeout_seconds", "pause_after_failures"}
_OVERLAP = {"overlap_policy", "max_concurrent"}
_PARAMS = {"init_params_overrides", "init_params_from_slot"}
_UNCHANGED = {"name", "webhook_url"} | _PARAMS | _TIMING | _OVERLAP | _OF_PAUSE | _BOUNDS
"""The fields of a PATCH that are stored as they are sent."""


async def create_spec(caller: Caller, body: RoutineCreate) -> RoutineSpec:
    """Return the routine to save, with its secrets encrypted for the caller's collection and the routine's new id."""
    refuse_forbidden_webhook(caller, body.webhook_url)
    if _is_too_long(caller, body.timeout_seconds):
        raise _too_long(caller)
    has_secrets = body.secret_params or body.webhook_secret
    new_id = await draw_routine_id(caller.connection, key_id=caller.key_id) if has_secrets else None
    sealer = Sealer(caller, owner_of_routine(new_id or 0))
    return RoutineSpec(
        id=new_id,
        name=body.name,
        cadence=cadence_of(body.cadence),
        init_params_overrides=body.init_params_overrides,
        secret_params=sealer.params(body.secret_params),
        webhook_url=body.webhook_url,
        webhook_secret=sealer.webhook_secret(body.webhook_secret),
        paused=body.paused,
        catchup_window_seconds=body.catchup_window_seconds,
        starts_at=body.starts_at,
        ends_at=body.ends_at,
        spread_seconds=body.spread_seconds,
        calendar=body.calendar and body.calendar.stored(),
        active_hours=body.active_hours and body.active_hours.stored(),
        init_params_from_slot=body.init_params_from_slot,
        timeout_seconds=body.timeout_seconds,
        retry=body.retry and body.retry.stored(),
        pause_after_failures=body.pause_after_failures,
        after_failures=body.then,
        overlap_policy=body.overlap_policy,
        max_concurrent=body.max_concurrent,
    )


async def run_spec(caller: Caller, body: RunCreate, file_paths: list[str] | None) -> RunSpec:
    """Return the run to start, with its secrets encrypted for the caller's collection and the run's new id."""
    refuse_forbidden_webhook(caller, body.webhook_url)
    has_secrets = body.secret_params or body.webhook_secret
    new_id = await draw_trajectory_id(caller.connection, key_id=caller.key_id) if has_secrets else None
    sealer = Sealer(caller, owner_of_run(new_id or 0, None))
    return RunSpec(
        id=new_id,
        init_params=body.init_params,
        secret_params=sealer.params(body.secret_params),
        webhook_url=body.webhook_url,
        webhook_secret=sealer.webhook_secret(body.webhook_secret),
        file_paths=file_paths,
    )


async def rerun_spec(caller: Caller, body: RerunCreate, trajectory_id: int) -> RerunSpec:
    """Return what is different in the rerun of a run, with its secrets encrypted for what started that run.

    Raises:
        NotFoundError: Secrets were sent for a run that does not exist.
    """
    spec = RerunSpec(body.from_step, body.init_params)
    if not (body.secret_params or body.webhook_secret):
        return spec
    run = await find_run_of_key(caller.connection, key_id=caller.key_id, trajectory_id=trajectory_id)
    new_id = await draw_trajectory_id(caller.connection, key_id=caller.key_id)
    sealer = Sealer(caller, owner_of_run(new_id, run.triggered_by_routine_id))
    return msgspec.structs.replace(
        spec,
        id=new_id,
        secret_params=sealer.params(body.secret_params),
        webhook_secret=sealer.webhook_secret(body.webhook_secret),
    )


async def run_now_spec(caller: Caller, body: RoutineRunNow, *, task: str, name: str) -> RunNow:
    """Return what is different in the run to start, with its secrets encrypted for the collection and the routine.

    Raises:
        NotFoundError: Secrets were sent for a routine that does not exist.
    """
    asked = RunNow(init_params=body.init_params, as_of=body.as_of, respect_overlap=body.respect_overlap)
    if not body.secret_params:
        return asked
    found = await find_routine(caller.connection, key_id=caller.key_id, task=task, name=name)
    secrets = Sealer(caller, owner_of_routine(found.id)).params(body.secret_params)
    return msgspec.structs.replace(asked, secret_params=secrets, routine_id=found.id)


def environment_change(
    caller: Caller, variables: Mapping[str, str | None]
) -> tuple[dict[str, SealedSecret], list[str], list[str]]:
    """Split a change of the environment.

    Returns:
        The new values, encrypted, by name; the names to remove; and the names whose stored value a mask keeps.
    """
    new = {name: text for name, text in variables.items() if text is not None and text != MASK}
    return (
        Sealer(caller, "").params(new, "environment"),
        [name for name, text in variables.items() if text is None],
        [name for name, text in variables.items() if text == MASK],
    )


async def patch_spec(caller: Caller, body: RoutinePatch, *, task: str, name: str) -> RoutineChanges:
    """Return the change to make. Fields that were not sent are UNSET, and so is a webhook_secret that is the mask.

    Raises:
        InvalidError: The new timeout is longer than a run may take.
        NotFoundError: Secrets, or such a timeout, were sent for a routine that does not exist.
    """
    sent = body.model_fields_set
    refuse_forbidden_webhook(caller, body.webhook_url)
    if _is_too_long(caller, body.timeout_seconds):
        found = await find_routine(caller.connection, key_id=caller.key_id, task=task, name=name)
        if body.timeout_seconds != found.timeout_seconds:  # otherwise it is sent back, and was allowed once
            raise _too_long(caller)
    # What a GET returned may be sent back with `paused` set to false: that resumes, which clears the end and the note.
    ignored = _OF_PAUSE if "paused" in sent and not body.paused else set[str]()
    change = RoutineChanges(
        **{field: getattr(body, field) for field in (sent & _UNCHANGED) - ignored},
        **{field: (rule := getattr(body, field)) and rule.stored() for field in sent & _RULES},
        keeps_webhook_secret=body.webhook_secret == MASK,
    )
    if "then" in sent:
        change = msgspec.structs.replace(change, after_failures=body.then)
    if "cadence" in sent:
        change = msgspec.structs.replace(change, cadence=cadence_of(body.cadence))
    if {"secret_params", "webhook_secret"} & sent:
        found = await find_routine(caller.connection, key_id=caller.key_id, task=task, name=name)
        return _with_secrets(Sealer(caller, owner_of_routine(found.id)), body, change, found.id)
    return change


def _with_secrets(sealer: "Sealer", body: RoutinePatch, change: RoutineChanges, routine_id: int) -> RoutineChanges:
    sent = body.model_fields_set
    change = msgspec.structs.replace(change, id=routine_id)
    if "secret_params" in sent:
        params = {name: text for name, text in body.secret_params.items() if text != MASK}
        kept = dict.fromkeys(body.secret_params)
        change = msgspec.structs.replace(change, secret_params={**kept, **sealer.params(params)})
    if "webhook_secret" in sent and body.webhook_secret != MASK:
        change = msgspec.structs.replace(change, webhook_secret=sealer.webhook_secret(body.webhook_secret))
    return change


def refuse_forbidden_webhook(caller: Caller, url: str | None) -> None:
    """Refuse a webhook_url that could never be called. Host names are resolved and checked when it is called.

    Raises:
        InvalidError: It is not a URL, or its host is an address that is not public.
    """
    if url is not None:
        allow_private = caller.services.settings.webhook_allow_private
        refuse_forbidden_url(url, allow_private=allow_private, field="webhook_url")


def _is_too_long(caller: Caller, timeout_seconds: int | None) -> bool:
    return timeout_seconds is not None and timeout_seconds > caller.services.settings.run_deadline_seconds


def _too_long(caller: Caller) -> InvalidError:
    most = caller.services.settings.run_deadline_seconds
    return InvalidError(f"timeout_seconds: must be at most {most:g}, as long as any run may take.", "timeout_seconds")


def cadence_of(config: CadenceConfig) -> Cadence:
    """Convert a cadence from a request to the database's struct, whose defaults stand in for other fields."""
    return Cadence(**config.used())


@dataclass(frozen=True)
class Sealer:
    """Encrypts secrets for the caller's collection.

    Attributes:
        owner: What the secrets belong to: `owner_of_routine`, `owner_of_run`, or empty for the collection.
    """

    caller: Caller
    owner: str

    def params(self, secrets: Mapping[str, str], kind: SecretKind = "secret_param") -> dict[str, SealedSecret]:
        """Encrypt each secret under its name."""
        return {name: self._seal(text, kind, name) for name, text in secrets.items()}

    def webhook_secret(self, plaintext: str | None) -> SealedSecret | None:
        """Encrypt a webhook secret; None if there is none."""
        return self._seal(plaintext, "webhook_secret", "") if plaintext else None

    def _seal(self, plaintext: str, kind: SecretKind, field: str) -> SealedSecret:
        collection_id = self.caller.auth.collection_id
        return seal(
            self.caller.services.keyring,
            plaintext,
            collection_id=collection_id,
            kind=kind,
            field=field,
            owner=self.owner,
        )
