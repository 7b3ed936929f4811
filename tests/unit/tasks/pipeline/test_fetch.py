"""Bytes to images: what has no image fails alone, a store that is down is waited for, slots bound how far ahead."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline_rig import RAW_HEADER, MakeRig, Rig, assert_failed, assert_succeeded, image_of, queue_item, wait_until

from inference.domain import ImageFormat, ImageHeader, QueueItem
from inference.errors import InferenceError, InvalidImage, UnsupportedImageType
from inference.imaging import ImageLimits, decode
from inference.task_store.redis_store import RedisTaskStore
from tasks.pipeline.fetch import Fetcher, FetchStage
from tasks.pipeline.jobs import Job
from tasks.pipeline.stage import Stage

CORRUPT = {
    "truncated": image_of(1)[:-1],
    "not finite": np.full((8, 8, 1), np.nan, "<f4").tobytes(),
    "another image": b"\x89PNG\r\n\x1a\n" + bytes(240),
}


@pytest.mark.parametrize("data", CORRUPT.values(), ids=CORRUPT)
def test_a_bad_image_fails_alone(rig: Rig, data: bytes) -> None:
    bad = rig.send(5, data=data)
    good = rig.send(1, 2)
    rig.await_done([*bad, *good])
    assert_failed(rig.record(5), "invalid_image")
    assert rig.record(5).attempts == 0
    assert bad[0].started == 0
    for number in (1, 2):
        assert_succeeded(rig.record(number), number)
    assert 5 not in rig.predictor.seen


def test_a_bad_image_in_a_message_of_many_fails_alone(rig: Rig) -> None:
    task_ids = [rig.accept(0), rig.accept(1, data=b"no image"), rig.accept(2)]
    inbox = rig.deliver(*task_ids)
    rig.await_done([inbox])
    assert set(inbox.ends.values()) == {"committed"}
    assert_failed(rig.record(1), "invalid_image")
    for number in (0, 2):
        assert_succeeded(rig.record(number), number)


def test_an_image_that_is_not_there_fails_its_task(rig: Rig) -> None:
    inboxes = [*rig.send(1, upload=False), *rig.send(2)]
    rig.await_done(inboxes)
    assert_failed(rig.record(1), "upload_lost")
    assert_succeeded(rig.record(2), 2)


def test_an_upload_that_the_api_has_not_inspected(rig: Rig) -> None:
    """It is larger than a body may be."""
    file = io.BytesIO()
    np.save(file, np.frombuffer(image_of(1), "<f4").reshape(8, 8, 1))
    inboxes = [
        *rig.send(1, data=file.getvalue(), header=None),
        *rig.send(2, data=b"no image", header=None),
        *rig.send(3, upload=False, header=None),
    ]
    rig.await_done(inboxes)
    assert_succeeded(rig.record(1), 1)
    assert_failed(rig.record(2), "invalid_metadata")
    assert_failed(rig.record(3), "upload_lost")


def test_a_decoder_that_breaks_is_that_images_failure(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """An arena of another shape than the description's makes `decode_into` raise a ValueError: a fault of ours."""

    class Arena:
        images = np.zeros((1, 2, 2, 1), np.float32)

        def __init__(self) -> None:
            self.released: list[int] = []

        def acquire(self, **_: float) -> int:
            return 0

        def release(self, slot: int) -> None:
            self.released.append(slot)

    arena = Arena()
    rig.objects.put("uploads/1", image_of(1))
    fetcher = Fetcher(rig.objects, rig.spec, arena, limits=rig.pipeline._fetch._fetcher._limits)
    job = Job(queue_item(1), [], isolated=False, attempt=0, deadline_at=time.monotonic() + 60)
    with pytest.raises(InvalidImage, match="cannot be decoded"):
        fetcher.load(job, Stage())
    assert arena.released == [0]
    assert job.slot is None
    assert "broke the decoder" in caplog.text


@pytest.mark.parametrize("isolated", [False, True])
def test_an_object_that_breaks_the_stores_client_fails_its_task_alone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, *, isolated: bool
) -> None:
    get = rig.objects.get

    def broken(key: str, **options: Any) -> bytes:
        if key == odd_key:
            raise KeyError("content-length")
        return get(key, **options)

    odd, good = rig.accept(5), rig.accept(1)
    odd_key = rig.store.get(odd).item.object_key
    if isolated:
        rig.store.lease("dead worker", [odd])
        rig.store.start("dead worker", [odd])
        rig.store.note_death("dead worker", [odd])
        rig.store.release("dead worker", [odd])
    monkeypatch.setattr(rig.objects, "get", broken)
    rig.await_done([rig.deliver(odd), rig.deliver(good)])
    assert_failed(rig.record(5), "internal_error")
    assert_succeeded(rig.record(1), 1)


