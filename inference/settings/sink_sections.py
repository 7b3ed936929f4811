"""Sections of the sinks, and of the relay that delivers results to them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from inference.settings import addresses
from inference.settings.value_checks import Count, Seconds, Section, TlsSection, secret_validator


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) else value


class JsonlSinkSettings(Section):
    #: default: `results.jsonl` in `data_dir`
    path: Path | None = None


class MongodbSettings(Section):
    """MongoDB: one document for each result."""

    url: Annotated[SecretStr, secret_validator(addresses.mongodb_url)] = SecretStr("mongodb://127.0.0.1:27017")
    database: Annotated[str, AfterValidator(addresses.mongodb_database)] = "inference"
    collection: Annotated[str, AfterValidator(addresses.mongodb_collection)] = "results"
    #: documents are removed after this many days; none: never
    ttl_days: int | None = Field(default=None, ge=1, le=24_855)
    timeout_s: Seconds = 10


class KafkaSettings(TlsSection):
    """Kafka: one record for each result, with the request id as key."""

    #: HOST:PORT, several with commas between them or as a list
    bootstrap_servers: Annotated[str, BeforeValidator(addresses.bootstrap_servers)] = "127.0.0.1:9092"
    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$"), AfterValidator(addresses.kafka_topic)] = "inference-results"
    #: SASL_… logs in, …SSL encrypts
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    #: of the protocols with SASL
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: str | None = None
    password: SecretStr = SecretStr("")
    #: copies of a record before its delivery counts: `all` in-sync replicas, or `1`, which may lose results when a broker dies
    acks: Annotated[Literal["all", "1"], BeforeValidator(_as_text)] = "all"
    #: partitions of the topic, if the service creates it
    partitions: Count = 3
    replication_factor: Count = 1
    #: `cloudevents`: CloudEvents 1.0 in structured mode, the result document as `data`
    format: Literal["plain", "cloudevents"] = "plain"
    #: a larger record is refused, bytes
    max_record_bytes: Count = 1_000_000
    #: 0.1 to 86400
    timeout_s: Annotated[float, Field(ge=0.1, le=86_400)] = 10

    @property
    def has_tls(self) -> bool:
        return self.security_protocol in {"SSL", "SASL_SSL"}

    @property
    def has_sasl(self) -> bool:
        return self.security_protocol in {"SASL_PLAINTEXT", "SASL_SSL"}

    @model_validator(mode="after")
    def _protocol_fits(self) -> Self:
        login = [name for name in ("username", "password") if getattr(self, name)]
        if self.has_sasl and len(login) < 2:  # noqa: PLR2004 both
            raise ValueError(f"security_protocol {self.security_protocol} needs username and password")
        if login and not self.has_sasl:
            raise ValueError(f"{login[0]} needs security_protocol SASL_SSL or SASL_PLAINTEXT, not {self.security_protocol}")
        if self.has_tls_files and not self.has_tls:
            raise ValueError(f"files of certificates need security_protocol SSL or SASL_SSL, not {self.security_protocol}")
        return self


class OutboxSettings(Section):
    """Results that wait for a sink. Above a limit new requests are refused, so that the task store does not fill up."""

    max_entries: Count = 100_000
    max_age_s: Seconds = 86_400


class RelaySettings(Section):
    """Delivery from the outbox to the sinks."""

    batch_size: Count = 200
    #: first and longest pause while a sink is down
    backoff_s: Seconds = 0.5
    max_backoff_s: Seconds = 30
    #: entries that a relay took and did not deliver within this time go to another relay, seconds
    reclaim_after_s: Seconds = 30
    #: pause after a batch that was not full, so that the next is fuller
    linger_ms: float = Field(default=50, ge=0, le=1000)
