"""Every setting, read from the environment once, when a program starts, and passed on from there."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from routines_core.errors import ConfigurationError


class Settings(BaseSettings):
    """The settings of all programs; a name in upper case is the environment variable."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True)

    database_url: str | None = Field(default=None, alias="DATABASE_URL", repr=False)
    """Where the state is; None: the embedded server of the data directory."""
    enable_routines: bool = Field(default=False, alias="ENABLE_ROUTINES")
    """Off, every endpoint of routines answers 404."""
    host: str = Field(default="127.0.0.1", alias="ROUTINES_HOST")
    """The address that the API listens on."""
    port: int = Field(default=8080, ge=1, le=65535, alias="ROUTINES_PORT")
    """The port that the API listens on."""
    console: bool = Field(default=True, alias="ROUTINES_CONSOLE")
    """Whether the API serves the web console at /console."""
    data_dir: Path = Field(default=Path(".routines"), alias="ROUTINES_DATA_DIR")
    """Where `routines up` keeps its database, encryption key and the demo's API key."""
    encryption_keys: str | None = Field(default=None, alias="ROUTINES_ENCRYPTION_KEYS", repr=False)
    """`id:base64 of 32 bytes`, several with commas between; the first encrypts."""
    encryption_keys_file: Path | None = Field(default=None, alias="ROUTINES_ENCRYPTION_KEYS_FILE")
    """A file that holds them, where they are not given themselves."""
    log_format: str = Field(default="console", pattern="^(console|json)$", alias="ROUTINES_LOG_FORMAT")
    """`console` for people, `json` for machines."""

    rate_per_second: float = Field(default=500, gt=0, le=1_000_000, alias="ROUTINES_RATE_PER_SECOND")
    """Requests per second that one API key may make over time, on all API processes together."""
    rate_burst: int = Field(default=1000, ge=1, le=1_000_000, alias="ROUTINES_RATE_BURST")
    """Requests that one API key may make at once."""
    max_body_bytes: int = Field(default=256 * 1024, ge=1024, alias="ROUTINES_MAX_BODY_BYTES")
    """The largest request body, in bytes."""
    max_header_bytes: int = Field(default=16 * 1024, ge=1024, alias="ROUTINES_MAX_HEADER_BYTES")
    """The most bytes that the names and values of a request's headers may have together."""
    max_json_depth: int = Field(default=32, ge=4, le=500, alias="ROUTINES_MAX_JSON_DEPTH")
    """How deep arrays and objects of a body may be nested; the body itself is the first level."""
    max_string_length: int = Field(default=64 * 1024, ge=256, alias="ROUTINES_MAX_STRING_LENGTH")
    """The most characters of one string of a body."""
    max_items: int = Field(default=10_000, ge=100, alias="ROUTINES_MAX_ITEMS")
    """The most items of one array or object of a body."""
    header_timeout_seconds: float = Field(default=10, ge=1, alias="ROUTINES_HEADER_TIMEOUT_SECONDS")
    """How long a client may take to send the headers of a request."""
    body_timeout_seconds: float = Field(default=10, gt=0, alias="ROUTINES_BODY_TIMEOUT_SECONDS")
    """How long a client may take to send the body of a request."""

    files: str | None = Field(default=None, alias="ROUTINES_FILES")
    """Where files are kept: a directory, or `s3://bucket/prefix`; None: `files` in the data directory."""
    max_files: int = Field(default=20, ge=0, le=1000, alias="ROUTINES_MAX_FILES")
    """The most files of one request."""
    max_file_bytes: int = Field(default=32 * 1024 * 1024, ge=0, alias="ROUTINES_MAX_FILE_BYTES")
    """The largest file, in bytes."""
    max_upload_bytes: int = Field(default=128 * 1024 * 1024, ge=1024, alias="ROUTINES_MAX_UPLOAD_BYTES")
    """The largest body of a request with files, in bytes."""
    upload_timeout_seconds: float = Field(default=300, gt=0, alias="ROUTINES_UPLOAD_TIMEOUT_SECONDS")
    """How long a client may take to send a body with files."""
    run_sync_seconds: float = Field(default=300, ge=0, alias="ROUTINES_RUN_SYNC_SECONDS")
    """How long run-sync waits for the end of its run before it answers 202."""
    run_sync_waiters: int = Field(default=200, ge=0, alias="ROUTINES_RUN_SYNC_WAITERS")
    """The most requests of run-sync that wait in one process; the next are answered 202 at once."""

    tick_batch_size: int = Field(default=1000, ge=1, le=10_000, alias="ROUTINES_TICK_BATCH_SIZE")
    """The most routines that one statement claims."""
    hourly_catchup_seconds: float = Field(default=3600, ge=0, alias="ROUTINES_HOURLY_CATCHUP_SECONDS")
    """How old the newest slot of an hourly routine may be to still fire after an outage."""
    catchup_seconds: float = Field(default=12 * 3600, ge=0, alias="ROUTINES_CATCHUP_SECONDS")
    """The same for daily, weekdays and weekly."""
    max_init_params_bytes: int = Field(default=256 * 1024, ge=1024, alias="ROUTINES_MAX_INIT_PARAMS_BYTES")
    """The most bytes, as jsonb, that a run's merged init_params may take; more, and its fire fails to start."""

    worker_concurrency: int = Field(default=50, ge=1, le=1000, alias="ROUTINES_WORKER_CONCURRENCY")
    """The most runs that one worker has in hand at once."""
    lease_seconds: float = Field(default=15, ge=0.5, alias="ROUTINES_LEASE_SECONDS")
    """How long a run stays with a worker that gives no sign of life; renewed every third of it."""
    run_deadline_seconds: float = Field(default=3600, gt=0, alias="ROUTINES_RUN_DEADLINE_SECONDS")
    """How long a run may take from its first claim."""
    engine: Literal["postgres", "temporal"] = Field(default="postgres", alias="ROUTINES_ENGINE")
    """Who runs the workflows that `routines worker` claims: itself, or a Temporal server."""
    temporal_address: str = Field(default="127.0.0.1:7233", alias="ROUTINES_TEMPORAL_ADDRESS")
    """Host and port of Temporal's frontend."""
    temporal_namespace: str = Field(default="default", alias="ROUTINES_TEMPORAL_NAMESPACE")
    """The namespace there, of this database's runs alone."""
    temporal_task_queue: str = Field(default="routines", alias="ROUTINES_TEMPORAL_TASK_QUEUE")
    """The task queue that the workers of Temporal ask."""
    temporal_tls: bool = Field(default=False, alias="ROUTINES_TEMPORAL_TLS")
    """Whether Temporal is asked by TLS; a certificate or an API key says so too."""
    temporal_ca_file: Path | None = Field(default=None, alias="ROUTINES_TEMPORAL_CA_FILE")
    """PEM of the authority that signed the server's certificate; None: those of the system."""
    temporal_cert_file: Path | None = Field(default=None, alias="ROUTINES_TEMPORAL_CERT_FILE")
    """PEM of the client's certificate, for mutual TLS."""
    temporal_key_file: Path | None = Field(default=None, alias="ROUTINES_TEMPORAL_KEY_FILE")
    """PEM of that certificate's key."""
    temporal_api_key: str | None = Field(default=None, alias="ROUTINES_TEMPORAL_API_KEY", repr=False)
    """The API key that Temporal asks for."""
    temporal_open_runs: int = Field(default=1000, ge=0, le=100_000, alias="ROUTINES_TEMPORAL_OPEN_RUNS")
    """The most runs that Temporal has in hand at once, on all workers together; 0: it gets no new ones."""
    temporal_check_seconds: float = Field(default=30, ge=0.5, le=3600, alias="ROUTINES_TEMPORAL_CHECK_SECONDS")
    """How often Temporal is asked what became of a run of which nothing was heard."""
    webhook_allow_private: bool = Field(default=False, alias="ROUTINES_WEBHOOK_ALLOW_PRIVATE")
    """Whether webhooks and HTTP steps may go to loopback and private addresses."""

    keep_trajectories_days: float = Field(default=90, ge=0, le=36500, alias="ROUTINES_KEEP_TRAJECTORIES_DAYS")
    """How long an ended run is kept, with its steps; 0: for ever."""
    keep_deliveries_days: float = Field(default=30, ge=0, le=36500, alias="ROUTINES_KEEP_DELIVERIES_DAYS")
    """How long a webhook that was delivered or given up is kept; 0: for ever."""
    keep_skips_days: float = Field(default=0, ge=0, le=36500, alias="ROUTINES_KEEP_SKIPS_DAYS")
    """How long a skipped slot is kept; 0: for ever."""

    metrics_port: int | None = Field(default=None, ge=1, le=65535, alias="ROUTINES_METRICS_PORT")
    """The port of this program's management listener, which serves /metrics and /health; None: there is none."""
    metrics_host: str = Field(default="127.0.0.1", alias="ROUTINES_METRICS_HOST")
    """The address that it listens on."""
    metrics_token: str | None = Field(default=None, min_length=16, alias="ROUTINES_METRICS_TOKEN", repr=False)
    """What a scrape of /metrics has to bring as its bearer token; None: nothing, on loopback."""
    metrics_parts: str | None = Field(
        default=None, pattern=r"^\w+=http://[^,\s]+(,\w+=http://[^,\s]+)*$", alias="ROUTINES_METRICS_PARTS"
    )
    """`name=URL` of /metrics of other programs, several with commas between, that the API shows with its own."""

    @field_validator("metrics_token", "metrics_port", mode="before")
    @classmethod
    def _empty_is_not_set(cls, given: object) -> object:
        """As an environment file has it that leaves the value out."""
        return None if given == "" else given


def load_settings() -> Settings:
    """The settings of this process's environment.

    Raises:
        ConfigurationError: One is wrong; the message names each variable and its rule, never its value.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ConfigurationError(f"The environment is not valid: {faults}.") from None
