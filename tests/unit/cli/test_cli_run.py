"""A run over photos, resumed in states that are rare: what is sent, and what is not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rohe_inference import Batch, NotFound
from rohe_inference.cli import photo_run
from rohe_inference.cli.config import Login
from rohe_inference.cli.exits import CommandError, ExitCode
from rohe_inference.cli.journal import Journal
from rohe_inference.cli.outcomes import Outcome
from rohe_inference.cli.photo_run import PhotoRun, RunOptions
from rohe_inference.cli.photos import Photo, find_photos
from rohe_inference.cli.progress import RunProgress
from rohe_inference.cli.terminal import console

DONE = Outcome("succeeded", "old", {"name": "digits"}, {"class": 3})
BAD = Outcome("failed", "old", error={"code": "prediction_failed", "detail": "it failed", "status": 500})


class Service:
    """Stands for the asynchronous client: it knows batches by key and by id, and every image succeeds at once."""

    def __init__(self) -> None:
        self.batches: dict[str, Batch] = {}
        #: bytes of each image that was accepted as a new task
        self.images: list[bytes] = []
        self.keys: list[str] = []
        self.interrupt_after: int | None = None

    async def submit_batch(self, images: Sequence[bytes], *, idempotency_key: str, **_: Any) -> Batch:
        await asyncio.sleep(0)
        self.keys.append(idempotency_key)
        if idempotency_key not in self.batches:
            if self.interrupt_after is not None and len(self.batches) >= self.interrupt_after:
                raise KeyboardInterrupt
            self.images += images
            self.batches[idempotency_key] = _batch(f"batch-{len(self.batches)}", images)
        return self.batches[idempotency_key]

    async def wait_batch(self, batch_id: str, **_: Any) -> Batch:
        await asyncio.sleep(0)
        for batch in self.batches.values():
            if batch.batch_id == batch_id:
                return batch
        raise NotFound("there is no such batch", status=404, code="batch_not_found", raw={})


def _batch(batch_id: str, images: Sequence[bytes]) -> Batch:
    model = {"name": "digits", "version": "1", "digest": "sha256:0"}
    result = {"class": 1, "label": "1", "confidence_level": 1.0}
    common = {"status": "succeeded", "request_id": "r", "model": model, "result": result, "error": None}
    items = [{**common, "task_id": f"{batch_id}-{index}"} for index in range(len(images))]
    return Batch.from_json({"batch_id": batch_id, "status": "ended", "counts": {}, "items": items})


class Rows:
    """Outcomes in the order in which they are written."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []

    def write(self, name: str, outcome: Outcome) -> None:
        self.rows.append((Path(name).name, outcome.task_id or outcome.status))


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    (tmp_path / "photos").mkdir()
    for name in "abcde":
        (tmp_path / "photos" / f"{name}.png").write_bytes(name.encode())
    return find_photos([str(tmp_path / "photos")], is_recursive=False)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    fake = Service()

    @contextlib.asynccontextmanager
    async def opened(_: Login, __: int) -> AsyncIterator[Service]:
        yield fake

    monkeypatch.setattr(photo_run, "open_async_client", opened)
    return fake


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "journal"


def run(photos: Sequence[Photo], path: Path, *, retry_failed: bool = False) -> tuple[ExitCode, list[tuple[str, str]]]:
    rows = Rows()
    options = RunOptions({}, waits=True, concurrency=1, batch_size=2, retry_for_s=1, retry_failed=retry_failed)
    code = PhotoRun(photos, Journal(path, {}), options, rows).run(Login("http://a"), RunProgress(len(photos), console()))
    return code, rows.rows


def test_photos_are_sent_in_groups_and_written_in_order(service: Service, photos: list[Photo], path: Path) -> None:
    code, rows = run(photos, path)

    assert code == ExitCode.OK
    assert [name for name, _ in rows] == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    assert service.images == [b"a", b"b", b"c", b"d", b"e"]
    assert len(service.keys) == 3
    assert not path.exists()


