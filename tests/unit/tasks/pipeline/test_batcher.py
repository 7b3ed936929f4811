"""Batches from the decoded jobs: what is there at once, up to a size; jobs that run alone one by one, in turns."""

from __future__ import annotations

import threading
import time

import pytest
from pipeline_rig import PATIENCE_S, Inbox, message_of, queue_item, wait_until

from tasks.pipeline.batcher import Batcher
from tasks.pipeline.jobs import Job


def job(number: int, *, isolated: bool = False, ready_at: float = 0.0) -> Job:
    item = queue_item(number)
    return Job(item, [Inbox(message_of(item)).delivery], isolated=isolated, attempt=0, deadline_at=1e12, ready_at=ready_at)


def filled(*jobs: Job) -> Batcher:
    ready = Batcher()
    ready.put(jobs)
    return ready


def take(ready: Batcher, max_size: int = 4, *, fill_wait_s: float = 0, timeout_s: float = 0) -> list[str]:
    return [taken.task_id for taken in ready.take_batch(max_size, fill_wait_s=fill_wait_s, timeout_s=timeout_s)]


class Taker:
    """Takes one batch on a thread of its own."""

    def __init__(self, ready: Batcher, max_size: int, fill_wait_s: float) -> None:
        self.batch: list[str] | None = None
        self._thread = threading.Thread(target=self._take, args=(ready, max_size, fill_wait_s), daemon=True)
        self._thread.start()

    def _take(self, ready: Batcher, max_size: int, fill_wait_s: float) -> None:
        self.batch = take(ready, max_size, fill_wait_s=fill_wait_s, timeout_s=PATIENCE_S)

    def result(self) -> list[str]:
        wait_until(lambda: self.batch is not None, "a batch")
        assert self.batch is not None
        return self.batch


def test_nothing_comes_from_an_empty_queue() -> None:
    assert take(Batcher()) == []


@pytest.mark.parametrize(("waiting", "sizes"), [(1, [1]), (3, [3]), (4, [4]), (9, [4, 4, 1])])
def test_a_batch_is_what_waits_up_to_the_size_in_order(waiting: int, sizes: list[int]) -> None:
    ready = filled(*map(job, range(waiting)))
    batches = [take(ready) for _ in sizes]
    assert [len(batch) for batch in batches] == sizes
    assert [task_id for batch in batches for task_id in batch] == [f"task-{number}" for number in range(waiting)]
    assert take(ready) == []


def test_jobs_that_run_alone_come_one_by_one() -> None:
    ready = filled(*(job(number, isolated=True) for number in range(3)))
    assert [take(ready) for _ in range(3)] == [["task-0"], ["task-1"], ["task-2"]]


def test_jobs_that_run_alone_take_turns_with_batches() -> None:
    ready = filled(*(job(number, isolated=number >= 6) for number in range(9)))
    assert [take(ready, 2) for _ in range(6)] == [
        *(["task-0", "task-1"], ["task-6"]),
        *(["task-2", "task-3"], ["task-7"]),
        *(["task-4", "task-5"], ["task-8"]),
    ]


def test_a_taker_that_waits_gets_the_first_job_at_once() -> None:
    ready = Batcher()
    taker = Taker(ready, 4, fill_wait_s=0)
    ready.put([job(1)])
    assert taker.result() == ["task-1"]


def test_a_taker_that_waits_gets_what_came_together_together() -> None:
    ready = Batcher()
    taker = Taker(ready, 4, fill_wait_s=0)
    ready.put([])
    ready.put([job(1), job(2), job(3)])
    assert taker.result() == ["task-1", "task-2", "task-3"]


def test_a_batch_waits_to_be_filled() -> None:
    ready = filled(job(0, ready_at=time.monotonic()))
    taker = Taker(ready, 3, fill_wait_s=PATIENCE_S * 10)
    ready.put([job(1)])
    ready.put([job(2)])
    assert taker.result() == ["task-0", "task-1", "task-2"]


def test_a_batch_goes_unfilled_when_its_first_job_has_waited_long_enough() -> None:
    ready = filled(job(0, ready_at=time.monotonic() - 60), job(1, ready_at=time.monotonic()))
    assert take(ready, 3, fill_wait_s=59) == ["task-0", "task-1"]


def test_a_full_batch_does_not_wait() -> None:
    ready = filled(*(job(number, ready_at=time.monotonic()) for number in range(3)))
    assert len(take(ready, 2, fill_wait_s=PATIENCE_S * 10)) == 2


def test_what_is_drained_is_all_that_waits() -> None:
    ready = filled(job(0), job(1, isolated=True), job(2))
    assert {drained.task_id for drained in ready.drain()} == {"task-0", "task-1", "task-2"}
    assert take(ready) == []
