"""Requests that the client makes of images, options, addresses and keys, and objects that it makes of answers."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_answers import MODEL, PREDICTION, batch, task, task_document
from PIL import Image
from rohe_inference import Client, Forbidden, InvalidRequest, Item, Task
from support.client_callers import MakeCaller
from support.scripted_server import Recorded, Scripted, problem, scripted_server


def parts_of(request: Recorded) -> tuple[list[tuple[str | None, bytes]], Any]:
    """The images of a form, each with its name, and its metadata."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + request.body)
    images, metadata = [], None
    for part in message.iter_parts():
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        if part.get_param("name", header="content-disposition") == "image":
            images.append((part.get_filename(), content))
        else:
            metadata = json.loads(content)
    return images, metadata


def sent(make_caller: MakeCaller, image: Any, **options: Any) -> tuple[str | None, bytes, Any]:
    """Name, bytes and metadata with which an image is sent."""
    with scripted_server(PREDICTION) as server:
        make_caller(server.url).call("predict", image, **options)
    ((name, content),), metadata = parts_of(server.requests[0])
    return name, content, metadata


class TestImages:
    def test_paths_are_read(self, make_caller: MakeCaller, tmp_path: Path) -> None:
        file = tmp_path / "photo.jpg"
        file.write_bytes(b"pixels")

        assert sent(make_caller, file) == ("photo.jpg", b"pixels", {})
        assert sent(make_caller, str(file)) == ("photo.jpg", b"pixels", {})

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_bytes_are_sent_as_they_are(self, make_caller: MakeCaller, kind: type) -> None:
        assert sent(make_caller, kind(b"pixels")) == ("image", b"pixels", {})

    def test_open_files_are_read_once_and_sent_again(self, make_caller: MakeCaller, tmp_path: Path) -> None:
        (tmp_path / "photo.jpg").write_bytes(b"pixels")
        with (
            (tmp_path / "photo.jpg").open("rb") as file,
            scripted_server(problem(503, "service_unavailable"), PREDICTION) as server,
        ):
            make_caller(server.url).call("predict", file)

        assert [parts_of(request)[0] for request in server.requests] == [[("photo.jpg", b"pixels")]] * 2

    def test_files_in_memory_have_no_name(self, make_caller: MakeCaller) -> None:
        assert sent(make_caller, io.BytesIO(b"pixels")) == ("image", b"pixels", {})

    def test_text_file_is_refused(self, make_caller: MakeCaller) -> None:
        with pytest.raises(TypeError, match="binary mode"):
            sent(make_caller, io.StringIO("pixels"))

    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK"])
    def test_pictures_are_sent_as_png(self, make_caller: MakeCaller, mode: str) -> None:
        picture = Image.new("RGB", (4, 3), (200, 10, 10)).convert(mode)

        _, content, metadata = sent(make_caller, picture)

        assert metadata == {}
        with Image.open(io.BytesIO(content)) as found:
            assert found.format == "PNG"
            assert found.convert("RGB").tobytes() == picture.convert("RGB").tobytes()

    def test_orientation_of_a_picture_is_kept(self, make_caller: MakeCaller) -> None:
        picture = Image.new("RGB", (4, 3))
        picture.getexif()[0x0112] = 6

        _, content, _ = sent(make_caller, picture)

        with Image.open(io.BytesIO(content)) as found:
            assert found.getexif()[0x0112] == 6

    @pytest.mark.parametrize("dtype", ["uint8", ">f4", "<i2"])
    def test_arrays_are_sent_with_shape_and_dtype(self, make_caller: MakeCaller, dtype: str) -> None:
        array = np.arange(24, dtype=dtype).reshape(2, 4, 3)[:, ::-1]

        _, content, metadata = sent(make_caller, array, top_k=2)

        assert metadata["top_k"] == 2
        found = np.frombuffer(content, np.dtype(metadata["dtype"])).reshape(metadata["shape"])
        assert np.array_equal(found, array)

    @pytest.mark.parametrize("url", ["s3://bucket/key.jpg", "https://example.test/a.jpg"])
    def test_urls_are_named(self, make_caller: MakeCaller, url: str) -> None:
        with scripted_server(PREDICTION) as server:
            make_caller(server.url).call("predict", url, top_k=1)

        assert json.loads(server.requests[0].body) == {"image": {"url": url}, "top_k": 1}

    def test_something_else_is_told(self, make_caller: MakeCaller) -> None:
        with pytest.raises(TypeError, match="int is no image: expected a path"):
            sent(make_caller, 5)

    def test_missing_file_is_told_before_anything_is_sent(self, make_caller: MakeCaller) -> None:
        with scripted_server(PREDICTION) as server, pytest.raises(FileNotFoundError):
            make_caller(server.url).call("predict", "/nowhere/photo.jpg")

        assert server.requests == []


