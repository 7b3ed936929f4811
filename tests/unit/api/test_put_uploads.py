"""POST /uploads, the put to its URL, and the requests that name the upload: on a folder and on real S3 stores."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from api_rig import RAW_METADATA, FakeWorker, MakeApp, assert_problem, picture, raw_image, services_of
from flask import Flask
from flask.testing import FlaskClient
from support.real_servers import minio_settings, versitygw_settings
from werkzeug.test import TestResponse

from api.acceptance.client_uploads import ClientUploads
from api.components import components_of
from inference.access import ANYBODY
from inference.domain import TaskRecord
from inference.errors import ObjectNotFound, Overloaded
from inference.relay.expired_uploads import ExpiredUploads
from inference.storage.client_uploads import expires_at_ms, incoming_key, is_incoming, new_upload_id
from inference.storage.protocol import bucket_and_key
from inference.task_store.protocol import TaskFilter

PNG = picture("PNG")
#: A picture over the limit of bodies.
LARGE = PNG + bytes(3000)
LIMITS = {"api": {"max_body_bytes": 2000}, "uploads": {"max_bytes": 5000, "inline_max_bytes": 0}}

#: Puts bytes to the URL of an upload; gives the status.
Put = Callable[[dict[str, Any], bytes], int]


@pytest.fixture(params=["local", *(pytest.param(name, marks=pytest.mark.services) for name in ("minio", "versitygw"))])
def app(request: pytest.FixtureRequest, make_app: MakeApp, key_prefix: str) -> Flask:
    if request.param == "local":
        return make_app(**LIMITS)
    settings_of = {"minio": minio_settings, "versitygw": versitygw_settings}[request.param]
    settings = settings_of(request.getfixturevalue("services_env"))
    bucket = f"uploads-{re.sub('[^a-z0-9]', '', key_prefix.lower())}"[:60]
    return make_app(s3=settings, api=LIMITS["api"], uploads=LIMITS["uploads"] | {"store": "s3", "bucket": bucket})


@pytest.fixture
def put(client: FlaskClient) -> Put:
    """Does what any client does, for both stores."""

    def put(upload: dict[str, Any], data: bytes) -> int:
        assert upload["method"] == "PUT"
        url = urlsplit(upload["url"])
        if url.netloc == "localhost":
            return client.put(f"{url.path}?{url.query}", data=data, headers=upload["headers"]).status_code
        return requests.put(upload["url"], data=data, headers=upload["headers"], timeout=10).status_code

    return put


def create(client: FlaskClient) -> dict[str, Any]:
    response = client.post("/uploads")
    assert response.status_code == 201, response.data
    upload: dict[str, Any] = response.json
    return upload


def post(client: FlaskClient, upload: dict[str, Any], **members: Any) -> TestResponse:
    return client.post("/inference", json={"image": upload["image"]} | members)


def records_of(app: Flask) -> list[TaskRecord]:
    store = services_of(app).store
    return [record for record in store.get_many(store.list_tasks(TaskFilter()).task_ids) if record]


def keys_of(app: Flask) -> list[str]:
    """Keys of the uploads of tasks, of all days with a task."""
    objects = services_of(app).objects
    days = {record.item.object_key.rpartition("/")[0] for record in records_of(app)}
    return [key for day in days for key in objects.list_keys(f"{day}/", limit=100)]


class TestUploads:
    def test_an_upload_is_put_and_named(self, client: FlaskClient, worker: FakeWorker, put: Put) -> None:
        upload = create(client)
        assert upload["max_bytes"] == 5000
        assert re.fullmatch(r"s3://[a-z0-9-]+/incoming/[0-9a-f]{44}", upload["image"]["url"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", upload["expires_at"])
        assert put(upload, PNG) == 200
        response = post(client, upload)
        assert response.status_code == 200, response.data
        assert response.json["response"]["class"] == 7

    def test_several_requests_may_name_one(self, client: FlaskClient, worker: FakeWorker, put: Put) -> None:
        upload = create(client)
        put(upload, raw_image(3))
        assert [post(client, upload, **RAW_METADATA).json["response"]["class"] for _ in range(2)] == [3, 3]
        items = [
            {"image": upload["image"]},
            {"object": upload["image"]["url"]},
            {"image": {"base64": base64.b64encode(raw_image(4)).decode()}},
        ]
        batch = client.post("/inference/batch", json={"items": items} | RAW_METADATA).json
        assert [item["result"]["class"] for item in batch["items"]] == [3, 3, 4]

    def test_the_image_of_a_task_is_a_copy(self, client: FlaskClient, idle_worker: FakeWorker, put: Put, app: Flask) -> None:
        upload = create(client)
        put(upload, raw_image(3))
        task_id = post(client, upload, mode="async", **RAW_METADATA).json["task_id"]
        put(upload, raw_image(4))
        bucket_key = bucket_and_key(upload["image"]["url"])
        assert bucket_key
        services_of(app).objects.delete(bucket_key[1])
        idle_worker.work_off()
        task = client.get(f"/tasks/{task_id}").json
        assert task["result"]["class"] == 3
        assert task["timings"]["store_ms"] > 0
        assert client.get(f"/tasks/{task_id}/image").data == raw_image(3)
        assert client.post(f"/tasks/{task_id}/replay").status_code == 202

    def test_one_that_is_larger_than_a_body_is_checked_by_the_worker(self, client: FlaskClient, put: Put, app: Flask) -> None:
        upload = create(client)
        assert put(upload, LARGE) == 200
        task_id = post(client, upload, mode="async").json["task_id"]
        record = services_of(app).store.get(task_id)
        assert record.item.header is None
        assert services_of(app).objects.get(record.item.object_key) == LARGE
        assert client.get(f"/tasks/{task_id}/image").data == LARGE
        for name, value in RAW_METADATA.items():
            assert_problem(post(client, upload, **{name: value}), 400, "invalid_metadata", field=f"metadata.{name}")

    def test_one_that_is_too_large(self, client: FlaskClient, put: Put, app: Flask) -> None:
        upload = create(client)
        status = put(upload, bytes(5001))
        if status == 413:  # the API refuses it, an S3 store does not
            assert_problem(post(client, upload), 404, "object_not_found", field="image.url")
        else:
            assert_problem(post(client, upload), 413, "payload_too_large")
        assert records_of(app) == []

    def test_one_whose_bytes_have_not_come(self, client: FlaskClient) -> None:
        upload = create(client)
        problem = assert_problem(post(client, upload), 404, "object_not_found", field="image.url")
        assert "bytes have not come" in problem["detail"]
        items = client.post("/inference/batch", json={"items": [{"image": upload["image"]}]}).json["items"]
        assert items[0]["error"]["code"] == "object_not_found"

    def test_one_that_is_no_image_leaves_no_copy(self, client: FlaskClient, put: Put, app: Flask) -> None:
        upload, good = create(client), create(client)
        put(upload, b"no image at all")
        put(good, PNG)
        assert_problem(post(client, upload), 400, "invalid_metadata")
        batch = client.post(
            "/inference/batch", json={"items": [{"image": upload["image"]}, {"image": good["image"]}], "mode": "async"}
        )
        assert [item["status"] for item in batch.json["items"]] == ["refused", "queued"]
        assert len(keys_of(app)) == 1

    def test_a_refused_batch_leaves_no_copies(
        self, client: FlaskClient, put: Put, app: Flask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def overloaded(*_: Any, **__: Any) -> None:
            raise Overloaded("too many", retry_after_s=1)

        upload = create(client)
        put(upload, PNG)
        assert post(client, upload, mode="async").status_code == 202
        parts = components_of(app).batch_submissions.parts
        monkeypatch.setattr(parts.admission, "check", overloaded)
        items = [{"image": upload["image"]}] * 3
        assert_problem(client.post("/inference/batch", json={"items": items}), 429, "overloaded")
        parts.uploads._deletions._executor.shutdown(wait=True)
        assert len(keys_of(app)) == 1

    def test_the_buckets_that_may_be_named_do_not_concern_it(self, make_app: MakeApp, worker: FakeWorker) -> None:
        client = make_app(batch={"allowed_buckets": []}).test_client()
        upload = create(client)
        url = urlsplit(upload["url"])
        client.put(f"{url.path}?{url.query}", data=PNG)
        assert post(client, upload, mode="async").status_code == 202
        other = {"image": {"url": upload["image"]["url"].replace("incoming", "photos")}}
        assert_problem(post(client, other), 400, "invalid_request", field="image.url")


class TestPut:
    """The put to the API, which a folder needs."""

    @pytest.fixture
    def app(self, make_app: MakeApp) -> Flask:
        return make_app(**LIMITS)

    @pytest.fixture
    def path(self, client: FlaskClient) -> str:
        url = urlsplit(create(client)["url"])
        return f"{url.path}?{url.query}"

    def test_the_last_put_counts(self, client: FlaskClient, path: str, app: Flask) -> None:
        assert client.put(path, data=b"one").json == {"bytes": 3}
        assert client.put(path, data=b"second").json == {"bytes": 6}
        key = incoming_key(path.removeprefix("/uploads/").partition("?")[0])
        assert services_of(app).objects.get(key) == b"second"

    def test_other_urls(self, client: FlaskClient, path: str, tmp_path: Path) -> None:
        before, _, signature = path.partition("=")
        for wrong in (
            before,
            f"{before}=",
            f"{before}={signature[:-1]}",
            f"{before}=%C3%A4",
            f"/uploads/x?signature={signature}",
        ):
            assert_problem(client.put(wrong, data=b"x"), 404, "object_not_found")
        assert_problem(client.put(f"{path}&more=1", data=b"x"), 400, "invalid_request", field="more")
        assert_problem(client.put(path, data=b"x", headers={"Content-Encoding": "gzip"}), 415, "unsupported_content_encoding")
        assert not list(tmp_path.rglob("incoming"))

    def test_too_many_bytes(self, client: FlaskClient, path: str, tmp_path: Path) -> None:
        assert_problem(client.put(path, data=bytes(5001)), 413, "payload_too_large", field="body")
        chunked = {"wsgi.input_terminated": True, "CONTENT_LENGTH": ""}
        for size in (5001, 50_000, 600_000):
            response = client.put(path, input_stream=io.BytesIO(bytes(size)), environ_overrides=chunked)
            assert_problem(response, 413, "payload_too_large", field="body")
        assert [file for file in tmp_path.rglob("incoming/*") if file.is_file()] == []
        assert client.put(path, data=bytes(5000)).json == {"bytes": 5000}

    def test_one_process_takes_the_uploads_of_another(self, client: FlaskClient, path: str, make_app: MakeApp) -> None:
        assert make_app(**LIMITS).test_client().put(path, data=PNG).status_code == 200

    def test_an_expired_one(self, app: Flask) -> None:
        services, now_s = services_of(app), [1000.0]
        uploads = ClientUploads(
            services.objects, services.store, services.settings.uploads, check_free_space=lambda: None, clock=lambda: now_s[0]
        )
        upload = uploads.create(ANYBODY)
        now_s[0] += 3599
        assert uploads.store(upload.upload_id, upload.signature, [b"a", b"b"], size=None) == 2
        now_s[0] += 2
        with pytest.raises(ObjectNotFound, match="expired"):
            uploads.store(upload.upload_id, upload.signature, [b"a"], size=1)

    def test_the_request_has_no_body(self, client: FlaskClient) -> None:
        assert_problem(client.post("/uploads", json={}), 400, "invalid_request", field="body")
        assert_problem(client.post("/uploads?size=1"), 400, "invalid_request", field="size")


class TestExpiry:
    """The relay removes what has expired, and nothing else."""

    def test_expired_uploads_go(self, app: Flask) -> None:
        objects = services_of(app).objects
        times = (1_000_000, 2_000_000)
        ids = [new_upload_id(at_ms) for at_ms in times]
        others = ["incoming/0.jpg", "incoming/zebra.jpg"]
        for key in (*map(incoming_key, ids), f"{incoming_key(ids[0])}.ab12.part", *others):
            objects.put(key, b"")
        now_s = [1000.0]
        job = ExpiredUploads(objects, clock=lambda: now_s[0])
        found = []
        for now_s[0] in (1000.0, 1119.0, 1121.0, 3000.0):
            assert job.remove_expired() == 60
            found.append(len(objects.list_keys("incoming/", limit=10)))
        assert found == [5, 5, 3, 2]
        assert objects.list_keys("incoming/", limit=10) == others

    def test_many_take_several_listings(self, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("inference.relay.expired_uploads._PAGE_SIZE", 3)
        objects = services_of(app).objects
        keys = [incoming_key(new_upload_id(at_ms)) for at_ms in (*range(1, 8), 10**12)]
        for key in keys:
            objects.put(key, b"")
        ExpiredUploads(objects, clock=lambda: 1000.0).remove_expired()
        assert objects.list_keys("incoming/", limit=10) == keys[-1:]

    def test_keys(self) -> None:
        upload_id = new_upload_id(1234)
        assert expires_at_ms(incoming_key(upload_id)) == 1234
        assert is_incoming(incoming_key(upload_id))
        for key in (upload_id, f"incoming/{upload_id}.part", f"incoming/{upload_id[1:]}", f"uploads/incoming/{upload_id}"):
            assert not is_incoming(key)


@pytest.mark.services
def test_clients_may_reach_the_object_store_under_another_name(make_app: MakeApp, services_env: dict[str, str]) -> None:
    settings = minio_settings(services_env, public_endpoint="https://images.example.org")
    client = make_app(s3=settings, uploads={"store": "s3", "bucket": "public-name"}).test_client()
    upload = create(client)
    assert upload["url"].startswith("https://images.example.org/public-name/incoming/")
    assert "X-Amz-Signature=" in upload["url"]
    assert_problem(client.put("/uploads/x?signature=y", data=PNG), 404, "object_not_found")
