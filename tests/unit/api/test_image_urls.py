"""Images at http:// and https:// URLs, which the API fetches through the URL guard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_rig import FakeWorker, MakeApp, assert_problem, picture, services_of
from flask import Flask
from flask.testing import FlaskClient
from support.certificates import make_certificates
from support.receiver import Receiver, Reply, running_receiver
from werkzeug.test import TestResponse

from inference.errors import ServiceUnavailable
from inference.settings import ImageUrlSettings

PNG = picture("PNG")


@pytest.fixture
def host() -> Iterator[Receiver]:
    with running_receiver() as receiver:
        receiver.reply = lambda _request, _handler: Reply(200, {"Content-Type": "text/plain"}, PNG)
        yield receiver


def rules(host: Receiver, **changes: Any) -> dict[str, Any]:
    return {"enabled": True, "allow_http": True, "ports": [host.port], "private_networks": ["127.0.0.0/8"]} | changes


@pytest.fixture
def app(make_app: MakeApp, host: Receiver) -> Flask:
    return make_app(image_urls=rules(host), api={"max_body_bytes": 2000})


def post(client: FlaskClient, url: str, **members: Any) -> TestResponse:
    return client.post("/inference", json={"image": {"url": url}} | members)


def post_items(client: FlaskClient, urls: list[str], **members: Any) -> TestResponse:
    return client.post("/inference/batch", json={"items": [{"image": {"url": url}} for url in urls]} | members)


def test_an_image_is_fetched_and_classified(client: FlaskClient, worker: FakeWorker, host: Receiver) -> None:
    response = post(client, host.url(path="/a/b.png?c=ä"))
    assert (response.status_code, response.json["response"]["class"]) == (200, 7), response.data
    (request,) = host.received
    assert (request.method, request.path, request.headers["Accept-Encoding"]) == ("GET", "/a/b.png?c=%C3%A4", "identity")
    items = post_items(client, [host.url(), host.url(path="/2")]).json["items"]
    assert [item["result"]["class"] for item in items] == [7, 7]


def test_the_task_has_its_image_before_it_is_accepted(
    client: FlaskClient, idle_worker: FakeWorker, host: Receiver, app: Flask
) -> None:
    task_id = post(client, host.url(), mode="async", request_id="mine").json["task_id"]
    host.reply = lambda _request, _handler: Reply(404)
    key = services_of(app).store.get(task_id).item.object_key
    assert key.endswith(task_id)
    assert services_of(app).objects.get(key) == PNG
    idle_worker.work_off()
    assert client.get(f"/tasks/{task_id}").json["result"]["class"] == 7
    assert client.get(f"/tasks/{task_id}/image").data == PNG
    assert client.post(f"/tasks/{task_id}/replay").status_code == 202


REPLIES = {
    "missing": (Reply(404), 400, "404"),
    "a redirect": (Reply(302, {"Location": "http://169.254.169.254/"}), 400, "redirects are not followed"),
    "no content": (Reply(204), 400, "204"),
    "too large": (Reply(200, {}, bytes(2001)), 413, "2000"),
    "cut off": (Reply(200, {"Content-Length": "100"}, b"short"), 400, "HTTP server"),
}


@pytest.mark.parametrize(("reply", "status", "detail"), REPLIES.values(), ids=REPLIES)
def test_an_answer_without_an_image(app: Flask, host: Receiver, reply: Reply, status: int, detail: str) -> None:
    def answer(_request: Any, handler: Any) -> Reply:
        handler.close_connection = True
        return reply

    host.reply = answer
    code = "payload_too_large" if status == 413 else "invalid_request"
    problem = assert_problem(post(app.test_client(), host.url()), status, code, field="image.url")
    assert detail in problem["detail"]
    assert not [path for path in services_of(app).settings.uploads_path.rglob("*") if path.is_file()]
    assert len(host.received) == 1


def test_what_is_no_image_is_refused_as_any_other(
    client: FlaskClient, worker: FakeWorker, host: Receiver, tmp_path: Path
) -> None:
    host.reply = lambda request, _handler: Reply(200, {}, b"no image" if request.path == "/no" else PNG)
    assert_problem(post(client, host.url(path="/no")), 400, "invalid_metadata")
    items = post_items(client, [host.url(path="/no"), host.url()]).json["items"]
    assert [item["status"] for item in items] == ["refused", "succeeded"]
    assert len([path for path in tmp_path.rglob("uploads/*/*/*/*") if path.is_file()]) == 1


REFUSED = [
    "https://169.254.169.254/latest/meta-data",
    "http://10.0.0.1:{port}/",
    "http://[::1]:{port}/",
    "http://127.0.0.1:1/",
    "http://user:password@127.0.0.1:{port}/",
    "http://2130706433:{port}/",
    "http://",
    "http:///path",
    "https://[",
    "https://[::1",
    "https://exa mple.org/",
    "https://example.org:99999/",
    "https://example.org:port/",
    "https://%zz/",
    "https://\u2100.example/",
    "https://a..b/",
    "http:relative",
    "https://exa\nmple.org",
]


@pytest.mark.parametrize("url", REFUSED)
def test_a_url_that_may_not_be_fetched(client: FlaskClient, worker: FakeWorker, host: Receiver, url: str) -> None:
    url = url.format(port=host.port)
    assert_problem(post(client, url), 400, "invalid_request", field="image.url")
    items = post_items(client, [url, host.url()]).json["items"]
    assert [item["error"] and item["error"]["field"] for item in items] == ["image.url", None]
    assert len(host.received) == 1


def test_it_is_off_by_default(make_app: MakeApp, host: Receiver) -> None:
    assert ImageUrlSettings().enabled is False
    client = make_app(image_urls=rules(host, enabled=False)).test_client()
    problem = assert_problem(post(client, host.url()), 400, "invalid_request", field="image.url")
    assert "image_urls.enabled" in problem["detail"]
    assert host.received == []


@pytest.mark.parametrize(
    "changes", [{"allow_http": False}, {"hosts": ["images.example.org"]}, {"private_networks": []}, {"ports": []}]
)
def test_each_rule_counts(make_app: MakeApp, host: Receiver, changes: dict[str, Any]) -> None:
    client = make_app(image_urls=rules(host, **changes)).test_client()
    assert_problem(post(client, host.url()), 400, "invalid_request", field="image.url")
    assert host.received == []


def test_over_tls(make_app: MakeApp, worker: FakeWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_certificates(tmp_path)
    with running_receiver(certificate=made.certificate, key=made.key) as host:
        host.reply = lambda _request, _handler: Reply(200, {}, PNG)
        untrusted = make_app(image_urls=rules(host, allow_http=False)).test_client()
        assert "certificate" in assert_problem(post(untrusted, host.url()), 400, "invalid_request")["detail"]
        monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
        client = make_app(image_urls=rules(host, allow_http=False)).test_client()
        assert post(client, host.url()).status_code == 200


def test_a_slow_host(make_app: MakeApp, host: Receiver) -> None:
    def silent(_request: Any, handler: Any) -> None:
        handler.rfile.read(1)  # until the client gives up

    host.reply = silent
    client = make_app(image_urls=rules(host, timeout_s=0.3)).test_client()
    assert "0.3 s" in assert_problem(post(client, host.url()), 400, "invalid_request", field="image.url")["detail"]


def test_an_object_store_that_is_down(client: FlaskClient, host: Receiver, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: Any, **__: Any) -> None:
        raise ServiceUnavailable("the object store does not answer", retry_after_s=5)

    monkeypatch.setattr(services_of(app).objects, "put", down)
    assert_problem(post(client, host.url()), 503, "service_unavailable")
    assert_problem(post_items(client, [host.url()]), 503, "service_unavailable")
    assert client.get("/tasks").json["tasks"] == []
