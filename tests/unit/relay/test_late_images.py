"""Images that the object store did not take are stored once it does."""

from __future__ import annotations

import pytest
import redis
from support.fakes import FakeObjectStore
from support.samples import a_request

from inference.errors import InferenceError, ServiceUnavailable
from inference.relay.late_images import LateImages
from inference.task_store.redis_store import RedisTaskStore, StorePolicy


class Rig:
    def __init__(self, client: redis.Redis, key_prefix: str) -> None:
        self.store, self.objects = RedisTaskStore(client, StorePolicy(key_prefix)), FakeObjectStore()
        self.late = LateImages(self.store, self.objects)

    def task(self, image: bytes = b"image") -> str:
        request = a_request()
        self.store.accept(request, enqueue=None, max_queue_depth=0)
        self.store.keep_image(request.task_id, image)
        return request.task_id

    def key(self, task_id: str) -> str:
        return self.store.get(task_id).item.object_key


@pytest.fixture
def rig(redis_client: redis.Redis, key_prefix: str) -> Rig:
    return Rig(redis_client, key_prefix)


def test_they_are_stored_where_their_tasks_say(rig: Rig) -> None:
    first, second = rig.task(b"1"), rig.task(b"2")
    assert rig.late.store_batch() == 2
    assert rig.objects.objects == {rig.key(first): b"1", rig.key(second): b"2"}
    assert rig.store.get(first).is_image_stored
    assert rig.late.store_batch() == 0


def test_they_wait_for_the_object_store(rig: Rig) -> None:
    task_id = rig.task()
    rig.objects.available = False
    with pytest.raises(ServiceUnavailable):
        rig.late.store_batch()
    assert rig.store.list_kept_images(10) == [task_id]
    rig.objects.available = True
    rig.late.store_batch()
    assert rig.objects.objects == {rig.key(task_id): b"image"}


def test_one_that_is_refused_keeps_no_other(rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    odd, good = rig.task(b"odd"), rig.task(b"good")
    put = rig.objects.put

    def sometimes(key: str, data: bytes, **options: object) -> None:
        if data == b"odd":
            raise InferenceError("refused by the test")
        put(key, data, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(rig.objects, "put", sometimes)
    assert rig.late.store_batch() == 2
    assert rig.objects.objects == {rig.key(good): b"good"}
    assert (rig.store.list_kept_images(10), rig.store.get(odd).is_image_stored) == ([], False)
    assert f"the image of task {odd} cannot be stored: refused by the test" in caplog.text


def test_one_that_is_gone_is_told(rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    task_id = rig.task()
    monkeypatch.setattr(rig.store, "get_kept_image", lambda _: None)
    rig.late.store_batch()
    assert f"the image of task {task_id} was not stored" in caplog.text
    assert rig.store.list_kept_images(10) == []


def test_one_whose_task_is_erased_while_it_is_stored_does_not_stay(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    task_id, put = rig.task(), rig.objects.put

    def erase_meanwhile(key: str, data: bytes, **options: object) -> None:
        put(key, data, **options)  # type: ignore[arg-type]
        rig.store.erase([task_id], erasure_id="e", owner="", object_keys=[])

    monkeypatch.setattr(rig.objects, "put", erase_meanwhile)
    assert rig.late.store_batch() == 1
    assert rig.objects.objects == {}
