"""Held jobs: a message is done once, when its last item has ended; a message that comes again joins."""

from __future__ import annotations

import threading

from pipeline_rig import Inbox, message_of, queue_item

from inference.domain import Outcome, TaskStatus
from tasks.pipeline.jobs import Ending, HeldJobs, ItemEnd, Job

DROPPED = ItemEnd(Ending.DROPPED)
COMMITTED = ItemEnd(Ending.COMMITTED, Outcome(TaskStatus.FAILED, error={"code": "x", "detail": "y"}))


def job_of(inbox: Inbox, number: int = 0) -> Job:
    item = inbox.delivery.message.items[number]
    return Job(item, [inbox.delivery], isolated=False, attempt=0, deadline_at=1e12)


def test_a_message_is_done_when_its_last_item_has_ended() -> None:
    inbox = Inbox(message_of(queue_item(1), queue_item(2), queue_item(3)))
    inbox.delivery.report_end("task-3", COMMITTED)
    inbox.delivery.report_end("task-1", DROPPED)
    assert inbox.dones == []
    inbox.delivery.report_end("task-2", DROPPED)
    assert inbox.dones == [{"task-1": DROPPED, "task-2": DROPPED, "task-3": COMMITTED}]


def test_a_message_starts_once_however_many_items_start() -> None:
    inbox = Inbox(message_of(queue_item(1), queue_item(2)))
    for number in (0, 1):
        job_of(inbox, number).report_start()
    assert inbox.started == 1


def test_a_message_that_is_retried_starts_again() -> None:
    inbox = Inbox(message_of(queue_item(1), queue_item(2)))
    jobs = [job_of(inbox, number) for number in (0, 1)]
    for job in jobs:
        job.attempt = 1
        job.report_start()
    for job in jobs:
        job.report_retry("the predictor process died: signal 9")
    for job in jobs:
        job.report_start()
    assert inbox.started == 2
    assert [(retry.attempts, retry.error.code, retry.error.detail) for retry in inbox.retries] == [
        (1, "predictor_died", "the predictor process died: signal 9")
    ]


def test_items_that_end_at_the_same_time_are_done_once() -> None:
    count = 16
    inbox = Inbox(message_of(*map(queue_item, range(count))))
    line = threading.Barrier(count)

    def end(number: int) -> None:
        line.wait(10)
        inbox.delivery.report_end(f"task-{number}", DROPPED)

    threads = [threading.Thread(target=end, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [len(ends) for ends in inbox.dones] == [count]


def test_a_message_that_came_again_ends_with_the_job_it_joined() -> None:
    held = HeldJobs()
    first, again = Inbox(message_of(queue_item(1))), Inbox(message_of(queue_item(1)))
    job = job_of(first)
    held.add(job)
    assert held.join("task-1", again.delivery)
    held.drop(job, COMMITTED)
    assert first.dones == again.dones == [{"task-1": COMMITTED}]


def test_what_is_not_held_cannot_be_joined() -> None:
    held = HeldJobs()
    inbox = Inbox(message_of(queue_item(1)))
    assert not held.join("task-1", inbox.delivery)
    job = job_of(inbox)
    held.add(job)
    held.drop(job, DROPPED)
    assert not held.join("task-1", inbox.delivery)
    assert len(held) == 0


def test_jobs_whose_renewal_stops_are_no_longer_held_and_their_messages_stay_open() -> None:
    held = HeldJobs()
    inboxes = [Inbox(message_of(queue_item(number))) for number in (1, 2)]
    jobs = [job_of(inbox) for inbox in inboxes]
    for job in jobs:
        held.add(job)
    held.stop_renewing(jobs[:1])
    assert held.task_ids() == ["task-2"]
    assert inboxes[0].dones == []
