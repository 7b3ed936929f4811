"""Addresses of other servers in the settings."""

from __future__ import annotations

from typing import Any

import pytest
from kombu import Connection
from support.settings_files import complaint, load

from inference.storage.s3 import S3ObjectStore


class TestAddresses:
    """Addresses of other servers: what is wrong is found here, and not by a process that dies of it later."""

    @pytest.mark.parametrize(
        ("endpoint", "becomes"),
        [
            ("host", "host"),
            ("host:9000", "host:9000"),
            ("http://host:9000/", "http://host:9000"),
            ("HTTPS://s3.eu-west-1.amazonaws.com", "https://s3.eu-west-1.amazonaws.com"),
            ("my_minio:9000", "my_minio:9000"),
            ("[::1]:9000", "[::1]:9000"),
        ],
    )
    def test_an_endpoint_is_a_server(self, endpoint: str, becomes: str) -> None:
        settings = load({"s3": {"endpoint": endpoint}})
        assert settings.s3.endpoint == becomes
        S3ObjectStore(settings.s3, "bucket")

    @pytest.mark.parametrize(
        "endpoint",
        [
            "http://host:9000/browser",
            "host/bucket",
            "h:9000?a=b",
            "ftp://h:9000",
            "h:1:2",
            "h :9",
            "h:0",
            "h:99999",
            "http://",
            "",
            "::1",
        ],
    )
    def test_an_endpoint_is_nothing_else(self, endpoint: str) -> None:
        assert complaint({"s3": {"endpoint": endpoint}}).startswith("s3.endpoint: must be HOST:PORT")

    def test_an_endpoint_has_no_credentials(self) -> None:
        said = complaint({"s3": {"endpoint": "http://key:secret@host:9000"}})
        assert said.startswith("s3.endpoint: must be HOST:PORT; credentials belong in")
        assert "secret@" not in said

    @pytest.mark.parametrize("key", ["access_key", "secret_key"])
    @pytest.mark.parametrize("value", ["secret\n", "secret\r\n", "\tsecret", " secret", "secret ", "sec\0ret"])
    def test_a_key_is_told_what_is_wrong_and_not_shown(self, key: str, value: str) -> None:
        said = complaint({"s3": {key: value}})
        assert said.startswith(f"s3.{key}: ")
        assert "secret" not in said.removeprefix(f"s3.{key}")

    def test_an_access_key_goes_into_a_header(self) -> None:
        assert complaint({"s3": {"access_key": "schl\u00fcssel"}}).startswith("s3.access_key: must be ASCII")

    @pytest.mark.parametrize("key", ["broker.url", "task_store.url", "mongodb.url", "kafka.bootstrap_servers", "s3.endpoint"])
    def test_an_address_has_no_line_end(self, key: str) -> None:
        section, _, name = key.partition(".")
        assert complaint({section: {name: "redis://:secret\n"}}).startswith(f"{key}: ends in a line end")

    @pytest.mark.parametrize("servers", ["a:9092,b:9093", "a:9092, b:9093,", ["a:9092", "b:9093"], '["a:9092", "b:9093"]'])
    def test_kafka_has_several_servers(self, servers: Any) -> None:
        assert load({"kafka": {"bootstrap_servers": servers}}).kafka.bootstrap_servers == "a:9092,b:9093"

    @pytest.mark.parametrize("servers", ["kafka://a:9092", "a:x", ",", "a:1,,b:1", "[3]", "", "a b", [], [3]])
    def test_kafka_servers_are_hosts(self, servers: Any) -> None:
        assert complaint({"kafka": {"bootstrap_servers": servers}}).startswith("kafka.bootstrap_servers: ")

    RAW = ("pass/word", "pass?word", "pass#word", "12/word", "12#word", "12?word", "12?word&x", "pass[word")

    @pytest.mark.parametrize("raw", RAW)
    @pytest.mark.parametrize(
        ("key", "url"),
        [
            ("broker.url", "redis://user:{}@host:6379/0"),
            ("broker.url", "redis://user:{}@host"),
            ("broker.url", "rediss://user:{}@host/1"),
            ("broker.url", "sentinel://user:{}@a:1,b:2/0?master=m"),
            ("broker.url", "unix://user:{}@/run/redis.sock?db=0"),
            ("broker.url", "amqp://user:{}@host:5672//"),
            ("broker.url", "amqps://user:{}@host/vhost?heartbeat=5"),
            ("mongodb.url", "mongodb://user:{}@host:27017/?w=1"),
            ("mongodb.url", "mongodb+srv://user:{}@host/"),
        ],
    )
    def test_a_password_that_is_not_percent_encoded_is_told_so(self, key: str, url: str, raw: str) -> None:
        section, _, name = key.partition(".")
        said = complaint({section: {name: url.format(raw)}, "task_store": {"url": "redis://host"}})
        assert said.startswith(f"{key}: ")
        assert "percent-encoded" in said
        assert "database" not in said
        assert "word" not in said.replace("password", "")

    @pytest.mark.parametrize("raw", ["p@ss", "p:ss", "100%!", "p%zz"])
    def test_mongodb_wants_more_encoded(self, raw: str) -> None:
        assert "percent-encoded" in complaint({"mongodb": {"url": f"mongodb://user:{raw}@host/"}})

    @pytest.mark.parametrize(
        "url",
        [
            "mongodb://a:1,b:2/db?replicaSet=x",
            "mongodb://u:p%40%2F@[::1]:27017",
            "mongodb+srv://u:p@c.example.net/?w=majority",
            "mongodb://%2Ftmp%2Fmongodb-27017.sock",
            "mongodb://user@host/?authMechanism=MONGODB-X509",
        ],
    )
    def test_mongodb_is_reached_in_many_ways(self, url: str) -> None:
        settings = load({"mongodb": {"url": url}})
        assert settings.mongodb.url.get_secret_value() == url

    @pytest.mark.parametrize(
        "url", ["amqp://h", "amqp://u:p%2F@h:5672//", "amqps://u:p@h/a/b?heartbeat=3", "amqp://a//;amqp://b//"]
    )
    def test_rabbitmq_is_reached_in_many_ways(self, url: str) -> None:
        assert load({"broker": {"url": url}, "task_store": {"url": "redis://h"}}).broker.url == url

    @pytest.mark.parametrize("url", ["amqp://", "amqp://h:port//", "amqp://a;b", "amqp://h#x"])
    def test_rabbitmq_has_a_server(self, url: str) -> None:
        assert "broker.url: " in complaint({"broker": {"url": url}, "task_store": {"url": "redis://h"}})

    @pytest.mark.parametrize("level", ["info", "Info", "INFO"])
    def test_a_log_level_is_written_in_any_case(self, level: str) -> None:
        assert load({"log": {"level": level}}).log.level == "INFO"


