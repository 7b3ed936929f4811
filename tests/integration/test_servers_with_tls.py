"""Kafka, MongoDB, RabbitMQ and MinIO with TLS and logins, as servers of one's own have them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient, ScramMechanism, UserScramCredentialUpsertion
from pymongo import MongoClient
from support.certificates import Certificates, make_certificates
from support.private_servers import PrivateServer
from support.result_documents import a_document
from support.samples import a_message, a_request
from support.service import free_port
from support.waiting import until

from dev.servers.layout import Layout
from dev.servers.ports import HOST
from dev.servers.processes import Launch
from dev.servers.server import Kind, Ports
from dev.servers.servers import ferretdb, kafka, minio, rabbitmq
from inference.broker.amqp import AmqpBroker, check_login
from inference.errors import ServiceUnavailable
from inference.settings import BrokerSettings, KafkaSettings, MongodbSettings, S3Settings
from inference.sinks.kafka import KafkaSink
from inference.sinks.mongodb import MongodbSink
from inference.sinks.protocol import SinkUnavailable
from inference.storage.s3 import S3ObjectStore

Prepare = Callable[[Layout, Ports], Launch]

PASSWORD = "a-password"
#: An address of this machine that is not in the certificate.
UNNAMED_HOST = "127.0.0.2"
#: A second listener with TLS and a login; the first stays as it is, for the probe and for the test's own consumer.
KAFKA_SETTINGS = """
listeners=PLAINTEXT://{host}:{client},CONTROLLER://{host}:{controller},SECURE://{host}:{secure}
advertised.listeners=PLAINTEXT://{host}:{client},SECURE://{host}:{secure}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.secure.plain.sasl.jaas.config={modules}.plain.PlainLoginModule required user_relay="{password}";
listener.name.secure.scram-sha-256.sasl.jaas.config={modules}.scram.ScramLoginModule required;
listener.name.secure.scram-sha-512.sasl.jaas.config={modules}.scram.ScramLoginModule required;
listener.name.secure.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("other")).authority


@pytest.fixture(scope="module")
def start(services_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., PrivateServer]]:
    """Start a server of a kind, prepared in another way; the programs of `services_env` are used."""
    assert services_env
    started: list[PrivateServer] = []

    def start_one(kind: Kind, prepare: Prepare, **changes: Any) -> PrivateServer:
        server = PrivateServer(dataclasses.replace(kind, prepare=prepare, **changes), tmp_path_factory.mktemp(kind.name))
        started.append(server)
        server.start()
        return server

    yield start_one
    for server in started:
        server.stop()


def key_options(certificates: Certificates) -> dict[str, str]:
    return {
        "ca_file": str(certificates.authority),
        "cert_file": str(certificates.certificate),
        "key_file": str(certificates.key),
    }


class TestKafka:
    @pytest.fixture(scope="class")
    def brokers(self, start: Callable[..., PrivateServer], certificates: Certificates) -> tuple[str, str]:
        """The addresses without and with TLS."""
        secure = free_port()
        keystore = certificates.key.with_name("kafka.pem")
        keystore.write_text(certificates.key.read_text() + certificates.certificate.read_text(), encoding="utf-8")

        def prepare(layout: Layout, ports: Ports) -> Launch:
            launch = kafka.KIND.prepare(layout, ports)
            file = layout.settings("kafka") / "server.properties"
            values = {"host": HOST, "password": PASSWORD, "secure": secure, "modules": "org.apache.kafka.common.security"}
            files = {"keystore": keystore, "authority": certificates.authority}
            lines = KAFKA_SETTINGS.format(**values, **files, **ports)
            file.write_text(file.read_text(encoding="utf-8") + lines, encoding="utf-8")
            return launch

        server = start(kafka.KIND, prepare)
        self._add_scram_user(server.endpoint)
        return server.endpoint, f"{HOST}:{secure}"

    def _add_scram_user(self, endpoint: str) -> None:
        admin = KafkaAdminClient(bootstrap_servers=endpoint)
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            admin.alter_user_scram_credentials([UserScramCredentialUpsertion("relay", mechanism, PASSWORD)])
        admin.close()

    def _settings(self, endpoint: str, certificates: Certificates, **changes: Any) -> KafkaSettings:
        login = {"security_protocol": "SASL_SSL", "username": "relay", "password": PASSWORD}
        return KafkaSettings.model_validate(
            {"bootstrap_servers": endpoint, "timeout_s": 5} | login | key_options(certificates) | changes
        )

    @pytest.mark.parametrize(("mechanism", "acks"), [("PLAIN", "1"), ("SCRAM-SHA-256", "all"), ("SCRAM-SHA-512", "all")])
    def test_a_result_comes_over_tls(
        self, brokers: tuple[str, str], certificates: Certificates, own_name: str, mechanism: str, acks: str
    ) -> None:
        plain, secure = brokers
        sink = KafkaSink(self._settings(secure, certificates, topic=own_name, sasl_mechanism=mechanism, acks=acks))
        assert sink.write([a_document("task")]) == []
        sink.close()
        consumer = KafkaConsumer(own_name, bootstrap_servers=plain, auto_offset_reset="earliest", consumer_timeout_ms=10_000)
        assert dict(next(consumer).headers) == {"task_id": b"task"}
        consumer.close()

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
    def test_a_wrong_password_and_a_wrong_authority_are_refused(
        self, brokers: tuple[str, str], certificates: Certificates, other_authority: Path
    ) -> None:
        for wrong in ({"password": "wrong-one"}, {"ca_file": str(other_authority)}):
            sink = KafkaSink(self._settings(brokers[1], certificates, timeout_s=2, **wrong))
            with pytest.raises(SinkUnavailable) as error:
                sink.write([a_document("task")])
            sink.close()
            assert "wrong-one" not in str(error.value)