def test_interrupted_run_goes_on_and_sends_the_open_group_under_its_key(
    service: Service, photos: list[Photo], path: Path
) -> None:
    service.interrupt_after = 1
    with pytest.raises(CommandError, match="2 of 5 images are done") as raised:
        run(photos, path)
    service.interrupt_after = None

    code, rows = run(photos, path)

    assert raised.value.exit_code == ExitCode.INTERRUPTED
    assert code == ExitCode.OK
    assert [name for name, _ in rows] == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    assert service.images == [b"a", b"b", b"c", b"d", b"e"]
    assert service.keys[1] == service.keys[2]


def test_answer_that_was_lost_is_replayed(service: Service, photos: list[Photo], path: Path) -> None:
    """The service had accepted the group; the command was killed before it knew."""
    journal = Journal(path, {})
    group = journal.begin(photos[:2])
    asyncio.run(service.submit_batch([b"a", b"b"], idempotency_key=journal.idempotency_key(group)))
    journal.close()

    _, rows = run(photos, path)

    assert service.images == [b"a", b"b", b"c", b"d", b"e"]
    assert rows[:2] == [("a.png", "batch-0-0"), ("b.png", "batch-0-1")]


def test_accepted_group_is_waited_for_and_not_sent(service: Service, photos: list[Photo], path: Path) -> None:
    journal = Journal(path, {})
    group = journal.begin(photos[:2])
    batch = asyncio.run(service.submit_batch([b"a", b"b"], idempotency_key=journal.idempotency_key(group)))
    journal.accept(group, batch.batch_id)
    journal.close()

    run(photos, path)

    assert service.images == [b"a", b"b", b"c", b"d", b"e"]
    assert len(service.keys) == len(set(service.keys)) == 3


def test_failed_photo_of_an_open_group_is_sent_again_and_the_others_are_not(
    service: Service, photos: list[Photo], path: Path
) -> None:
    journal = Journal(path, {})
    group = journal.begin(photos[:2])
    batch = asyncio.run(service.submit_batch([b"a", b"b"], idempotency_key=journal.idempotency_key(group)))
    journal.accept(group, batch.batch_id)
    journal.record(photos[0], BAD)
    journal.close()

    code, rows = run(photos, path, retry_failed=True)

    assert code == ExitCode.OK
    assert service.images == [b"a", b"b", b"a", b"c", b"d", b"e"]
    assert rows[:2] == [("a.png", "batch-1-0"), ("b.png", "batch-0-1")]


def test_failed_photo_stays_failed_without_the_option(service: Service, photos: list[Photo], path: Path) -> None:
    journal = Journal(path, {})
    journal.begin(photos)
    journal.record(photos[0], BAD)
    for photo in photos[1:]:
        journal.record(photo, DONE)
    journal.close()

    code, rows = run(photos, path)

    assert code == ExitCode.FAILED
    assert service.images == []
    assert [task_id for _, task_id in rows] == ["old"] * 5
    assert path.exists()


def test_changed_photo_of_an_open_group_makes_new_tasks_of_that_group_alone(
    service: Service, photos: list[Photo], path: Path, tmp_path: Path
) -> None:
    journal = Journal(path, {})
    journal.begin(photos[:2])
    for photo in photos[2:]:
        journal.record(photo, DONE)
    journal.close()
    (tmp_path / "photos" / "b.png").write_bytes(b"changed")

    code, rows = run(find_photos([str(tmp_path / "photos")], is_recursive=False), path)

    assert code == ExitCode.OK
    assert service.images == [b"a", b"changed"]
    assert len(rows) == 5


def test_batch_that_the_service_forgot_is_a_failure_of_its_photos(service: Service, photos: list[Photo], path: Path) -> None:
    journal = Journal(path, {})
    journal.accept(journal.begin(photos[:2]), "forgotten")
    journal.close()

    code, rows = run(photos, path)

    assert code == ExitCode.FAILED
    assert rows[:2] == [("a.png", "gone"), ("b.png", "gone")]
    assert service.images == [b"c", b"d", b"e"]


def test_unreadable_photo_fails_alone(service: Service, photos: list[Photo], path: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "a.png").unlink()

    code, rows = run(photos, path)

    assert code == ExitCode.FAILED
    assert rows[0] == ("a.png", "unreadable")
    assert service.images == [b"b", b"c", b"d", b"e"]
