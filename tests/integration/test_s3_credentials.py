"""Temporary keys for the object store: MinIO issues them, and a server of the test hands them out as AWS does for a role."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from minio.credentials.credentials import Credentials
from minio.credentials.providers import AssumeRoleProvider
from pydantic import SecretStr
from support.limited_users import limited_user
from support.receiver import Received, Receiver, Reply, running_receiver

from inference.errors import ServiceUnavailable
from inference.settings import S3Settings
from inference.storage.s3 import S3ObjectReader, S3ObjectStore

KEY = "uploads/2026/01/31/task"
ROLE = "arn:aws:iam::123456789012:role/inference"


@pytest.fixture(scope="module")
def user(services_env: dict[str, str]) -> Iterator[S3Settings]:
    name = f"temporary-{uuid.uuid4().hex[:12]}"
    with limited_user(services_env, name, f"{name}-*") as settings:
        yield settings


@pytest.fixture(scope="module")
def keys(user: S3Settings) -> Credentials:
    """Temporary keys of the user, from MinIO."""
    return AssumeRoleProvider(
        sts_endpoint=user.endpoint,
        access_key=user.access_key.get_secret_value(),
        secret_key=user.secret_key.get_secret_value(),
        duration_seconds=3600,
    ).retrieve()


@pytest.fixture
def bucket(user: S3Settings) -> str:
    return f"{user.access_key.get_secret_value()}-{uuid.uuid4().hex[:8]}"


def with_token(user: S3Settings, keys: Credentials, token: str | None) -> S3Settings:
    secrets = {"access_key": keys.access_key, "secret_key": keys.secret_key, "session_token": token or ""}
    return S3Settings.model_validate({"endpoint": user.endpoint} | {name: SecretStr(value) for name, value in secrets.items()})


def test_temporary_keys_need_their_token(user: S3Settings, keys: Credentials, bucket: str) -> None:
    store = S3ObjectStore(with_token(user, keys, keys.session_token), bucket)
    store.put(KEY, b"pixels")
    assert store.get(KEY) == b"pixels"
    url = store.put_url("incoming/a", lifetime_s=60)
    assert requests.put(url, data=b"client's", timeout=10).status_code == 200
    assert store.get("incoming/a") == b"client's"
    for token in (None, "another"):
        with pytest.raises(ServiceUnavailable):
            S3ObjectStore(with_token(user, keys, token), bucket).put(KEY, b"pixels")


@pytest.fixture
def role_server(keys: Credentials) -> Iterator[Receiver]:
    """Serves the keys in the forms of AWS' security token service, of a container's endpoint and of an EC2 instance."""
    with running_receiver() as server:
        server.reply = lambda request, _handler: answer(request, keys, timedelta(hours=1))
        yield server


def answer(request: Received, keys: Credentials, lifetime: timedelta) -> Reply:
    expiration = (datetime.now(UTC) + lifetime).strftime("%Y-%m-%dT%H:%M:%SZ")
    path = urlsplit(request.path).path
    if request.method == "POST":
        found = (
            f"<AccessKeyId>{keys.access_key}</AccessKeyId><SecretAccessKey>{keys.secret_key}</SecretAccessKey>"
            f"<SessionToken>{keys.session_token}</SessionToken><Expiration>{expiration}</Expiration>"
        )
        name = "AssumeRoleWithWebIdentity"
        text = f"<{name}Response><{name}Result><Credentials>{found}</Credentials></{name}Result></{name}Response>"
        return Reply(body=text.encode())
    if path == "/latest/api/token":
        return Reply(body=b"metadata-token")
    if path.endswith("/security-credentials/"):
        return Reply(body=b"inference")
    values = {"AccessKeyId": keys.access_key, "SecretAccessKey": keys.secret_key, "Token": keys.session_token}
    return Reply(body=json.dumps(values | {"Expiration": expiration, "Code": "Success"}).encode())


def of_role(user: S3Settings, **options: object) -> S3Settings:
    return S3Settings.model_validate({"endpoint": user.endpoint, "credentials": "role"} | options)


def puts_and_gets(settings: S3Settings, bucket: str) -> bool:
    store = S3ObjectStore(settings, bucket)
    store.put(KEY, b"pixels")
    store.put_url("incoming/a", lifetime_s=60)
    return store.get(KEY) == b"pixels" and bool(S3ObjectReader(settings).etag(bucket, KEY))


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("identity", encoding="utf-8")
    return path


@pytest.fixture
def of_web_identity(user: S3Settings, role_server: Receiver, token_file: Path, monkeypatch: pytest.MonkeyPatch) -> S3Settings:
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token_file))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    return of_role(user, role_endpoint=role_server.url())


def test_a_web_identity(of_web_identity: S3Settings, bucket: str, role_server: Receiver) -> None:
    assert puts_and_gets(of_web_identity, bucket)
    asked = [parse_qs(urlsplit(request.path).query) for request in role_server.received]
    assert [(query["RoleArn"], query["WebIdentityToken"]) for query in asked] == [([ROLE], ["identity"])] * 2  # store and reader


def test_a_container(
    user: S3Settings, bucket: str, role_server: Receiver, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", role_server.url(path="/v1/credentials"))
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token_file))
    assert puts_and_gets(of_role(user), bucket)
    assert {(request.path, request.headers["Authorization"]) for request in role_server.received} == {
        ("/v1/credentials", "identity")
    }


def test_an_instance(user: S3Settings, bucket: str, role_server: Receiver) -> None:
    assert puts_and_gets(of_role(user, role_endpoint=role_server.url()), bucket)
    first = [(request.method, request.path) for request in role_server.received[:3]]
    assert first == [
        ("PUT", "/latest/api/token"),
        ("GET", "/latest/meta-data/iam/security-credentials/"),
        ("GET", "/latest/meta-data/iam/security-credentials/inference"),
    ]
    assert role_server.received[1].headers["X-aws-ec2-metadata-token"] == "metadata-token"


def test_keys_are_renewed_before_they_expire(
    of_web_identity: S3Settings, keys: Credentials, bucket: str, role_server: Receiver, token_file: Path
) -> None:
    role_server.reply = lambda request, _handler: answer(request, keys, timedelta(seconds=1))
    store = S3ObjectStore(of_web_identity, bucket)
    store.put(KEY, b"pixels")
    before = len(role_server.received)
    token_file.write_text("renewed", encoding="utf-8")  # as a cluster does each hour
    assert store.get(KEY) == b"pixels"
    assert len(role_server.received) > before
    assert "WebIdentityToken=renewed" in role_server.received[-1].path


@pytest.mark.parametrize("reply", [Reply(status=400), Reply(body=b"{}"), Reply(body=b"not JSON"), None])
def test_a_role_without_keys_is_an_outage_and_asked_once(user: S3Settings, role_server: Receiver, reply: Reply | None) -> None:
    def answered(_request: Received, handler: BaseHTTPRequestHandler) -> Reply | None:
        handler.close_connection = True
        return reply

    role_server.reply = answered
    store = S3ObjectStore(of_role(user, role_endpoint=role_server.url()), "bucket")
    with pytest.raises(ServiceUnavailable, match="object store"):
        store.put(KEY, b"pixels")
    asked = len(role_server.received)
    for _ in range(5):
        with pytest.raises(ServiceUnavailable, match="a moment ago"):
            store.get(KEY)
    assert len(role_server.received) == asked