def test_an_object_store_that_is_down_is_waited_for(rig: Rig) -> None:
    task_ids = [rig.accept(number) for number in range(3)]
    rig.objects.take_down("get")
    inboxes = [rig.deliver(task_id) for task_id in task_ids]
    wait_until(lambda: rig.objects.refused["get"] >= 2, "refused gets on both threads")
    assert not any(inbox.dones for inbox in inboxes)
    rig.objects.bring_up()
    rig.await_done(inboxes)
    for number in range(3):
        assert_succeeded(rig.record(number), number)


def test_a_task_whose_image_cannot_be_had_until_its_deadline_has_expired(rig: Rig, store: RedisTaskStore) -> None:
    rig.objects.take_down("get")
    (inbox,) = rig.send(1, deadline_s=0.3)
    rig.await_done([inbox])
    store.expire_due(100)  # the sweeper's turn, where the worker left it to that
    record = rig.record(1)
    assert record.outcome is not None
    assert record.outcome.error is not None
    assert record.outcome.error["code"] == "deadline_exceeded"
    assert record.status == "expired"


def test_no_more_images_are_decoded_than_there_are_slots(make_rig: MakeRig) -> None:
    rig = make_rig(slots=6, max_batch_size=2).start()
    rig.predictor.gate.clear()
    inboxes = rig.send(*range(20))
    wait_until(lambda: rig.predictor.batches, "a running batch")
    wait_until(lambda: rig.free_slots() == [], "an arena that is full")
    running = len(rig.predictor.batches[0])
    assert len(rig.ready_jobs) <= 6 - running
    # the threads that wait for a slot hold one image's bytes each, and no more has been fetched
    assert len([job for job in rig.held._jobs.values() if "fetch_ms" in job.timings]) <= 6 + 2
    rig.predictor.gate.set()
    rig.await_done(inboxes)
    for number in range(20):
        assert_succeeded(rig.record(number), number)


def test_who_waits_for_a_slot_is_not_overtaken(rig: Rig) -> None:
    """Raw bytes that came with the lease need no thread where a slot is free."""
    slots: list[int] = []
    passed: list[Job] = []
    fetcher = Fetcher(rig.objects, rig.spec, rig.arena, limits=rig.pipeline._fetch._fetcher._limits)
    fetcher.take_free_slot = lambda: slots.pop() if slots else None  # type: ignore[method-assign]
    stage = FetchStage(fetcher, threads=1, pass_on=passed.extend, fail=lambda *_: None)
    first, second, third = (
        Job(queue_item(number), [], isolated=False, attempt=0, deadline_at=time.monotonic() + 60, image=image_of(number))
        for number in range(3)
    )
    stage.take([first])
    slots.append(0)
    stage.take([second])
    assert (passed, slots) == ([], [0])
    stage.step()
    stage.step()
    assert passed == [first, second]
    stage.take([third])
    assert (passed, slots) == ([first, second, third], [])
    for job in (first, second):
        assert job.slot is not None
        rig.arena.release(job.slot)


@pytest.mark.parametrize(
    ("changes", "is_stopping"),
    [
        ({"deadline_at": 0.0}, False),
        ({"item": QueueItem("task-1", "uploads/1", ImageHeader(ImageFormat.RAW, (9, 9, 1), "<f4"))}, False),
        ({"item": QueueItem("task-1", "uploads/1", ImageHeader(ImageFormat.RAW, (8, 8, 1), "<i2"))}, False),
        *(({"image": data}, False) for data in CORRUPT.values()),
        ({"image": b"", "item": QueueItem("task-1", "uploads/missing", RAW_HEADER)}, False),
        ({"image": b""}, True),
    ],
    ids=["past its deadline", "another shape", "another dtype", *CORRUPT, "not there", "the store is down and the stage stops"],
)
@pytest.mark.parametrize("is_copied_at_once", [True, False])
def test_a_slot_is_free_again_where_no_image_gets_into_it(
    rig: Rig, changes: dict[str, Any], *, is_stopping: bool, is_copied_at_once: bool
) -> None:
    fields = {"item": queue_item(1), "deadline_at": time.monotonic() + 60, "image": image_of(1)} | changes
    job = Job(deliveries=[], isolated=False, attempt=0, **fields)
    failed: list[Job] = []
    fetcher = Fetcher(rig.objects, rig.spec, rig.arena, limits=rig.pipeline._fetch._fetcher._limits)
    stage = FetchStage(fetcher, threads=1, pass_on=lambda _: None, fail=lambda job, _: failed.append(job))
    if is_stopping:
        rig.objects.take_down("get")
        stage.stop()
    if is_copied_at_once and job.image:
        stage.take([job])
    else:
        slot = rig.arena.acquire(0) if is_copied_at_once else None
        assert not stage._attempt(job, lambda: fetcher.load(job, stage, slot))
    assert failed == ([] if is_stopping else [job])
    assert job.slot is None
    assert rig.every_slot_is_free()