LONG = ".".join(["x" * 63] * 4)
HOST_SETTINGS = [
    ("api.host", "{}"),
    ("broker.url", "redis://{}:1/0"),
    ("broker.url", "sentinel://a:1,{}:2/0?master=m"),
    ("broker.url", "amqp://u:p@{}:1//"),
    ("s3.endpoint", "http://{}:1"),
    ("kafka.bootstrap_servers", "a:1,{}:1"),
    ("mongodb.url", "mongodb://a:1,{}:1/"),
    ("mongodb.url", "mongodb+srv://{}/"),
]


@pytest.mark.parametrize(("key", "form"), HOST_SETTINGS)
class TestHosts:
    """The form of a host name, the same in every address."""

    @pytest.mark.parametrize("host", ["a..b", ".a", "-a", "a-", "a.-b", "x" * 64, f"{LONG}.x", "a b", "a!b", "*", "..", "%"])
    def test_what_is_none_is_an_error_by_key(self, key: str, form: str, host: str) -> None:
        section, _, name = key.partition(".")
        said = complaint({"task_store": {"url": "redis://h"}} | {section: {name: form.format(host)}})
        assert said.startswith(f"{key}: ")
        assert "\n" not in said

    @pytest.mark.parametrize("host", ["a", "A-1.b_2", "_a", "a.example.", "x" * 63, LONG[:253], "10.0.0.1", "xn--gre-6ka8i.de"])
    def test_what_is_one_is_taken(self, key: str, form: str, host: str) -> None:
        section, _, name = key.partition(".")
        settings = load({"task_store": {"url": "redis://h"}} | {section: {name: form.format(host)}})
        assert getattr(settings, section)


@pytest.mark.parametrize("port", ["0", "00", "65536", "-1", "x"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    for url in ("redis://127.0.0.1:{}/0", "sentinel://a:{}/0?master=m", "amqp://h:{}//"):
        said = complaint({"broker": {"url": url.format(port)}, "task_store": {"url": "redis://h"}})
        assert said.startswith("broker.url: ")


@pytest.mark.parametrize("option", ["heartbeat=30", "heartbeat=2.5", "login_method=PLAIN", "heartbeat=3&login_method=EXTERNAL"])
def test_rabbitmq_takes_an_option(option: str) -> None:
    url = f"amqp://u:p@h:5672//?{option}"
    assert load({"broker": {"url": url}, "task_store": {"url": "redis://h"}}).broker.url == url
    Connection(url)


@pytest.mark.parametrize(
    "option", ["heartbeat=abc", "heartbeat=", "heartbeat=-1", "connection_attempts=3", "ssl_ca_certs=a", "x"]
)
def test_an_option_that_rabbitmqs_client_does_not_take_is_refused(option: str) -> None:
    url = f"amqp://a//;amqp://u:p@h:5672//?{option}"
    said = complaint({"broker": {"url": url}, "task_store": {"url": "redis://h"}})
    assert said.startswith("broker.url: ")
    assert "heartbeat" in said
