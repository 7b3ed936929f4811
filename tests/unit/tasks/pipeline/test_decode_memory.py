"""Memory for images that are being decoded: large ones wait for it in their order, small ones do not wait for them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile
from pipeline_rig import MakeRig, Rig, wait_until
from support.decoding_attack import png

from inference.domain import ImageFormat, ImageHeader, QueueItem
from inference.errors import DeadlineExceeded, InvalidMetadata, ObjectNotFound, PayloadTooLarge
from inference.imaging import ImageLimits, inspect, open_image
from inference.models.spec import InputSpec
from tasks.pipeline.decode_memory import DecodeMemory
from tasks.pipeline.fetch import Fetcher, FetchStage, Reserved
from tasks.pipeline.jobs import Job
from tasks.pipeline.stage import Stage

MB = 2**20

MakeStage = Callable[[int], tuple[FetchStage, list[Job], list[Job]]]
SPEC = InputSpec(shape=(224, 224, 3), dtype="uint8", raw="pixels", resize="stretch", interpolation="bicubic")


class TestDecodeMemory:
    """400 bytes: 100 for small images of up to 25, 300 for large ones."""

    def test_an_image_of_a_quarter_of_its_share_is_small(self) -> None:
        memory = DecodeMemory(400)
        assert [memory.is_large(size) for size in (25, 26)] == [False, True]

    def test_large_ones_get_it_in_their_order(self) -> None:
        memory, granted = DecodeMemory(400, max_large=9), list[int]()
        reserved = [memory.reserve_large(size, partial(granted.append, size)) for size in (200, 250, 40, 30)]
        assert reserved == [True, False, False, False], "the 40 would fit, but a large one must get in some day"
        memory.release_large(200)
        assert granted == [250, 40]
        memory.release_large(40)
        assert granted == [250, 40, 30]

    def test_one_that_is_larger_than_all_is_decoded_without_others(self) -> None:
        memory, granted = DecodeMemory(400, max_large=9), list[int]()
        assert not [memory.reserve_large(size, partial(granted.append, size)) for size in (30, 10_000, 30)][1]
        memory.release_large(30)
        assert granted == [10_000]
        memory.release_large(10_000)
        assert granted == [10_000, 30]

    def test_a_thread_is_left_for_small_ones(self) -> None:
        memory, granted = DecodeMemory(4000, max_large=2), list[int]()
        assert [memory.reserve_large(300, partial(granted.append, 1)) for _ in range(3)] == [True, True, False]
        memory.release_large(300)
        assert granted == [1]

    def test_small_ones_do_not_wait_for_large_ones(self) -> None:
        memory = DecodeMemory(400)
        memory.reserve_large(10_000, lambda: None)
        with memory.reserve_small(25), memory.reserve_small(25), memory.reserve_small(25), memory.reserve_small(25):
            pass


def test_large_pictures_do_not_take_more_than_there_is_for_them(repository: Path) -> None:
    """Eight PNGs of 9 megapixels take 81 MB each; three at once would be over the budget of 128 MiB."""
    command = [sys.executable, "-m", "support.decoding_attack", "3000", "8", "128"]
    environment = os.environ | {"PYTHONPATH": f"{repository}:{repository / 'tests'}"}
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout
    found = json.loads(shown)
    assert len(found["decoded"]) == 9
    assert found["grown"] < 128 * MB
    assert found["kept"] < 32 * MB, "what was decoded on one thread does not stay there while others decode"
    assert "small" in found["decoded"][:3], "a small picture waits for none that has not begun"


def animated_webp() -> bytes:
    file = io.BytesIO()
    frames = [Image.new("RGBA", (1000, 1000), (number, 0, 0, 9)) for number in range(2)]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    return file.getvalue()


def jpeg(**options: bool) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "image_format", "least", "most"),
    [
        (png(1000), ImageFormat.PNG, 8, 10),
        (png(1000, "RGB"), ImageFormat.PNG, 4, 6),
        (png(1000, "L"), ImageFormat.PNG, 5, 7),
        (animated_webp(), ImageFormat.WEBP, 16, 22),
        (jpeg(), ImageFormat.JPEG, 0.5, 20),
        (jpeg(progressive=True), ImageFormat.JPEG, 24, 68),
    ],
    ids=["PNG with alpha", "PNG", "grey PNG", "WebP", "JPEG, decoded at an eighth", "progressive JPEG, all coefficients"],
)
def test_what_decoding_takes_is_known_from_the_header(data: bytes, image_format: ImageFormat, least: float, most: float) -> None:
    image = open_image(data, ImageHeader(image_format), SPEC, ImageLimits(50_000_000))
    assert least < image.needed_bytes / 1e6 < most


def test_arrays_count_too() -> None:
    file = io.BytesIO()
    np.save(file, np.full((500, 500, 4), 7.0))
    image = open_image(file.getvalue(), ImageHeader(ImageFormat.NPY), SPEC, ImageLimits(50_000_000))
    assert 24 < image.needed_bytes / 1e6 < 32


def test_an_object_that_is_larger_than_a_body_may_be_is_not_read(rig: Rig) -> None:
    """An upload cannot be; a Celery client may name any object."""
    fetcher = rig.pipeline._fetch._fetcher
    fetcher._max_bytes = 100
    rig.objects.put("uploads/1", bytes(101))
    job = Job(QueueItem("task-1", "uploads/1", None), [], isolated=False, attempt=0, deadline_at=time.monotonic() + 60)
    with pytest.raises(PayloadTooLarge):
        fetcher.load(job, Stage())


def test_what_nobody_waits_for_any_more_is_not_decoded(rig: Rig) -> None:
    rig.objects.put("uploads/1", png(64))
    job = Job(QueueItem("task-1", "uploads/1", None), [], isolated=False, attempt=0, deadline_at=time.monotonic() - 1)
    with pytest.raises(DeadlineExceeded):
        rig.pipeline._fetch._fetcher.load(job, Stage())


def test_a_large_image_that_waits_is_fetched_again_when_there_is_memory(rig: Rig) -> None:
    fetcher = rig.pipeline._fetch._fetcher
    memory = fetcher._memory = DecodeMemory(16 * MB)
    memory.reserve_large(12 * MB, lambda: None)
    rig.objects.put("uploads/1", png(1000))
    job = Job(QueueItem("task-1", "uploads/1", None), [], isolated=False, attempt=0, deadline_at=time.monotonic() + 60)
    granted: list[Reserved] = []
    assert not fetcher.load(job, Stage(), later=granted.append)
    assert not granted
    memory.release_large(12 * MB)
    assert [one.job for one in granted] == [job]
    assert fetcher.load_reserved(granted[0], Stage(), again=lambda _: None)
    assert job.slot is not None
    rig.arena.release(job.slot)
    assert memory.reserve_large(12 * MB, lambda: None), "what was reserved is given back"


def test_one_that_is_gone_meanwhile_gives_its_memory_back(rig: Rig) -> None:
    fetcher = rig.pipeline._fetch._fetcher
    memory = fetcher._memory = DecodeMemory(16 * MB)
    memory.reserve_large(12 * MB, lambda: None)
    job = Job(QueueItem("task-1", "uploads/1", None), [], isolated=False, attempt=0, deadline_at=time.monotonic() + 60)
    memory.reserve_large(12 * MB, lambda: None)
    memory.release_large(12 * MB)
    with pytest.raises(ObjectNotFound):
        fetcher.load_reserved(Reserved(job, 12 * MB), Stage(), again=lambda _: None)
    assert memory.reserve_large(12 * MB, lambda: None)


class TestSharedByModels:
    """A model whose predictor is down, so that its arena is full, and another one with free slots."""

    @pytest.fixture
    def stages(self, make_rig: MakeRig) -> Iterator[MakeStage]:
        memory, made = DecodeMemory(16 * MB), list[tuple[FetchStage, list[Job], list[Job]]]()

        def make(slots: int) -> tuple[FetchStage, list[Job], list[Job]]:
            """Make a stage; return it with the jobs that it passes on, and those that it ends."""
            rig, passed, ended = make_rig(slots=slots), list[Job](), list[Job]()
            rig.objects.put("uploads/large", png(1000))
            rig.objects.put("uploads/small", png(64))
            fetcher = Fetcher(rig.objects, rig.spec, rig.arena, ImageLimits(50_000_000), memory=memory)
            stage = FetchStage(fetcher, threads=2, pass_on=passed.extend, fail=lambda job, _: ended.append(job))
            stage.start()
            made.append((stage, passed, ended))
            return made[-1]

        yield make
        for stage, _, _ in made:
            stage.stop()
        for stage, passed, _ in made:
            assert stage.join(10)
            for job in passed:
                if job.slot is not None:
                    stage._fetcher._arena.release(job.slot)

    def job(self, key: str, deadline_s: float = 60) -> Job:
        item = QueueItem(key, f"uploads/{key}", None)
        return Job(item, [], isolated=False, attempt=0, deadline_at=time.monotonic() + deadline_s)

    def test_who_waits_for_a_slot_holds_no_memory(self, stages: MakeStage) -> None:
        (full, filled, _), (other, passed, _) = stages(1), stages(4)
        full.take([self.job("small")])
        wait_until(lambda: len(filled) == 1, "a full arena")
        full.take([self.job("large") for _ in range(3)])
        time.sleep(0.3)
        other.take([self.job("large") for _ in range(3)])
        wait_until(lambda: len(passed) == 3, "the large images of the other model")

    def test_memory_that_is_granted_when_no_slot_is_free_is_given_back(self, stages: MakeStage) -> None:
        (full, filled, _), (other, passed, _) = stages(1), stages(4)
        memory = full._fetcher._memory
        assert memory.reserve_large(12 * MB, lambda: None)
        full.take([self.job("large") for _ in range(3)])
        wait_until(lambda: len(memory._waiting) == 3, "images that wait for memory")
        full.take([self.job("small") for _ in range(3)])
        wait_until(lambda: len(filled) == 1, "a full arena")
        time.sleep(0.3)
        other.take([self.job("large")])
        wait_until(lambda: len(memory._waiting) == 4, "another model's image behind them")
        memory.release_large(12 * MB)
        wait_until(lambda: len(passed) == 1, "that image")
        for number in range(1, 6):
            slot = filled[-1].slot
            assert slot is not None
            full._fetcher._arena.release(slot)
            filled[-1].slot = None
            wait_until(lambda number=number: len(filled) == number + 1, "the next one, as a slot is free")

    def test_who_waits_for_a_slot_ends_at_the_deadline(self, stages: MakeStage) -> None:
        full, filled, ended = stages(1)
        full.take([self.job("small")])
        wait_until(lambda: len(filled) == 1, "a full arena")
        late = [self.job(key, deadline_s=0.3) for key in ("small", "large", "small", "large")]
        full.take(late)
        wait_until(lambda: len(ended) == 4, "the end of all")
        assert {id(job) for job in ended} == {id(job) for job in late}


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_the_api_decodes_no_pixels(monkeypatch: pytest.MonkeyPatch, image_format: str) -> None:
    """Also where the shape given is that of the picture turned by 90 degrees, so that its orientation is asked for."""
    file = io.BytesIO()
    Image.new("RGB", (20, 10)).save(file, image_format)

    def load(*_: object) -> None:
        raise AssertionError("pixels are decoded")

    for plugin in (ImageFile, PngImageFile, WebPImageFile):
        monkeypatch.setattr(plugin, "load", load)
    given = {"dtype": None, "content_type": None, "spec": SPEC, "limits": ImageLimits(50_000_000)}
    inspect(file.getvalue(), shape="10,20", **given)
    with pytest.raises(InvalidMetadata):
        inspect(file.getvalue(), shape="20,10", **given)