class TestOptions:
    def test_options_are_the_metadata(self, make_caller: MakeCaller) -> None:
        options = {"model": "digits", "deadline_s": 5, "sinks": [], "prediction": False, "priority": None}

        _, _, metadata = sent(make_caller, b"pixels", **options)

        assert metadata == {"model": "digits", "deadline_s": 5, "sinks": [], "prediction": False}

    @pytest.mark.parametrize("method", ["predict", "submit", "batch"])
    def test_unknown_option_is_told(self, make_caller: MakeCaller, method: str) -> None:
        image = [b"pixels"] if method == "batch" else b"pixels"
        with scripted_server(PREDICTION) as server, pytest.raises(TypeError, match="no option 'topk': known are model"):
            make_caller(server.url).call(method, image, topk=3)

        assert server.requests == []

    def test_items_of_a_batch_have_options_of_their_own(self, make_caller: MakeCaller) -> None:
        images = [b"one", Item(b"two", request_id="2", top_k=5), np.zeros((1, 2), "uint8")]
        with scripted_server(batch("succeeded", "succeeded", "succeeded")) as server:
            make_caller(server.url).call("batch", images, top_k=1)

        sent_images, metadata = parts_of(server.requests[0])
        assert [content for _, content in sent_images] == [b"one", b"two", b"\0\0"]
        assert metadata == [{"top_k": 1}, {"top_k": 5, "request_id": "2"}, {"top_k": 1, "shape": [1, 2], "dtype": "u1"}]

    def test_objects_of_a_batch_are_named(self, make_caller: MakeCaller) -> None:
        with scripted_server(batch("succeeded", "succeeded")) as server:
            make_caller(server.url).call("batch", ["s3://b/1", Item("https://a.test/2", model="digits")])

        expected = [{"object": "s3://b/1"}, {"image": {"url": "https://a.test/2"}, "model": "digits"}]
        assert json.loads(server.requests[0].body) == {"items": expected}

    def test_batch_of_urls_and_bytes_is_refused(self, make_caller: MakeCaller) -> None:
        with scripted_server(batch()) as server, pytest.raises(ValueError, match="either URLs or images"):
            make_caller(server.url).call("batch", ["s3://b/1", b"two"])

    def test_empty_batch_is_refused(self, make_caller: MakeCaller) -> None:
        with scripted_server(batch()) as server, pytest.raises(ValueError, match="at least one image"):
            make_caller(server.url).call("batch", [])


class TestAddress:
    def test_key_and_agent_are_sent(self, make_caller: MakeCaller) -> None:
        with scripted_server(PREDICTION) as server:
            make_caller(server.url, api_key="secret").call("predict", b"pixels")

        headers = server.requests[0].headers
        assert headers["authorization"] == "Bearer secret"
        assert headers["user-agent"].startswith("rohe-inference/")

    def test_environment_names_service_and_key(self, monkeypatch: pytest.MonkeyPatch, make_caller: MakeCaller) -> None:
        with scripted_server(PREDICTION) as server:
            monkeypatch.setenv("ROHE_INFERENCE_URL", f"{server.url}/behind/a/proxy/")
            monkeypatch.setenv("ROHE_INFERENCE_API_KEY", "from-outside")
            make_caller(None).call("predict", b"pixels")

        assert server.requests[0].target == "/behind/a/proxy/inference"
        assert server.requests[0].headers["authorization"] == "Bearer from-outside"

    @pytest.mark.parametrize("url", ["127.0.0.1:30005", "ftp://a", "http://", "http://a:port", "service"])
    def test_wrong_address_is_told_at_once(self, url: str) -> None:
        with pytest.raises(ValueError, match="is no "):
            Client(url)

    def test_ids_cannot_change_the_path(self, make_caller: MakeCaller) -> None:
        with scripted_server(task("succeeded")) as server:
            make_caller(server.url).call("task", "../models?x=1")

        assert server.requests[0].target == "/tasks/..%2Fmodels%3Fx%3D1"


