"""All settings. A program reads them from the environment once, at start, and passes them on."""

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from routines_core.errors import ConfigurationError

SHORTEST_AUDIT_DAYS = 7
"""No program can delete a younger entry of the audit."""


class Settings(BaseSettings):
    """The settings of all programs; each alias is the name of an environment variable."""

    # The names of fields are for code. With this prefix no variable can have one: without it, HOST, PORT and
    # TEMPORAL_ADDRESS, which are meant for other programs, would be taken for settings.
    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, env_prefix="=")

    database_url: str | None = Field(default=None, alias="DATABASE_URL", repr=False)
    """URL of the Postgres database; None: the embedded server of the data directory."""
    own_database_url: str | None = Field(default=None, alias="ROUTINES_DATABASE_URL", repr=False)
    """The same in a variable that no other tool sets; it wins over DATABASE_URL."""
    enable_routines: bool = Field(default=False, alias="ENABLE_ROUTINES")
    """Whether the endpoints for routines exist; without it they answer 404."""
    host: str = Field(default="127.0.0.1", alias="ROUTINES_HOST")
    """IP address the API listens on."""
    port: int = Field(default=8080, ge=1, le=65535, alias="ROUTINES_PORT")
    """Port the API listens on."""
    console: bool = Field(default=True, alias="ROUTINES_CONSOLE")
    """Whether the API serves the web console at /console."""
    data_dir: Path = Field(default=Path(".routines"), alias="ROUTINES_DATA_DIR")
    """Directory in which `routines up` keeps its database, encryption key and the demo's API key."""
    encryption_keys: str | None = Field(default=None, alias="ROUTINES_ENCRYPTION_KEYS", repr=False)
    """Encryption keys as `id:base64 of 32 bytes`, separated by commas; the first one encrypts."""
    encryption_keys_file: Path | None = Field(default=None, alias="ROUTINES_ENCRYPTION_KEYS_FILE")
    """File with the encryption keys, used instead of ROUTINES_ENCRYPTION_KEYS."""
    log_format: str = Field(default="console", pattern="^(console|json)$", alias="ROUTINES_LOG_FORMAT")
    """`console` for people, `json` for machines."""

    rate_per_second: float = Field(default=500, gt=0, le=1_000_000, alias="ROUTINES_RATE_PER_SECOND")
    """Sustained requests per second allowed for one API key, across all API processes."""
    rate_burst: int = Field(default=1000, ge=1, le=1_000_000, alias="ROUTINES_RATE_BURST")
    """Requests that one API key may make in a burst."""
    max_body_bytes: int = Field(default=256 * 1024, ge=1024, alias="ROUTINES_MAX_BODY_BYTES")
    """Maximum size of a request body, in bytes."""
    max_header_bytes: int = Field(default=16 * 1024, ge=1024, alias="ROUTINES_MAX_HEADER_BYTES")
    """Maximum total size of a request's header names and values, in bytes."""
    max_json_depth: int = Field(default=32, ge=4, le=500, alias="ROUTINES_MAX_JSON_DEPTH")
    """Maximum nesting of arrays and objects in a body; the body itself is the first level."""
    max_string_length: int = Field(default=64 * 1024, ge=256, alias="ROUTINES_MAX_STRING_LENGTH")
    """Maximum length of a string in a body, in characters."""
    max_items: int = Field(default=10_000, ge=100, alias="ROUTINES_MAX_ITEMS")
    """Maximum number of items in an array or object of a body."""
    header_timeout_seconds: float = Field(default=10, ge=1, alias="ROUTINES_HEADER_TIMEOUT_SECONDS")
    """Time a client may take to send the headers of a request."""
    body_timeout_seconds: float = Field(default=10, gt=0, alias="ROUTINES_BODY_TIMEOUT_SECONDS")
    """Time a client may take to send the body of a request."""

    max_buffered_bytes: int = Field(default=64 * 1024 * 1024, ge=1024, alias="ROUTINES_MAX_BUFFERED_BYTES")
    """Maximum total size of the bodies that one API process buffers at once, in bytes."""
    max_buffered_bytes_per_collection: int = Field(
        default=16 * 1024 * 1024, ge=1024, alias="ROUTINES_MAX_BUFFERED_BYTES_PER_COLLECTION"
    )
    """The same for the requests of one collection."""
    max_connections: int = Field(default=2048, ge=16, le=1_000_000, alias="ROUTINES_MAX_CONNECTIONS")
    """Maximum number of client connections that one API process has open; further ones wait to be accepted."""
    work_seconds_per_minute: float = Field(default=20, gt=0, le=6000, alias="ROUTINES_WORK_SECONDS_PER_MINUTE")
    """Processor seconds per minute that one key may use in one API process for parsing and checking bodies."""

    files: str | None = Field(default=None, alias="ROUTINES_FILES")
    """Where files are stored: a directory or `s3://bucket/prefix`; None: `files` in the data directory."""
    max_files: int = Field(default=20, ge=0, le=1000, alias="ROUTINES_MAX_FILES")
    """Maximum number of files in one request."""
    max_file_bytes: int = Field(default=32 * 1024 * 1024, ge=0, alias="ROUTINES_MAX_FILE_BYTES")
    """Maximum size of a file, in bytes."""
    max_upload_bytes: int = Field(default=128 * 1024 * 1024, ge=1024, alias="ROUTINES_MAX_UPLOAD_BYTES")
    """Maximum size of a request body with files, in bytes."""
    max_uploads: int = Field(default=32, ge=1, le=10_000, alias="ROUTINES_MAX_UPLOADS")
    """Maximum number of uploads in progress in one API process; one collection may have three quarters of them."""
    upload_timeout_seconds: float = Field(default=300, gt=0, alias="ROUTINES_UPLOAD_TIMEOUT_SECONDS")
    """Time a client may take to send a body with files."""
    run_sync_seconds: float = Field(default=300, ge=0, alias="ROUTINES_RUN_SYNC_SECONDS")
    """How long run-sync waits for its run to end before it answers 202."""
    run_sync_waiters: int = Field(default=200, ge=0, alias="ROUTINES_RUN_SYNC_WAITERS")
    """Maximum number of run-sync requests waiting in one process; further ones are answered 202 at once."""

    tick_batch_size: int = Field(default=1000, ge=1, le=10_000, alias="ROUTINES_TICK_BATCH_SIZE")
    """Maximum number of routines that one tick claims."""
    hourly_catchup_seconds: float = Field(default=3600, ge=0, alias="ROUTINES_HOURLY_CATCHUP_SECONDS")
    """Maximum age at which the newest missed slot of an hourly routine still fires after an outage."""
    catchup_seconds: float = Field(default=12 * 3600, ge=0, alias="ROUTINES_CATCHUP_SECONDS")
    """The same for every other cadence."""
    heartbeat_url: str | None = Field(default=None, pattern="^https?://", alias="ROUTINES_HEARTBEAT_URL", repr=False)
    """URL that each ticker requests once a minute while no slot has been due for over a minute; None: none."""
    max_init_params_bytes: int = Field(default=256 * 1024, ge=1024, alias="ROUTINES_MAX_INIT_PARAMS_BYTES")
    """Maximum size of a run's merged init_params as jsonb, in bytes; a fire that exceeds it fails to start."""

    worker_concurrency: int = Field(default=100, ge=1, le=1000, alias="ROUTINES_WORKER_CONCURRENCY")
    """Maximum number of runs that one worker has claimed at once."""
    worker_processes: int = Field(default=32, ge=1, le=1000, alias="ROUTINES_WORKER_PROCESSES")
    """Maximum number of step processes of a worker. Each runs one collection's workflows at a time."""
    step_memory_mib: int = Field(default=512, ge=64, le=65_536, alias="ROUTINES_STEP_MEMORY_MIB")
    """Memory in MiB that a step process may allocate beyond what it has when it starts."""
    step_stall_seconds: float = Field(default=5, ge=0.5, le=600, alias="ROUTINES_STEP_STALL_SECONDS")
    """How long a step may keep its process busy without a pause, in seconds."""
    max_run_bytes: int = Field(default=16 * 1024 * 1024, ge=1024, le=1024 * 1024 * 1024, alias="ROUTINES_MAX_RUN_BYTES")
    """Maximum size of the inputs and outputs of all steps of a run, in bytes of JSON."""
    lease_seconds: float = Field(default=15, ge=0.5, alias="ROUTINES_LEASE_SECONDS")
    """How long a claimed run stays with a worker that does not renew its lease; workers renew after a third of it."""
    run_deadline_seconds: float = Field(default=3600, gt=0, alias="ROUTINES_RUN_DEADLINE_SECONDS")
    """Maximum duration of a run, counted from its first claim."""
    engine: Literal["postgres", "temporal"] = Field(default="postgres", alias="ROUTINES_ENGINE")
    """What runs the workflows: the workers themselves (`postgres`) or a Temporal server."""
    temporal_address: str = Field(default="127.0.0.1:7233", alias="ROUTINES_TEMPORAL_ADDRESS")
    """Host and port of Temporal's frontend."""
    temporal_namespace: str = Field(default="default", alias="ROUTINES_TEMPORAL_NAMESPACE")
    """Temporal namespace, used by this database only."""
    temporal_task_queue: str = Field(default="routines", alias="ROUTINES_TEMPORAL_TASK_QUEUE")
    """Temporal task queue that the workers poll."""
    temporal_tls: bool = Field(default=False, alias="ROUTINES_TEMPORAL_TLS")
    """Whether to connect to Temporal with TLS; a certificate or an API key also turns it on."""
    temporal_insecure: bool = Field(default=False, alias="ROUTINES_TEMPORAL_INSECURE")
    """Whether to connect without TLS to a Temporal server that is not on loopback."""
    temporal_ca_file: Path | None = Field(default=None, alias="ROUTINES_TEMPORAL_CA_FILE")
    """PEM file of the CA that signed the server's certificate; None: the system's CAs."""
    temporal_cert_file: Path | None = Field(default=None, alias="ROUTINES_TEMPORAL_CERT_FILE")
    """PEM file of the client certificate, for mutual TLS."""
    temporal_key_file: Path | None = Field(default=None, alias="ROUTINES_TEMPORAL_KEY_FILE")
    """PEM file of the client certificate's key."""
    temporal_api_key: str | None = Field(default=None, alias="ROUTINES_TEMPORAL_API_KEY", repr=False)
    """API key for Temporal."""
    temporal_open_runs: int | None = Field(default=None, ge=0, le=100_000, alias="ROUTINES_TEMPORAL_OPEN_RUNS")
    """Maximum number of open runs in Temporal, across all workers; None: as many as the workers can execute; 0: no new
    ones are started there."""
    temporal_check_seconds: float = Field(default=30, ge=0.5, le=3600, alias="ROUTINES_TEMPORAL_CHECK_SECONDS")
    """How often to ask Temporal about runs that have been silent."""
    temporal_deployment: str | None = Field(default=None, min_length=1, alias="ROUTINES_TEMPORAL_DEPLOYMENT")
    """Name of the worker deployment in Temporal, with the versions of Routines; None: workers have no versions."""
    temporal_metrics: str | None = Field(default=None, pattern=r"^.+:\d+$", alias="ROUTINES_TEMPORAL_METRICS")
    """Host and port where a worker serves the metrics of Temporal's SDK; None: nowhere."""
    public_url: str | None = Field(default=None, pattern="^https?://", alias="ROUTINES_PUBLIC_URL")
    """Where people reach the API and its console; None: Temporal shows no links to runs."""
    temporal_ui: str | None = Field(default=None, pattern="^https?://.*[^/]$", alias="ROUTINES_TEMPORAL_UI")
    """Address of the namespace in Temporal's UI, without a slash at its end; None: runs have no links to Temporal."""
    webhook_allow_private: bool = Field(default=False, alias="ROUTINES_WEBHOOK_ALLOW_PRIVATE")
    """Whether webhooks and HTTP steps may reach loopback and private addresses."""

    keep_trajectories_days: float = Field(default=90, ge=0, le=36500, alias="ROUTINES_KEEP_TRAJECTORIES_DAYS")
    """How long an ended run is kept with its steps; 0: forever."""
    keep_deliveries_days: float = Field(default=30, ge=0, le=36500, alias="ROUTINES_KEEP_DELIVERIES_DAYS")
    """How long a webhook is kept after it was delivered or given up; 0: forever."""
    keep_skips_days: float = Field(default=0, ge=0, le=36500, alias="ROUTINES_KEEP_SKIPS_DAYS")
    """How long a skipped slot is kept; 0: forever."""
    keep_audit_days: float = Field(default=365, ge=0, le=36500, alias="ROUTINES_KEEP_AUDIT_DAYS")
    """How long an entry of the audit is kept, at least 7; 0: forever."""

    keep_alerts_days: float = Field(default=90, ge=0, le=36500, alias="ROUTINES_KEEP_ALERTS_DAYS")
    """How long an alert is kept after it was over; 0: forever."""

    operator_token: str | None = Field(default=None, min_length=32, alias="ROUTINES_OPERATOR_TOKEN", repr=False)
    """Bearer token with which an operator sets limits by HTTP; None: the endpoints for it do not exist."""
    metrics_port: int | None = Field(default=None, ge=1, le=65535, alias="ROUTINES_METRICS_PORT")
    """Port of this program's management listener, which serves /metrics and /health; None: no listener."""
    metrics_host: str = Field(default="127.0.0.1", alias="ROUTINES_METRICS_HOST")
    """Address that the management listener listens on."""
    metrics_token: str | None = Field(default=None, min_length=16, alias="ROUTINES_METRICS_TOKEN", repr=False)
    """Bearer token required to read /metrics; None: no token required on loopback."""

    @property
    def has_data_dir(self) -> bool:
        """Whether keys and files may be found in the data directory without being named.

        Not if the database is elsewhere: then a folder that happens to be the current one must not decide which
        encryption key a program uses, or where it looks for files.
        """
        return self.database_url is None or "data_dir" in self.model_fields_set

    @model_validator(mode="after")
    def _own_url_wins(self) -> "Settings":
        self.database_url = self.own_database_url or self.database_url
        return self

    @field_validator("keep_audit_days")
    @classmethod
    def _keeps_a_week(cls, days: float) -> float:
        """Refuse less than the database keeps whatever is set: see the policy `kept` of routines.audit."""
        if 0 < days < SHORTEST_AUDIT_DAYS:
            raise ValueError(f"must be 0 or at least {SHORTEST_AUDIT_DAYS}")
        return days

    @field_validator(
        "metrics_token",
        "metrics_port",
        "operator_token",
        "temporal_open_runs",
        "temporal_deployment",
        "temporal_metrics",
        "public_url",
        "temporal_ui",
        "heartbeat_url",
        mode="before",
    )
    @classmethod
    def _empty_is_not_set(cls, given: object) -> object:
        """Treat an empty value, as in `NAME=` of an environment file, as not set."""
        return None if given == "" else given


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        ConfigurationError: At least one is invalid; the message names each variable and its rule, never its value.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ConfigurationError(f"Invalid settings: {faults}.") from None


