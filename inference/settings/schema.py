"""All settings: types, defaults and documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from inference.settings import web_origins
from inference.settings.broker_section import EMBEDDED, BrokerSettings, RedisUrl
from inference.settings.http_address import address_or_switch, host_and_port, listening_host
from inference.settings.image_sections import BucketName, ImageUrlSettings, UploadSettings
from inference.settings.installation import default_data_dir, default_model
from inference.settings.log_section import LogSettings
from inference.settings.monitoring_section import MonitoringSettings
from inference.settings.s3_section import S3Settings
from inference.settings.security_section import SecuritySettings
from inference.settings.sink_sections import JsonlSinkSettings, KafkaSettings, MongodbSettings, OutboxSettings, RelaySettings
from inference.settings.tracing_section import TracingSettings
from inference.settings.ui_section import UiSettings
from inference.settings.value_checks import (
    Count,
    Few,
    FieldChecks,
    RetentionHours,
    Seconds,
    Section,
    or_none,
)
from inference.settings.webhook_section import WebhookSettings


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("must not name an entry twice")
    return names


def _folder_or_description(entry: Any) -> Path | dict[str, Any]:
    match entry:
        case dict():
            return entry
        case str() | Path():
            return Path(entry)
    raise ValueError("must be a folder with a model.yaml, or a description (a mapping)")


ModelEntry = Annotated[Path | dict[str, Any], PlainValidator(_folder_or_description)]
ListeningHost = Annotated[str, AfterValidator(listening_host)]
AllowedHost = Annotated[str, AfterValidator(web_origins.allowed_host)]
CorsOrigin = Annotated[str, AfterValidator(web_origins.cors_origin)]
Network = Annotated[str, AfterValidator(web_origins.network)]
SinkName = Literal["jsonl", "mongodb", "kafka"]


def ensemble_sinks(ensemble: bool) -> tuple[SinkName, ...]:
    """Return the sinks of the results with and without ensemble mode."""
    return ("kafka",) if ensemble else ("mongodb",)


class ApiSettings(Section):
    """HTTP server."""

    #: address or name; 0.0.0.0 and :: mean every interface
    host: ListeningHost = "127.0.0.1"
    port: int = Field(default=30005, ge=1, le=65535)
    #: processes; each serves many requests at a time
    workers: Few = 1
    #: open connections of each process; when this number is reached, the connection that was idle for longest is closed
    max_connections: Count = 10_000
    #: open connections of one address in each process, except trusted proxies and loopback; 0: no limit
    max_connections_per_address: int = Field(default=1000, ge=0, le=2**31 - 1)
    #: an idle connection is closed after this time, seconds; must be longer than in a load balancer in front (usually 60)
    keepalive_s: Seconds = 75
    #: proxies that may set X-Forwarded-For, -Proto, -Host and -Prefix; these headers of other clients are ignored
    trusted_proxies: tuple[Network, ...] = ()
    #: host names that requests may use, in addition to loopback names and the listening address; `*`: any
    allowed_hosts: tuple[AllowedHost, ...] = ()
    #: origins of web pages that may use the API in a browser; `*`: any; none: only pages of the API's own origin
    cors_origins: tuple[CorsOrigin, ...] = ()
    #: serve the API's description: `/openapi.json`, and `/docs` for browsers
    docs: bool = True
    #: take commands: true, false, or HOST:PORT of a second listener that alone takes them
    commands: Annotated[bool | str, PlainValidator(address_or_switch)] = True
    #: a larger request body is answered with 413, bytes
    max_body_bytes: Count = 32 * 2**20
    #: bytes of request bodies in one process at a time, at least twice `max_body_bytes`; default: 16 times that
    max_body_bytes_in_flight: Count | None = None
    #: longest pause of a client that sends a body or reads an answer, seconds
    body_timeout_s: Seconds = 20
    #: lowest rate of a body or an answer, measured over `body_timeout_s`
    body_min_bytes_per_s: Count = 4096
    #: open event streams of each process, answers in JSON Lines included; at most half of its connections
    max_event_streams: Count = 2_000
    #: longest `wait` of a request, seconds
    max_wait_s: Seconds = 60
    #: be ready though no worker has the served model loaded, where workers are started by the number of waiting tasks
    ready_without_workers: bool = False
    #: after SIGTERM the API serves for this time while `/health/ready` is 503, so that load balancers stop using it, seconds
    shutdown_delay_s: float = Field(default=2, ge=0, le=3600)
    #: time after that in which a stopping API process may finish its requests, seconds
    drain_timeout_s: Seconds = 30

    @property
    def body_budget_bytes(self) -> int:
        """Bytes of request bodies in one process at a time."""
        return self.max_body_bytes_in_flight or 16 * self.max_body_bytes

    @property
    def commands_address(self) -> tuple[str, int] | None:
        """Host and port of the listener that alone takes commands; None without one."""
        return host_and_port(self.commands) if isinstance(self.commands, str) else None

    @property
    def listening_addresses(self) -> dict[str, tuple[str, int]]:
        """Hosts and ports to listen on, by the setting that names them."""
        found = {"api.host": (self.host, self.port)}
        return found if self.commands_address is None else found | {"api.commands": self.commands_address}

    @model_validator(mode="after")
    def _listeners_differ(self) -> Self:
        if self.commands_address is not None and self.commands_address[1] == self.port:
            raise ValueError(f"commands must name another port than api.port ({self.port})")
        return self

    @model_validator(mode="after")
    def _bodies_fit(self) -> Self:
        if self.body_budget_bytes < 2 * self.max_body_bytes:
            raise ValueError(f"max_body_bytes_in_flight must be at least twice max_body_bytes ({self.max_body_bytes})")
        return self


class TaskStoreSettings(Section):
    """Storage of the task records: Redis 6.2 or later."""

    #: default: the broker's server if that is Redis, so that record and message are written in one step
    url: RedisUrl | None = None
    #: with a hash tag, such as {inference}, all keys are in one slot of a Redis Cluster, and the broker's begin with it too
    key_prefix: str = Field(default="inference", pattern=r"^([A-Za-z0-9_.-]+|[A-Za-z0-9_.-]*\{[A-Za-z0-9_.-]+\}[A-Za-z0-9_.-]*)$")
    #: start even if the Redis server evicts keys when its memory is full, which loses accepted tasks
    allow_eviction: bool = False
    #: tasks of a worker that does not renew its leases for this time go to other workers, seconds
    lease_s: Seconds = 10
    #: a task record is kept for this time after its end, seconds
    result_ttl_s: Seconds = 86_400
    idempotency_ttl_s: Seconds = 86_400
    #: number of the newest tasks that `GET /tasks` lists without a request id; about 84 bytes each
    index_max: Count = 100_000
    #: if there are more dead letters, the oldest are discarded
    max_dead_letters: Count = 10_000
    #: dead letters and rejected messages are discarded after this number of hours; none: never
    dead_letter_retention_hours: Annotated[RetentionHours | None, BeforeValidator(or_none)] = None
    #: a waiting task is queued again if later ones started this long ago: its message was lost, seconds
    requeue_lost_after_s: Seconds = 5


class ModelFileSettings(Section):
    """Sources of model files. A SavedModel's graph can read and write files: name only places that you trust."""

    #: bucket of the files that commands name without `s3://`; default: `uploads.bucket`
    bucket: BucketName | None = None
    #: folder for copies of files from buckets and for converted models, shared by a host; default: `model-files` in `data_dir`
    cache_dir: Path | None = None
    #: default: `models`, and the folders of the configured models
    allowed_folders: tuple[Path, ...] | None = None
    #: default: `model_files.bucket`
    allowed_buckets: tuple[BucketName, ...] | None = None
    #: maximum size of a model's file, of an archive's content, and of the weights in an H5 file, MiB
    max_unpacked_mb: Count = 8192