class TestAnswers:
    def test_task(self, make_caller: MakeCaller) -> None:
        with scripted_server(task("queued")) as server:
            found = make_caller(server.url).call("submit", b"pixels")

        assert server.requests[0].headers["prefer"] == "respond-async"
        assert (found.status, found.is_ended, found.queue.position, found.model.name) == ("queued", False, 3, "digits")
        assert found.created_at == datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)
        assert found.raw == task_document("queued")
        with pytest.raises(ValueError, match="task t1 is queued"):
            found.get_result()

    def test_error_of_a_task_is_raised(self) -> None:
        error = {"type": "", "title": "", "status": 400, "detail": "broken", "code": "invalid_image", "field": "image"}
        failed = Task.from_json(task_document("failed", error=error))

        with pytest.raises(InvalidRequest) as raised:
            failed.get_result()
        assert (raised.value.code, raised.value.task_id, raised.value.field) == ("invalid_image", "t1", "image")

    def test_wait_asks_until_the_task_has_ended(self, make_caller: MakeCaller) -> None:
        with scripted_server(task("queued"), task("running"), task("succeeded")) as server:
            assert make_caller(server.url).call("wait", "t1").get_result().label == "seven"

        assert [request.target for request in server.requests] == ["/tasks/t1?wait=25"] * 3

    def test_wait_ends_with_its_time(self, make_caller: MakeCaller) -> None:
        with scripted_server(task("queued")) as server, pytest.raises(TimeoutError, match="still queued"):
            make_caller(server.url).call("wait", "t1", timeout_s=0.05)

    def test_batch_goes_on_waiting(self, make_caller: MakeCaller) -> None:
        with scripted_server(batch("running", "queued"), batch("running", "succeeded"), batch("failed", "succeeded")) as server:
            found = make_caller(server.url).call("batch", [b"one", b"two"])

        assert [item.status for item in found.items] == ["failed", "succeeded"]
        assert server.requests[0].headers["prefer"] == "wait=25"
        assert [request.target for request in server.requests[1:]] == ["/batches/b1?wait=25"] * 2

    def test_pages_are_fetched_as_needed(self, make_caller: MakeCaller) -> None:
        pages = [{"tasks": [task_document("queued")], "next_cursor": "a&b"}, {"tasks": [], "next_cursor": "c"}]
        last = {"tasks": [task_document("succeeded")]}
        since = datetime(2026, 1, 1, tzinfo=UTC)
        with scripted_server(*(Scripted(document=page) for page in [*pages, last])) as server:
            wanted = {"status": ["queued", "succeeded"], "owner": "ada", "since": since}
            found = make_caller(server.url).collect("tasks", **wanted, page_size=1)

        assert [one.status for one in found] == ["queued", "succeeded"]
        first, second, _ = (request.target for request in server.requests)
        assert first == "/tasks?status=queued%2Csucceeded&owner=ada&since=2026-01-01T00%3A00%3A00%2B00%3A00&limit=1"
        assert second == f"{first}&cursor=a%26b"

    def test_time_without_a_zone_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no time zone"):
            Client("http://127.0.0.1:1").tasks(since=datetime(2026, 1, 1))  # noqa: DTZ001 - that is the mistake

    def test_image_of_an_array(self, make_caller: MakeCaller) -> None:
        headers = {"Content-Type": "application/octet-stream", "Array-Shape": "2,2,1", "Array-Dtype": "|u1"}
        with scripted_server(Scripted(body=b"\0\1\2\3", headers=headers)) as server:
            found = make_caller(server.url).call("image", "t1")

        assert (found.data, found.shape, found.dtype) == (b"\0\1\2\3", (2, 2, 1), "|u1")

    def test_new_members_are_in_raw(self, make_caller: MakeCaller) -> None:
        model = {**MODEL, "default": True, "description": "", "task": "single_label", "input": {}, "label_count": 10}
        model |= {"runtime": None, "images_per_s": None, "warm_workers": 0, "urls": {"self": "/models/digits"}, "novel": 1}
        with scripted_server(Scripted(document={"models": [model]})) as server:
            (found,) = make_caller(server.url).call("models")

        assert found.raw["novel"] == 1

    def test_status_without_a_task_store(self, make_caller: MakeCaller) -> None:
        with scripted_server(Scripted(document={"stores": {"task_store": "down"}, "problems": ["it is down"]})) as server:
            found = make_caller(server.url).call("status")

        assert (found.problems, found.workers) == (["it is down"], ())

    def test_erasing_says_what_the_service_says(self, make_caller: MakeCaller) -> None:
        refusal = problem(400, "invalid_request", field="erase")
        with scripted_server(refusal) as server, pytest.raises(InvalidRequest, match="field erase"):
            make_caller(server.url).call("erase", "t1")

        assert server.requests[0].target == "/tasks/t1?erase=true"

    def test_a_request_id_is_erased_until_it_has_no_tasks(self, make_caller: MakeCaller) -> None:
        parts = [
            {"erasure_id": "e", "status": "done", "tasks": 1, "stores": {"kafka": "cannot"}, "task_ids": [task], "has_more": more}
            for task, more in (("1", True), ("2", False))
        ]
        with scripted_server(Scripted(document=parts[0]), Scripted(202, document=parts[1])) as server:
            found = make_caller(server.url).call("erase_request", "a person")

        assert [request.target for request in server.requests] == ["/tasks?request_id=a+person&erase=true"] * 2
        assert [(one.task_ids, one.is_done, one.stores) for one in found] == [((n,), True, {"kafka": "cannot"}) for n in "12"]

    def test_progress_of_an_erasure(self, make_caller: MakeCaller) -> None:
        progress = {"erasure_id": "e", "status": "pending", "tasks": 1, "stores": {"kafka": "pending"}}
        with scripted_server(Scripted(document=progress)) as server:
            found = make_caller(server.url).call("erasure", "e")

        assert server.requests[0].target == "/erasures/e"
        assert (found.is_done, found.task_ids) == (False, ())


_UPLOAD = {"method": "PUT", "headers": {"Content-Type": "application/octet-stream"}, "image": {"url": "s3://b/k"}}


class TestUploads:
    def test_image_is_put_to_the_url_of_the_answer_without_the_key(self, make_caller: MakeCaller) -> None:
        with scripted_server(Scripted()) as store:
            answer = Scripted(201, document={**_UPLOAD, "url": f"{store.url}/b/k?signature=x"})
            with scripted_server(answer) as server:
                assert make_caller(server.url, api_key="secret").call("upload", b"pixels") == "s3://b/k"

        (request,) = store.requests
        assert (request.method, request.target, request.body) == ("PUT", "/b/k?signature=x", b"pixels")
        assert "authorization" not in request.headers
        assert server.requests[0].headers["authorization"] == "Bearer secret"

    def test_refusal_of_the_store_is_told(self, make_caller: MakeCaller) -> None:
        with scripted_server(Scripted(403, body=b"<Error><Code>AccessDenied</Code></Error>")) as store:
            answer = Scripted(201, document={**_UPLOAD, "url": f"{store.url}/b/k"})
            with scripted_server(answer) as server, pytest.raises(Forbidden, match="AccessDenied"):
                make_caller(server.url).call("upload", b"pixels")