NEAR = 0.7
"""How similar a name must be to be suggested, from 0 to 1."""
_OTHER_VARIABLES = frozenset({"ROUTINES_POSTGRES_BIN", "ROUTINES_LIFELINE_FD"})
"""Variables that are no settings of Settings."""
_OF_ANOTHER_TOOL = re.compile(
    r"ROUTINES_(TEST|CHAOS|ISOLATION)(_|$)|.*_(SERVICE_HOST|SERVICE_PORT\w*|PORT(_\d+_\w+)?)$"
)
"""Of our tests, and those that Kubernetes sets for each service."""


def misspelt_variables(names: Iterable[str] = os.environ) -> dict[str, str | None]:
    """Return the variables that look like settings and are none, each with the nearest setting, if any is near."""
    known = {str(field.alias) for field in Settings.model_fields.values()} | _OTHER_VARIABLES
    unknown = [
        name
        for name in names
        if name.startswith("ROUTINES_") and name not in known and not _OF_ANOTHER_TOOL.match(name)
    ]
    return {name: _nearest(name, known) for name in sorted(unknown)}


def _nearest(name: str, known: Iterable[str]) -> str | None:
    # Without the prefix that all of them share.
    by_end = {each.removeprefix("ROUTINES_"): each for each in known}
    near = get_close_matches(name.removeprefix("ROUTINES_"), by_end, n=1, cutoff=NEAR)
    return by_end[near[0]] if near else None
