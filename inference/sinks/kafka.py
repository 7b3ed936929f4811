"""Results as records of a Kafka topic. Their key is the request id, so an ensemble's results of one request share a partition."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import orjson
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic
from kafka.errors import (
    InvalidRecordError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAlreadyExistsError,
)
from kafka.net.compat import KafkaNetClient

from inference.runtime.tls import client_context
from inference.settings import KafkaSettings
from inference.sinks.cloudevents import CONTENT_TYPE, cloud_event
from inference.sinks.protocol import NO_CONTEXTS, Refusal, SinkUnavailable, StoredResult
from inference.tracing.context import trace_headers

logger = logging.getLogger(__name__)

#: Errors of a record that the broker will never take.
_REFUSED = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidRecordError)


class KafkaSink:
    """`ResultSink` with an idempotent producer (unless `acks` is 1); the delivery of each record is confirmed.

    A record may still come twice, if a relay dies before it notes the delivery: readers drop duplicates by `task_id`, which is in
    the headers and in the body.
    """

    name = "kafka"

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._security = _security(settings)
        self._producer: KafkaProducer | None = None

    def write(self, documents: Sequence[dict[str, Any]], contexts: Mapping[str, str] = NO_CONTEXTS) -> list[Refusal]:
        try:
            return self._write(documents, contexts)
        except (KafkaError, OSError) as error:
            self.close()  # the next try begins with a new producer
            raise SinkUnavailable(f"Kafka does not answer: {type(error).__name__}: {error}") from error

    def erase(self, results: Sequence[StoredResult]) -> list[bool]:
        """Write tombstones if the topic is compacted: Kafka removes the record with the same key when it next compacts.

        A result whose request id other tasks have too is not erased, since the tombstone would remove theirs.
        """
        try:
            is_compacted = self._is_compacted()
            if is_compacted:
                self._bury([result.own_request_id for result in results if result.own_request_id])
        except (KafkaError, OSError) as error:
            self.close()
            raise SinkUnavailable(f"Kafka does not answer: {type(error).__name__}: {error}") from error
        return [is_compacted and bool(result.own_request_id) for result in results]

    def _bury(self, keys: Sequence[str]) -> None:
        producer = self._open()
        futures = [producer.send(self._settings.topic, key=key.encode(), value=None) for key in keys]
        producer.flush(timeout=self._settings.timeout_s)
        for future in futures:
            future.get(timeout=self._settings.timeout_s)

    def _is_compacted(self) -> bool:
        topic = ConfigResource(ConfigResourceType.TOPIC, self._settings.topic, ["cleanup.policy"])
        with self._administration() as admin:
            (found,) = admin.describe_configs([topic], config_filter="all")["topic"].values()
        if "cleanup.policy" not in found:
            logger.warning("Kafka does not tell the cleanup.policy of %s: its user needs the right DescribeConfigs", topic.name)
            return False
        return "compact" in found["cleanup.policy"]["value"].split(",")

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            # Unsent records are still in the outbox. Without `force_close`, `close` would wait for them and leave its thread.
            producer._sender.force_close()  # noqa: SLF001
            with contextlib.suppress(KafkaError):
                producer.close(timeout=self._settings.timeout_s)

    def _write(self, documents: Sequence[dict[str, Any]], contexts: Mapping[str, str]) -> list[Refusal]:
        producer = self._open()
        timeout_s = self._settings.timeout_s
        refused = []
        sent = []
        for document in documents:
            trace = trace_headers(contexts.get(document["task_id"], ""))
            value = self._value(document, trace)
            if len(value) > self._settings.max_record_bytes:
                reason = f"the record has {len(value)} bytes, more than kafka.max_record_bytes"
                refused.append(Refusal(document["task_id"], reason))
            else:
                sent.append((document, self._send(producer, document, value, trace)))
        producer.flush(timeout=timeout_s)
        suspects = []
        for document, future in sent:
            try:
                future.get(timeout=timeout_s)
            except _REFUSED as error:
                suspects.append((document, error))
        if suspects:
            self.close()  # an idempotent producer sends nothing after a refusal
        if len(sent) == 1:
            return refused + [_refusal(document, error) for document, error in suspects]
        # A refusal also fails the other records that the producer held: each is sent alone to find the refused ones.
        for document, _ in suspects:
            refused += self._write([document], contexts)
        return refused

    def _value(self, document: dict[str, Any], trace: Mapping[str, str]) -> bytes:
        body = cloud_event(document, trace) if self._settings.format == "cloudevents" else document
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)

    def _send(self, producer: KafkaProducer, document: dict[str, Any], value: bytes, trace: Mapping[str, str]) -> Any:
        headers = [("task_id", document["task_id"].encode())]
        if "owner" in document:
            headers.append(("owner", document["owner"].encode()))
        if self._settings.format == "cloudevents":
            headers.append(("content-type", CONTENT_TYPE.encode()))
        headers += [(name, text.encode()) for name, text in trace.items()]
        return producer.send(self._settings.topic, key=document["request_id"].encode(), value=value, headers=headers)

    def _open(self) -> KafkaProducer:
        """Return the producer; make it on the first call and after a failure, in the process and thread that use it."""
        if self._producer is None:
            self._make_topic()
            settings = self._settings
            timeout_ms = round(settings.timeout_s * 1000)
            self._producer = _connected(
                KafkaProducer,
                bootstrap_servers=settings.bootstrap_servers.split(","),
                bootstrap_timeout_ms=timeout_ms,
                client_id="inference-relay",
                acks="all" if settings.acks == "all" else 1,
                enable_idempotence=settings.acks == "all",
                linger_ms=5,
                max_request_size=settings.max_record_bytes + 4096,  # headers and framing
                max_block_ms=timeout_ms,
                request_timeout_ms=timeout_ms,
                delivery_timeout_ms=timeout_ms + 5000,
                **self._security,
            )
        return self._producer

    def _make_topic(self) -> None:
        settings = self._settings
        with self._administration() as admin, contextlib.suppress(TopicAlreadyExistsError):  # another relay was faster
            if settings.topic not in admin.list_topics():
                admin.create_topics([NewTopic(settings.topic, settings.partitions, settings.replication_factor)])
                logger.info("made the topic %s with %d partitions", settings.topic, settings.partitions)

    @contextlib.contextmanager
    def _administration(self) -> Iterator[KafkaAdminClient]:
        timeout_ms = round(self._settings.timeout_s * 1000)
        admin = _connected(
            KafkaAdminClient,
            bootstrap_servers=self._settings.bootstrap_servers.split(","),
            bootstrap_timeout_ms=timeout_ms,
            request_timeout_ms=timeout_ms,
            **self._security,
        )
        try:
            yield admin
        finally:
            admin.close()


def _security(settings: KafkaSettings) -> dict[str, Any]:
    """Return the options with which clients log in. Raises ConfigurationError: a certificate's file is not usable."""
    options: dict[str, Any] = {"security_protocol": settings.security_protocol}
    if settings.has_tls:
        options["ssl_context"] = client_context("kafka", settings)
    if settings.has_sasl:
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.username
        options["sasl_plain_password"] = settings.password.get_secret_value()
    return options


def _refusal(document: dict[str, Any], error: Exception) -> Refusal:
    return Refusal(document["task_id"], f"Kafka refuses it: {type(error).__name__}: {error}")


def _connected(kind: Callable[..., Any], **options: Any) -> Any:
    """Make a client of this kind. If its servers do not answer, close the thread and sockets that it leaves open."""
    opened = []

    def make(*args: Any, **kwargs: Any) -> KafkaNetClient:
        client = KafkaNetClient(*args, **kwargs)
        opened.append(client)
        return client

    try:
        return kind(kafka_client=make, **options)
    except BaseException:
        for client in opened:
            client.close()
            client._manager._net.stop()  # noqa: SLF001 as KafkaAdminClient.close does
        raise
