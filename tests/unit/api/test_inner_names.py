"""Each server is broken in turn: clients hear of no address, path, bucket or password; the log does, under the request's id."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from api_rig import post_batch, raw_form
from flask.testing import FlaskClient
from support.real_servers import NOBODY, minio_settings
from support.redis_server import own_redis_server
from werkzeug.test import TestResponse

from inference.runtime.log import configure_logging
from inference.settings import LogSettings

SECRET = "no-client-hears-this"
BUCKET = "the-inner-bucket"
#: Settings by section, the words that no client may read, and what the log says.
World = tuple[dict[str, Any], list[str], str]
MakeWorld = Callable[[pytest.FixtureRequest, Path], World]


def _redis_that_is_gone(_: pytest.FixtureRequest, __: Path) -> World:
    return {"broker": {"url": f"redis://user:{SECRET}@{NOBODY}/0"}}, ["127.0.0.1", "Errno"], NOBODY


def _redis_with_another_password(request: pytest.FixtureRequest, _: Path) -> World:
    server = request.getfixturevalue("guarded_redis")
    path = server.url.removeprefix("unix://").partition("?")[0]
    return {"broker": {"url": f"unix://:{SECRET}@{path}?db=0"}}, [path, "broker.sock", "username-password"], "username-password"


def _rabbitmq_that_is_gone(request: pytest.FixtureRequest, _: Path) -> World:
    url = request.getfixturevalue("redis_url")
    settings = {"broker": {"url": f"amqp://user:{SECRET}@{NOBODY}//"}, "task_store": {"url": url}}
    return settings, ["127.0.0.1", "Errno"], "Connection refused"


def _minio_that_is_gone(_: pytest.FixtureRequest, __: Path) -> World:
    minio = {"endpoint": NOBODY, "access_key": "inner-user", "secret_key": SECRET}
    settings = {"uploads": {"store": "s3", "bucket": BUCKET}, "s3": minio}
    return settings, ["127.0.0.1", "inner-user", "urllib3", "HTTPConnection"], "127.0.0.1"


def _minio_with_other_keys(request: pytest.FixtureRequest, _: Path) -> World:
    env = request.getfixturevalue("services_env")
    minio = minio_settings(env, secret_key=SECRET)
    settings = {"uploads": {"store": "s3", "bucket": BUCKET}, "s3": minio}
    return settings, [minio.endpoint.rpartition("/")[2], env["MINIO_ACCESS_KEY"], "S3", "resource"], "SignatureDoesNotMatch"


def _a_folder_that_is_a_file(_: pytest.FixtureRequest, folder: Path) -> World:
    file = folder / "inner-folder"
    file.write_bytes(b"")
    return {"uploads": {"path": file}}, [str(folder), "inner-folder", "Errno"], "inner-folder"


WORLDS: list[Any] = [
    _redis_that_is_gone,
    _redis_with_another_password,
    _rabbitmq_that_is_gone,
    _minio_that_is_gone,
    pytest.param(_minio_with_other_keys, marks=pytest.mark.services),
    _a_folder_that_is_a_file,
]


@pytest.fixture
def guarded_redis() -> Iterator[Any]:
    with own_redis_server() as server:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("requirepass", "another-one")
        yield server


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr("sys.stderr", stream)
    configure_logging(LogSettings(format="text"), "api")
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def answers_of(client: FlaskClient, settings: dict[str, Any]) -> list[TestResponse]:
    accepted = {"Prefer": "respond-async"}
    answers = [client.post("/inference", data=raw_form(request_id="r"), headers=accepted), client.get("/health/ready")]
    if settings.get("broker", {}).get("url", "").startswith("amqp"):  # each publish waits for it
        return answers
    return [
        *answers,
        post_batch(client, [1, 2], headers=accepted),
        client.post("/inference_service_controller", data={"command": "load_new_weights", "weights_url": "w.h5"}),
        client.get("/tasks/x"),
        client.delete("/tasks/x"),
        client.get("/batches/x"),
        client.get("/status"),
        client.get("/models"),
    ]


@pytest.mark.parametrize("make_world", WORLDS, ids=lambda world: world.__name__.strip("_"))
def test_no_client_hears_of_them(
    make_app: Any, request: pytest.FixtureRequest, log: io.StringIO, tmp_path: Path, make_world: MakeWorld
) -> None:
    settings, inner, logged = make_world(request, tmp_path)
    answers = answers_of(make_app(**settings).test_client(), settings)
    for answer in answers:
        told = f"{answer.status} {answer.headers} {answer.text}"
        assert [word for word in (*inner, SECRET, BUCKET, "Traceback", "Error(") if word in told] == []
    unavailable = [answer.headers["X-Request-ID"] for answer in answers if answer.status_code == 503]
    lines = log.getvalue().splitlines()
    assert unavailable
    assert [line for line in lines if logged in line and any(f"request_id={one}" in line for one in unavailable)]
    assert SECRET not in log.getvalue()
    assert "Traceback" not in log.getvalue()