class GpuSettings(Section):
    """Use of a GPU by a predictor; each model chooses its GPU (`device`)."""

    #: allocate memory as it is needed, instead of all of it at the start
    memory_growth: bool = True
    #: allocate exactly this much, MiB; `memory_growth` is then ignored
    memory_limit_mb: Count | None = None
    #: folder of the lock files of GPUs in use, shared by all workers and users of a host; default: the folder for temporary files
    lock_dir: Path | None = None


class LimitSettings(Section):
    #: height times width of one image
    max_pixels: Count = 50_000_000
    #: texts of a form together, `metadata` among them, bytes
    max_metadata_bytes: int = Field(default=500_000, ge=1000, le=16 * 2**20)
    #: levels of lists and objects in `metadata` and in bodies in JSON
    max_json_depth: int = Field(default=64, ge=16, le=200)
    #: a request is refused if more tasks wait for its model
    max_queue_depth: Count = 10_000


class BatchSettings(Section):
    """Many images in one request."""

    #: a request with more images, or with more images than `limits.max_queue_depth`, is refused
    max_items: Count = 256
    #: buckets with objects that a request may name; default: `uploads.bucket`
    allowed_buckets: tuple[BucketName, ...] | None = None


class DeadlineSettings(Section):
    """Time from the acceptance to the end of a task, seconds. A request may set its own deadline, up to `max_s`."""

    sync_s: Seconds = 30
    async_s: Seconds = 3600
    max_s: Seconds = 86_400


