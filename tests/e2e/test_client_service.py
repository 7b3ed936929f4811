"""The client against a running service: every kind of image, every call, and connections that break."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rohe_inference import Client, CompletedImage, Conflict, InvalidRequest, Item, NotFound, RetryPolicy
from support.client_callers import AsyncCaller, Caller, SyncCaller
from support.service import Service
from support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.process


@pytest.fixture(params=[SyncCaller, AsyncCaller], ids=["sync", "async"])
def caller(request: pytest.FixtureRequest, service: Service) -> Iterator[Caller]:
    """A client of the service, of one kind."""
    found: Caller = request.param(service.url)
    yield found
    found.close()


@pytest.fixture
def photo(repository: Path) -> Path:
    return repository / "samples/coffee.jpg"


@pytest.fixture
def digit(repository: Path) -> Path:
    return repository / "samples/digit_7.png"


def test_every_kind_of_image_has_the_same_class(caller: Caller, photo: Path) -> None:
    with Image.open(photo) as picture, photo.open("rb") as file:
        array = np.asarray(picture)
        images = [photo, str(photo), photo.read_bytes(), file, picture, array]
        found = [caller.call("predict", image, top_k=1, prediction=False) for image in images]

    assert [one.label for one in found] == ["espresso"] * len(images)
    assert [one.result.prediction for one in found] == [None] * len(images)
    assert found[0].result.top[0].confidence == found[0].confidence_level


def test_orientation_of_a_picture_is_followed(caller: Caller, photo: Path, tmp_path: Path) -> None:
    with Image.open(photo) as picture:
        exif = picture.getexif()
        exif[0x0112] = 6
        picture.rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=exif, quality=95)

    with Image.open(tmp_path / "turned.jpg") as turned:
        as_picture = caller.call("predict", turned)
    as_file = caller.call("predict", tmp_path / "turned.jpg")

    assert as_picture.label == as_file.label == "espresso"
    assert as_picture.confidence_level == pytest.approx(as_file.confidence_level, abs=1e-5)


def test_task_later(caller: Caller, photo: Path) -> None:
    request_id = uuid.uuid4().hex
    task = caller.call("submit", photo, request_id=request_id, deadline_s=600, sinks=[])
    ended = caller.call("wait", task)

    assert ended.get_result().label == "espresso"
    assert 0 < (ended.deadline_at - ended.created_at).total_seconds() <= 601
    assert caller.call("task", task.task_id).status == "succeeded"
    assert [one.task_id for one in caller.collect("tasks", request_id=request_id)] == [task.task_id]
    assert caller.call("image", task).data == photo.read_bytes()
    with pytest.raises(Conflict) as raised:
        caller.call("cancel", task)
    assert (raised.value.code, raised.value.task_id) == ("task_already_finished", task.task_id)
    again = caller.call("replay", task)
    assert (again.replay_of, caller.call("wait", again).status) == (task.task_id, "succeeded")


def test_events_until_the_end(caller: Caller, photo: Path) -> None:
    task = caller.call("submit", photo)
    states = caller.collect("events", task)

    assert [state.status for state in states][-1] == "succeeded"
    assert states[-1].result.label == "espresso"


def test_events_of_a_batch(caller: Caller, digit: Path) -> None:
    batch = caller.call("submit_batch", [digit, b"no image", digit], model="digits")
    events = caller.collect("batch_events", batch)

    items = {event.index: event.status for event in events if hasattr(event, "index")}
    assert items == {0: "succeeded", 1: "refused", 2: "succeeded"}
    assert (events[-1].status, events[-1].counts["succeeded"]) == ("ended", 2)
    assert caller.call("get_batch", batch.batch_id).is_ended


def test_events_of_all_tasks(service: Service, digit: Path) -> None:
    with Client(service.url) as client:
        request_id = uuid.uuid4().hex
        events = client.all_events(request_id=request_id)
        client.predict(digit, model="digits", request_id=request_id)
        found = [task.request_id for task in next(events).tasks]
        while not found:
            found = [task.request_id for task in next(events).tasks]

    assert found == [request_id]


def test_batch(caller: Caller, digit: Path, photo: Path) -> None:
    images = [digit, b"no image", Item(photo, request_id="photo", model="efficientnet-lite0"), np.zeros((8, 8, 1), "float32")]
    found = caller.call("batch", images, model="digits")

    assert [item.status for item in found.items] == ["succeeded", "refused", "succeeded", "succeeded"]
    assert (found.items[0].get_result().class_id, found.items[2].request_id) == (7, "photo")
    with pytest.raises(InvalidRequest):
        found.items[1].get_result()
    assert caller.call("wait_batch", found.batch_id).counts == found.counts
    with pytest.raises(Conflict):
        caller.call("cancel_batch", found)


def test_many_images(caller: Caller, digit: Path, tmp_path: Path) -> None:
    images: list[Any] = [digit] * 100
    images[41] = tmp_path / "missing.png"
    images[42] = b"no image"
    found = caller.collect("as_completed", images, model="digits", prediction=False, batch_size=16)

    assert sorted(one.index for one in found) == list(range(100))
    assert {one.index for one in found if one.error} == {41, 42}
    assert {one.get_result().class_id for one in found if not one.error} == {7}


def test_service_is_described(caller: Caller, service: Service) -> None:
    models = {model.name: model for model in caller.call("models")}

    assert models.keys() == {"efficientnet-lite0", "digits"}
    assert caller.call("model", "digits").labels == [str(digit) for digit in range(10)]
    assert caller.call("status").stores["task_store"] == "ok"
    with pytest.raises(NotFound) as raised:
        caller.call("task", "0" * 32)
    assert raised.value.code == "task_not_found"
    assert raised.value.request_id


@pytest.mark.parametrize(
    ("image", "options", "field"),
    [
        (b"no image", {}, "metadata.shape"),
        (None, {"top_k": 0}, "metadata.top_k"),
        (None, {"deadline_s": -1}, "metadata.deadline_s"),
    ],
)
def test_refusal_names_the_field(caller: Caller, photo: Path, image: Any, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        caller.call("predict", image or photo, **options)

    assert (raised.value.status, raised.value.field) == (400, field)


class LostAnswers:
    """Passes requests on, and cuts the connection in place of the first answers to predictions."""

    def __init__(self, url: str, lost: int) -> None:
        self.left = lost
        self.proxy = TcpProxy(url.removeprefix("http://"), self._rewrite)
        self.url = f"http://{self.proxy.address}"

    def _rewrite(self, answer: bytes) -> bytes:
        if self.left and answer.startswith(b"HTTP/1.1 2"):
            self.left -= 1
            raise ConnectionResetError
        return answer


QUICK = RetryPolicy(first_delay_s=0.01, max_delay_s=0.1)


@pytest.mark.parametrize("kind", [SyncCaller, AsyncCaller], ids=["sync", "async"])
@pytest.mark.parametrize("method", ["predict", "submit"])
def test_answer_that_is_lost_submits_nothing_twice(service: Service, digit: Path, kind: Any, method: str) -> None:
    request_id = uuid.uuid4().hex
    way = LostAnswers(service.url, lost=2)
    caller = kind(way.url, retries=QUICK)
    found = caller.call(method, digit, model="digits", request_id=request_id)
    tasks = caller.collect("tasks", request_id=request_id)
    caller.close()
    way.proxy.cut()

    assert way.left == 0
    assert [task.task_id for task in tasks] == [found.task_id]


def test_many_images_over_connections_that_break(service: Service, digit: Path) -> None:
    """Nothing is lost, and nothing runs twice."""
    request_id = uuid.uuid4().hex
    proxy = TcpProxy(service.url.removeprefix("http://"))
    found: list[CompletedImage] = []
    with Client(f"http://{proxy.address}", retries=QUICK) as client:
        images = [Item(digit, request_id=request_id) for _ in range(300)]
        for outcome in client.as_completed(images, model="digits", prediction=False, batch_size=10):
            found.append(outcome)
            if len(found) in {50, 150}:
                proxy.cut()
                threading.Timer(0.2, proxy.mend).start()
    proxy.cut()

    assert sorted(one.index for one in found) == list(range(300))
    assert {one.status for one in found} == {"succeeded"}
    with Client(service.url) as client:
        assert len(list(client.tasks(request_id=request_id, page_size=500))) == 300


def test_events_over_connections_that_break(service: Service, photo: Path) -> None:
    proxy = TcpProxy(service.url.removeprefix("http://"))
    with Client(f"http://{proxy.address}", retries=QUICK) as client:
        batch = client.submit_batch([photo] * 60, prediction=False)
        found = set()
        for event in client.batch_events(batch):
            if hasattr(event, "index"):
                assert event.index not in found
                found.add(event.index)
                if len(found) == 5:
                    proxy.cut()
                    proxy.mend()
    proxy.cut()

    assert found == set(range(60))