def test_one_slot_is_enough(make_rig: MakeRig) -> None:
    rig = make_rig(slots=1).start()
    rig.await_done(rig.send(*range(5)))
    for number in range(5):
        assert_succeeded(rig.record(number), number)


def test_encoded_images_are_decoded_to_the_models_input(rig: Rig, repository: Path) -> None:
    task_id = rig.accept(1, data=(repository / "samples" / "digit_7.png").read_bytes())
    item = rig.store.get(task_id).item
    job = Job(
        QueueItem(task_id, item.object_key, ImageHeader(ImageFormat.PNG)),
        [],
        isolated=False,
        attempt=0,
        deadline_at=time.monotonic() + 60,
    )
    assert rig.pipeline._fetch._fetcher.load(job, Stage())
    assert job.slot is not None
    image = rig.arena.images[job.slot]
    assert (image.shape, image.dtype) == ((8, 8, 1), np.float32)
    assert 0 <= image.min() < image.max() <= 255
    assert image.max() > 100
    assert set(job.timings) == {"fetch_ms", "decode_ms"}
    rig.arena.release(job.slot)


def test_a_raw_image_lies_in_its_slot_as_it_was_sent(rig: Rig) -> None:
    values = np.arange(64, dtype="<f4").reshape(8, 8, 1)
    rig.objects.put("uploads/1", values.tobytes())
    job = Job(QueueItem("task-1", "uploads/1", RAW_HEADER), [], isolated=False, attempt=0, deadline_at=time.monotonic() + 60)
    assert rig.pipeline._fetch._fetcher.load(job, Stage())
    assert job.slot is not None
    np.testing.assert_array_equal(rig.arena.images[job.slot], values)
    rig.arena.release(job.slot)


@pytest.mark.parametrize("header", [ImageHeader(ImageFormat.JPEG), None], ids=["an upload", "of a Celery client"])
@pytest.mark.parametrize("cut", [0, 2], ids=["whole", "without its end"])
def test_a_picture_that_every_viewer_shows(rig: Rig, repository: Path, header: ImageHeader | None, cut: int) -> None:
    data = (repository / "samples" / "coffee.jpg").read_bytes()
    rig.objects.put("uploads/1", data[: len(data) - cut])
    job = Job(QueueItem("task-1", "uploads/1", header), [], isolated=False, attempt=0, deadline_at=time.monotonic() + 60)
    assert rig.pipeline._fetch._fetcher.load(job, Stage())
    assert job.slot is not None
    np.testing.assert_array_equal(
        rig.arena.images[job.slot], decode(data, ImageHeader(ImageFormat.JPEG), rig.spec.input, ImageLimits(10**6))
    )
    rig.arena.release(job.slot)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda data: data[: len(data) // 2], InvalidImage),
        (base64.b64encode, UnsupportedImageType),
        (lambda data: b"data:image/jpeg;base64," + base64.b64encode(data), UnsupportedImageType),
    ],
    ids=["half", "base64", "data URL"],
)
def test_an_object_of_a_celery_client_that_is_no_picture(
    rig: Rig, repository: Path, change: Callable[[bytes], bytes], error: type[InferenceError]
) -> None:
    rig.objects.put("uploads/1", change((repository / "samples" / "coffee.jpg").read_bytes()))
    job = Job(QueueItem("task-1", "uploads/1", None), [], isolated=False, attempt=0, deadline_at=time.monotonic() + 60)
    with pytest.raises(error):
        rig.pipeline._fetch._fetcher.load(job, Stage())
    assert rig.every_slot_is_free()