class WorkerSettings(Section):
    """The Celery worker and its predictor process."""

    max_batch_size: int = Field(default=32, ge=1, le=1024)
    #: an idle predictor waits this long for a batch to fill; 0: it runs the images that are ready
    max_batch_wait_ms: float = Field(default=0, ge=0, allow_inf_nan=False)
    #: threads that fetch and decode
    io_threads: Few = 4
    #: memory for decoding images, over all models, MiB; an image that needs more is decoded alone
    decode_memory_mb: int = Field(default=512, ge=64, le=2**20)
    #: tasks held in addition to the running batch, in batches; on RabbitMQ messages, each with up to a batch
    prefetch_batches: Count = 4
    #: the predictor is ended if a call of the model takes longer, seconds
    predict_timeout_s: Seconds = 60
    load_timeout_s: Seconds = 300
    #: crashes after which a task is a dead letter; also workers that may die while they take a message until it is rejected
    max_attempts: Count = 3
    #: time in which a stopping worker may finish its running tasks, seconds
    drain_timeout_s: Seconds = 30

    @property
    def max_held_tasks(self) -> int:
        """Maximum number of tasks that a worker holds."""
        return (self.prefetch_batches + 1) * self.max_batch_size


class Settings(FieldChecks, BaseSettings):
    """All settings of the service."""

    model_config = SettingsConfigDict(
        env_prefix="INFERENCE_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    #: folder of the embedded broker, local uploads and results; default of a wheel: see installation.py
    data_dir: Path = Field(default_factory=default_data_dir)
    pipeline_id: str = "default"
    #: models: a folder with a model.yaml, or a description, for each
    models: tuple[ModelEntry, ...] = Field(default_factory=lambda: (default_model(),), min_length=1)
    #: name of the model for requests that name none; default: the first of `models`
    default_model: str | None = None
    #: sinks of the results; the list may be empty
    sinks: Annotated[tuple[SinkName, ...], AfterValidator(_distinct)] = ("jsonl",)
    #: true: results go to Kafka for an ensemble's aggregator; false: to MongoDB; sets `sinks`
    ensemble: bool | None = None
    #: an image that is classified once the service is ready, to show that it works
    sample_image: Path | None = None

    api: ApiSettings = ApiSettings()
    ui: UiSettings = UiSettings()
    broker: BrokerSettings = BrokerSettings()
    task_store: TaskStoreSettings = TaskStoreSettings()
    uploads: UploadSettings = UploadSettings()
    s3: S3Settings = S3Settings()
    image_urls: ImageUrlSettings = ImageUrlSettings()
    model_files: ModelFileSettings = ModelFileSettings()
    gpu: GpuSettings = GpuSettings()
    limits: LimitSettings = LimitSettings()
    batch: BatchSettings = BatchSettings()
    deadlines: DeadlineSettings = DeadlineSettings()
    worker: WorkerSettings = WorkerSettings()
    jsonl: JsonlSinkSettings = JsonlSinkSettings()
    mongodb: MongodbSettings = MongodbSettings()
    kafka: KafkaSettings = KafkaSettings()
    outbox: OutboxSettings = OutboxSettings()
    relay: RelaySettings = RelaySettings()
    webhooks: WebhookSettings = WebhookSettings()
    security: SecuritySettings = SecuritySettings()
    log: LogSettings = LogSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    tracing: TracingSettings = TracingSettings()

    @model_validator(mode="after")
    def _deadlines_fit(self) -> Self:
        longest = max(self.deadlines.sync_s, self.deadlines.async_s)
        if longest > self.deadlines.max_s:
            raise ValueError(f"deadlines.max_s is {self.deadlines.max_s:g}; it must be at least sync_s and async_s ({longest:g})")
        return self

    @model_validator(mode="after")
    def _uploads_outlive_deadlines(self) -> Self:
        hours, longest_s = self.uploads.retention_hours, self.deadlines.max_s
        if hours is not None and hours * 3600 < longest_s:
            least = f"an image is needed until its task's deadline (deadlines.max_s: {longest_s / 3600:g} hours)"
            raise ValueError(f"uploads.retention_hours is {hours:g}; {least}")
        return self

    @model_validator(mode="before")
    @classmethod
    def _ensemble_sets_sinks(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("ensemble") is None:
            return data
        if "sinks" in data:
            raise ValueError("ensemble and sinks both choose the sinks of results; set only one of them")
        try:
            is_ensemble = TypeAdapter(bool).validate_python(data["ensemble"])
        except ValidationError:
            return data  # pydantic reports the error with its key
        return data | {"sinks": ensemble_sinks(is_ensemble)}

    @model_validator(mode="after")
    def _records_have_a_store(self) -> Self:
        if self.broker.is_amqp and self.task_store.url is None:
            raise ValueError("task_store.url is needed: the task records are stored in Redis, and the broker is RabbitMQ")
        return self

    @model_validator(mode="after")
    def _keys_are_a_pair(self) -> Self:
        keys = {name: getattr(self.s3, name).get_secret_value() for name in ("access_key", "secret_key")}
        missing = [name for name, key in keys.items() if not key]
        has_some = len(missing) == 1 or bool(missing and self.s3.session_token.get_secret_value())
        if self.uploads.store == "s3" and has_some:
            raise ValueError(f"s3.{missing[0]} is empty; set both s3.access_key and s3.secret_key, or neither")
        return self

    @property
    def possible_sinks(self) -> tuple[SinkName, ...]:
        """All sinks that may get results: `sinks`, and with `ensemble` also the sinks of the other mode."""
        return self.sinks if self.ensemble is None else (*ensemble_sinks(True), *ensemble_sinks(False))

    @property
    def is_embedded(self) -> bool:
        """Whether this service runs the embedded server."""
        return EMBEDDED in (self.broker.url, self.task_store.url)

    @property
    def broker_key_prefix(self) -> str:
        """Prefix of the broker's keys in Redis: that of the records if it has a hash tag, else none."""
        prefix = self.task_store.key_prefix
        return f"{prefix}:" if "{" in prefix and not self.broker.is_amqp else ""

    @property
    def uploads_path(self) -> Path:
        return self.uploads.path or self.data_dir / "uploads"

    @property
    def max_image_bytes(self) -> int:
        """Maximum size of an image in the object store."""
        return max(self.api.max_body_bytes, self.uploads.max_bytes)

    @property
    def model_bucket(self) -> str:
        return self.model_files.bucket or self.uploads.bucket

    @property
    def model_cache_path(self) -> Path:
        return self.model_files.cache_dir or self.data_dir / "model-files"

    @property
    def max_batch_items(self) -> int:
        return min(self.batch.max_items, self.limits.max_queue_depth)

    @property
    def batch_buckets(self) -> tuple[str, ...]:
        return (self.uploads.bucket,) if self.batch.allowed_buckets is None else self.batch.allowed_buckets

    @property
    def jsonl_path(self) -> Path:
        return self.jsonl.path or self.data_dir / "results.jsonl"