class TestMongodb:
    @pytest.fixture(scope="class")
    def port(self, start: Callable[..., PrivateServer], certificates: Certificates) -> int:
        port = free_port()

        def prepare(layout: Layout, ports: Ports) -> Launch:
            launch = ferretdb.KIND.prepare(layout, ports)
            options = {
                "listen-tls": f"{HOST}:{port}",
                "listen-tls-cert-file": certificates.certificate,
                "listen-tls-key-file": certificates.key,
                "listen-tls-ca-file": certificates.authority,
            }
            return Launch([*launch.command, *(f"--{name}={value}" for name, value in options.items())], launch.environment)

        start(ferretdb.KIND, prepare)
        return port

    def test_a_result_comes_over_tls(self, port: int, certificates: Certificates, other_authority: Path) -> None:
        both = certificates.key.with_name("client.pem")
        both.write_text(certificates.key.read_text() + certificates.certificate.read_text(), encoding="utf-8")

        def url(authority: Path) -> str:
            return f"mongodb://{HOST}:{port}/?tls=true&tlsCAFile={authority}&tlsCertificateKeyFile={both}"

        sink = MongodbSink(MongodbSettings.model_validate({"url": url(certificates.authority)}))
        assert sink.write([a_document("task")]) == []
        sink.close()
        with MongoClient[dict[str, Any]](url(certificates.authority)) as client:
            assert client["inference"]["results"].count_documents({"_id": "task"}) == 1
        refused = MongodbSink(MongodbSettings.model_validate({"url": url(other_authority), "timeout_s": 1}))
        with pytest.raises(SinkUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            refused.write([a_document("task")])
        refused.close()


class TestRabbitmq:
    @pytest.fixture(scope="class")
    def port(self, start: Callable[..., PrivateServer], certificates: Certificates) -> int:
        port = free_port()

        def prepare(layout: Layout, ports: Ports) -> Launch:
            launch = rabbitmq.KIND.prepare(layout, ports)
            file = layout.settings("rabbitmq") / "rabbitmq.conf"
            options = {
                "listeners.ssl.1": f"{HOST}:{port}",
                "listeners.ssl.2": f"{UNNAMED_HOST}:{port}",
                "ssl_options.cacertfile": certificates.authority,
                "ssl_options.certfile": certificates.certificate,
                "ssl_options.keyfile": certificates.key,
                "ssl_options.verify": "verify_peer",
                "ssl_options.fail_if_no_peer_cert": "true",
            }
            lines = "".join(f"{name} = {value}\n" for name, value in options.items())
            file.write_text(file.read_text(encoding="utf-8") + lines, encoding="utf-8")
            return launch

        start(rabbitmq.KIND, prepare)
        return port

    def test_messages_go_over_tls(
        self,
        port: int,
        certificates: Certificates,
        other_authority: Path,
        own_name: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        url, queue = f"amqps://guest:guest@{HOST}:{port}//", f"predict.{own_name}"
        settings = BrokerSettings.model_validate({"url": url} | key_options(certificates))
        check_login(settings)
        assert caplog.messages == []
        broker = AmqpBroker(settings)
        broker.publish(queue, a_message(a_request(queue=queue)))
        until(lambda: broker.get_depth(queue) == 1, "the message")

        wrong = key_options(certificates) | {"ca_file": str(other_authority)}
        check_login(BrokerSettings.model_validate({"url": url} | wrong))
        assert "CERTIFICATE_VERIFY_FAILED" in caplog.messages[-1]
        another_host = url.replace(HOST, UNNAMED_HOST)
        check_login(BrokerSettings.model_validate({"url": another_host} | key_options(certificates)))
        assert "IP address mismatch" in caplog.messages[-1]


class TestMinio:
    @pytest.fixture(scope="class")
    def settings(self, start: Callable[..., PrivateServer], certificates: Certificates) -> S3Settings:
        keys: list[str] = []

        def prepare(layout: Layout, ports: Ports) -> Launch:
            folder = layout.settings("minio") / "certs"
            folder.mkdir()
            shutil.copy(certificates.certificate, folder / "public.crt")
            shutil.copy(certificates.key, folder / "private.key")
            keys.extend(minio.keys(layout))
            return minio.KIND.prepare(layout, ports)

        def answers(port: int) -> bool:
            try:
                store(f"{HOST}:{port}").ping()
            except ServiceUnavailable:
                return False
            return True

        def store(endpoint: str) -> S3ObjectStore:
            return S3ObjectStore(of(endpoint), "tls-test")

        def of(endpoint: str) -> S3Settings:
            access, secret = keys
            files = {"ca_file": str(certificates.authority)}
            return S3Settings.model_validate(
                {"endpoint": f"https://{endpoint}", "access_key": access, "secret_key": secret} | files
            )

        return of(start(minio.KIND, prepare, answers=answers).endpoint)

    def test_objects_go_over_tls(self, settings: S3Settings, other_authority: Path) -> None:
        store = S3ObjectStore(settings, "tls-test")
        store.put("uploads/a", b"bytes")
        assert store.get("uploads/a") == b"bytes"
        stranger = S3ObjectStore(settings.model_copy(update={"ca_file": other_authority}), "tls-test")
        with pytest.raises(ServiceUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            stranger.get("uploads/a")
