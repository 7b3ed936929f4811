"""Settings of logins and TLS at Kafka, RabbitMQ, MongoDB and MinIO."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from support.certificates import Certificates, make_certificates
from support.settings_files import complaint, load

from inference.errors import ConfigurationError
from inference.runtime.tls import amqp_tls, client_context
from inference.settings import masked_settings

LOGIN = {"security_protocol": "SASL_SSL", "username": "me", "password": "S3krit"}
PAIR = {"cert_file": "client.crt", "key_file": "client.key"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


class TestKafka:
    @pytest.mark.parametrize(
        ("kafka", "problem"),
        [
            ({"security_protocol": "SASL_SSL"}, "security_protocol SASL_SSL needs username and password"),
            ({"security_protocol": "SASL_PLAINTEXT", "username": "me"}, "SASL_PLAINTEXT needs username and password"),
            ({"username": "me"}, "username needs security_protocol SASL_SSL or SASL_PLAINTEXT, not PLAINTEXT"),
            ({"security_protocol": "SSL", "password": "S3krit"}, "password needs security_protocol SASL_SSL"),
            ({"ca_file": "ca.crt"}, "files of certificates need security_protocol SSL or SASL_SSL, not PLAINTEXT"),
            (LOGIN | {"cert_file": "client.crt"}, "cert_file and key_file belong together"),
            (LOGIN | {"sasl_mechanism": "GSSAPI"}, "kafka.sasl_mechanism"),
            ({"acks": 0}, "kafka.acks"),
        ],
        ids=str,
    )
    def test_what_does_not_fit_is_an_error(self, kafka: dict[str, Any], problem: str) -> None:
        said = complaint({"kafka": kafka})
        assert said.startswith("kafka")
        assert problem in said
        assert "S3krit" not in said

    @pytest.mark.parametrize("acks", [1, "1", "all"])
    def test_acks_are_as_kafka_names_them(self, acks: Any) -> None:
        assert load({"kafka": {"acks": acks}}).kafka.acks == str(acks)

    def test_the_password_is_shown_nowhere(self) -> None:
        settings = load({"kafka": LOGIN})
        assert "S3krit" not in str([settings, masked_settings(settings)])


class TestRabbitmq:
    RECORDS: ClassVar = {"task_store": {"url": "redis://host/0"}}

    def test_files_need_its_tls(self) -> None:
        for url in ("redis://host/0", "amqp://host//"):
            assert "need an amqps:// URL" in complaint(self.RECORDS | {"broker": {"url": url, **PAIR}})

    def test_certificate_and_host_are_verified_with_and_without_files(self, certificates: Certificates) -> None:
        plain = load(self.RECORDS | {"broker": {"url": "amqps://host//"}}).broker
        assert amqp_tls(plain) == {"cert_reqs": 2, "server_hostname": None}
        files = {
            "ca_file": str(certificates.authority),
            "cert_file": str(certificates.certificate),
            "key_file": str(certificates.key),
        }
        broker = load(self.RECORDS | {"broker": {"url": "amqps://host//", **files}}).broker
        assert amqp_tls(broker) == {
            "cert_reqs": 2,
            "server_hostname": None,
            "ca_certs": files["ca_file"],
            "certfile": files["cert_file"],
            "keyfile": files["key_file"],
        }
        assert amqp_tls(load(self.RECORDS | {"broker": {"url": "amqp://host//"}}).broker) is None


def test_mongodb_takes_replica_sets_and_tls() -> None:
    url = "mongodb://me:pw@one:1,two:2,three/results?replicaSet=rs0&tls=true&tlsCAFile=ca.crt&authSource=admin&w=majority"
    assert load({"mongodb": {"url": url}}).mongodb.url.get_secret_value() == url


@pytest.mark.parametrize(
    ("endpoint", "secure", "has_tls"), [("https://h:1", False, True), ("h:1", True, True), ("http://h:1", True, False)]
)
def test_authorities_of_an_s3_store_need_tls(endpoint: str, secure: bool, has_tls: bool) -> None:
    s3 = {"endpoint": endpoint, "secure": secure}
    assert load({"s3": s3}).s3.has_tls is has_tls
    if not has_tls:
        assert complaint({"s3": s3 | {"ca_file": "ca.crt"}}) == "s3: ca_file needs an https:// endpoint, or secure: true"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"ca_file": "missing.crt"}, "kafka.ca_file: cannot use missing.crt: No such file or directory"),
        ({"ca_file": "empty.crt"}, "kafka.ca_file: cannot use empty.crt: "),
        ({"cert_file": "missing.crt"}, "kafka.cert_file: cannot use missing.crt with the key "),
        ({"key_file": "empty.crt"}, "kafka.cert_file: cannot use "),
    ],
    ids=str,
)
def test_a_file_that_is_of_no_use_is_named(
    workplace: Path, certificates: Certificates, change: dict[str, str], problem: str
) -> None:
    (workplace / "empty.crt").touch()
    files = {"cert_file": str(certificates.certificate), "key_file": str(certificates.key)}
    kafka = load({"kafka": LOGIN | files | change}).kafka
    with pytest.raises(ConfigurationError) as caught:
        client_context("kafka", kafka)
    assert caught.value.detail.startswith(problem)
    assert "PEM" in caught.value.detail or "No such file" in caught.value.detail or "NO_CERTIFICATE" in caught.value.detail
