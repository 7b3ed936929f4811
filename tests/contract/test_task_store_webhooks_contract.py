"""Events of webhooks in the task store: written with the end of a task, leased to one relay, kept until the delivery ended."""

from __future__ import annotations

from typing import Any

import pytest
from store_worlds import LONGER_THAN_A_LEASE_S, RESULT_TTL_S, StoreWorld, accept, finished, running
from support.samples import a_batch, a_failure, a_request, a_success

from inference.task_store import Commit, TaskStore
from inference.task_store.protocol import ReceiverPause
from inference.webhook import Webhook, WebhookAttempt, WebhookDelivery, WebhookEvent, WebhookState

LEASE_S = 30.0
RECEIVER = "hooks.example:443"
PENDING = WebhookDelivery(WebhookState.PENDING, 1, (WebhookAttempt(1_700_000_000_000, 12.5, 500),))
DELIVERED = WebhookDelivery(WebhookState.DELIVERED, 1, (WebhookAttempt(1_700_000_000_000, 12.5, 204),))
PAUSE = ReceiverPause(first_s=5, longest_s=60)


def a_webhook(receiver: str = RECEIVER, events: tuple[WebhookEvent, ...] = tuple(WebhookEvent)) -> Webhook:
    return Webhook(f"https://{receiver}/path?query", receiver, events)


def claim(store: TaskStore, *, limit: int = 100, per_receiver: int = 100, **in_flight: int) -> list[str]:
    by_receiver = {f"{name}:443": count for name, count in in_flight.items()}
    return store.claim_webhooks(lease_s=LEASE_S, limit=limit, per_receiver=per_receiver, in_flight=by_receiver)


def test_a_record_has_its_webhook(store: TaskStore) -> None:
    webhook = a_webhook(events=(WebhookEvent.FAILED, WebhookEvent.EXPIRED))
    task_id = accept(store, webhook=webhook)
    record = store.get(task_id)
    assert (record.webhook, record.webhook_delivery) == (webhook, None)
    assert store.get(accept(store)).webhook is None


@pytest.mark.parametrize("end", ["succeeded", "failed", "canceled", "expired"])
@pytest.mark.parametrize("is_wanted", [True, False])
def test_the_end_of_a_task_is_an_event_if_its_webhook_wants_it(
    world: StoreWorld, store: TaskStore, end: str, is_wanted: bool
) -> None:
    event = WebhookEvent.of_status(end)
    events = (event,) if is_wanted else tuple(other for other in WebhookEvent if other != event)
    task_id = running(store, "w", webhook=a_webhook(events=events), deadline_s=60)
    match end:
        case "succeeded":
            store.commit("w", [Commit(task_id, 1, a_success())])
        case "failed":
            store.commit("w", [Commit(task_id, 1, a_failure())])
        case "canceled":
            store.cancel(task_id)
        case "expired":
            world.let_pass(61)
            assert store.expire_due(10) == [task_id]
    record = store.get(task_id)
    assert record.status == end
    assert record.webhook_delivery == (WebhookDelivery(WebhookState.PENDING) if is_wanted else None)
    assert claim(store) == [task_id] * is_wanted
    assert (world.expires_in_s(task_id) is None) is is_wanted


def test_tasks_without_a_webhook_leave_no_trace_in_the_outboxes(store: TaskStore) -> None:
    finished(store)
    assert claim(store) == []
    assert store.get_webhook_stats().waiting == 0


def test_an_event_is_leased_to_one_relay_and_due_again_after_the_lease(world: StoreWorld, store: TaskStore) -> None:
    task_id = finished(store, webhook=a_webhook())
    assert claim(store) == [task_id]
    assert claim(store) == []
    world.let_pass(LEASE_S + 1)
    assert claim(store) == [task_id]


def test_a_delivered_event_is_gone_and_its_record_expires(world: StoreWorld, store: TaskStore) -> None:
    task_id = finished(store, webhook=a_webhook())
    claim(store)
    store.note_webhook(task_id, RECEIVER, DELIVERED)
    assert store.get(task_id).webhook_delivery == DELIVERED
    assert 0 < (world.expires_in_s(task_id) or 0) <= RESULT_TTL_S
    world.let_pass(LEASE_S + 1)
    assert claim(store) == []
    assert store.get_webhook_stats().receivers == 0
    assert store.count_webhooks(RECEIVER) == 0


def test_a_record_is_kept_for_its_webhook_and_for_its_sinks(world: StoreWorld, store: TaskStore) -> None:
    webhook_first = finished(store, webhook=a_webhook(), sinks=("kafka",))
    sink_first = finished(store, webhook=a_webhook(), sinks=("kafka",))
    entries = world.outbox("kafka")
    store.note_webhook(webhook_first, RECEIVER, DELIVERED)
    store.confirm_deliveries("kafka", entries[1:])
    assert world.expires_in_s(webhook_first) is None
    assert world.expires_in_s(sink_first) is None
    store.confirm_deliveries("kafka", entries[:1])
    store.note_webhook(sink_first, RECEIVER, DELIVERED)
    assert world.expires_in_s(webhook_first) is not None
    assert world.expires_in_s(sink_first) is not None


def test_a_failed_attempt_is_due_again_after_its_pause(world: StoreWorld, store: TaskStore) -> None:
    task_id = finished(store, webhook=a_webhook())
    claim(store)
    store.note_webhook(task_id, RECEIVER, PENDING, retry_in_s=60)
    found = store.get(task_id).webhook_delivery
    assert found is not None
    assert (found.attempts, found.last_attempts, found.state) == (1, PENDING.last_attempts, WebhookState.PENDING)
    assert found.next_attempt_at_ms > store.get(task_id).finished_at_ms
    world.let_pass(LEASE_S + 1)
    assert claim(store) == []
    world.let_pass(31)
    assert claim(store) == [task_id]


def test_a_failed_attempt_does_not_delay_other_events_of_its_receiver(store: TaskStore) -> None:
    failed = finished(store, webhook=a_webhook())
    claim(store)
    store.note_webhook(failed, RECEIVER, PENDING, retry_in_s=600)
    other = finished(store, webhook=a_webhook())
    assert claim(store) == [other]


def test_a_receiver_gets_a_bounded_number_at_a_time_and_others_are_not_delayed(store: TaskStore) -> None:
    many = [finished(store, webhook=a_webhook("busy:443")) for _ in range(5)]
    other = finished(store, webhook=a_webhook("other:443"))
    assert sorted(claim(store, per_receiver=2)) == sorted([*many[:2], other])
    assert claim(store, per_receiver=2, busy=2) == []
    assert claim(store, per_receiver=2, busy=1) == many[2:3]
    assert claim(store, limit=1) == many[3:4]


def test_a_receiver_that_is_down_is_asked_by_one_event_after_a_pause(world: StoreWorld, store: TaskStore) -> None:
    first, second, third = (finished(store, webhook=a_webhook()) for _ in range(3))
    assert claim(store, per_receiver=1) == [first]
    store.note_webhook(first, RECEIVER, PENDING, retry_in_s=1, pause=PAUSE)
    later = finished(store, webhook=a_webhook())
    other = finished(store, webhook=a_webhook("other:443"))
    assert claim(store) == [other]
    assert store.get_webhook_stats().receivers_down == 1
    world.let_pass(6)
    assert claim(store) == [second]
    assert claim(store, **{"hooks.example": 1}) == []
    store.note_webhook(second, RECEIVER, DELIVERED)
    assert store.get_webhook_stats().receivers_down == 0
    assert sorted(claim(store)) == sorted([first, third, later])


def test_the_pauses_of_a_receiver_grow_up_to_the_longest(world: StoreWorld, store: TaskStore) -> None:
    task_id = finished(store, webhook=a_webhook())
    for pause_s in (5, 10, 20, 40, 60, 60):
        assert claim(store) == [task_id]
        store.note_webhook(task_id, RECEIVER, PENDING, retry_in_s=0, pause=PAUSE)
        store.note_webhook(task_id, RECEIVER, PENDING, retry_in_s=0, pause=PAUSE)  # an attempt of the same time
        let_outage_pass(world, pause_s - 1)
        assert claim(store) == []
        let_outage_pass(world, 2)


def let_outage_pass(world: StoreWorld, seconds: float) -> None:
    """Time passes; the end of an outage is a part of its field, which `let_pass` does not know."""
    world.let_pass(seconds)
    key = f"{world._prefix}:webhook-outages"
    outages: Any = world._redis.hgetall(key)
    for receiver, value in outages.items():
        failures, until_ms = value.split()
        world._redis.hset(key, receiver, b"%d %d" % (int(failures), int(until_ms) - round(seconds * 1000)))


def test_the_receiver_may_ask_for_a_longer_pause(world: StoreWorld, store: TaskStore) -> None:
    task_id = finished(store, webhook=a_webhook())
    claim(store)
    store.note_webhook(task_id, RECEIVER, PENDING, retry_in_s=0, pause=ReceiverPause(5, 60, least_s=300))
    world.let_pass(299)
    assert claim(store) == []
    world.let_pass(2)
    assert claim(store) == [task_id]


@pytest.mark.parametrize("noted", [False, True], ids=["by age", "by an attempt"])
def test_an_event_is_given_up_and_its_record_expires(world: StoreWorld, store: TaskStore, noted: bool) -> None:
    task_id = finished(store, webhook=a_webhook())
    claim(store)
    if noted:
        store.note_webhook(task_id, RECEIVER, WebhookDelivery(WebhookState.GIVEN_UP, 1, PENDING.last_attempts))
    else:
        world.let_pass(3601)
        assert store.give_up_webhooks(after_s=3600, limit=10) == [task_id]
    found = store.get(task_id).webhook_delivery
    assert found is not None
    assert (found.state, found.next_attempt_at_ms) == (WebhookState.GIVEN_UP, 0)
    assert world.expires_in_s(task_id) is not None
    assert claim(store) == []
    store.note_webhook(task_id, RECEIVER, DELIVERED)  # an attempt that was under way
    found = store.get(task_id).webhook_delivery
    assert found is not None
    assert found.state is WebhookState.GIVEN_UP


def test_only_old_events_are_given_up(world: StoreWorld, store: TaskStore) -> None:
    old = finished(store, webhook=a_webhook())
    world.let_pass(3600)
    young = finished(store, webhook=a_webhook())
    assert store.give_up_webhooks(after_s=3600, limit=10) == [old]
    assert claim(store) == [young]


def test_a_dead_letter_stays_when_its_event_is_delivered(world: StoreWorld, store: TaskStore) -> None:
    task_id = running(store, "w", webhook=a_webhook())
    store.commit("w", [Commit(task_id, 1, a_failure(), dead_letter=True)])
    claim(store)
    store.note_webhook(task_id, RECEIVER, DELIVERED)
    assert world.expires_in_s(task_id) is None
    assert store.discard_dead_letter(task_id)
    assert world.expires_in_s(task_id) is not None


def test_a_discarded_dead_letter_stays_for_its_event(world: StoreWorld, store: TaskStore) -> None:
    task_id = running(store, "w", webhook=a_webhook())
    store.commit("w", [Commit(task_id, 1, a_failure(), dead_letter=True)])
    assert store.discard_dead_letter(task_id)
    assert world.expires_in_s(task_id) is None
    store.note_webhook(task_id, RECEIVER, DELIVERED)
    assert world.expires_in_s(task_id) is not None


def test_an_event_whose_record_was_evicted_is_forgotten(world: StoreWorld, store: TaskStore) -> None:
    task_id = finished(store, webhook=a_webhook())
    sent = finished(store, webhook=a_webhook("other:443"))
    assert claim(store, limit=1, **{"hooks.example": 100}) == [sent]
    for evicted in (task_id, sent):
        world._redis.delete(f"{world._prefix}:task:{evicted}")
    assert claim(store) == []
    store.note_webhook(sent, "other:443", PENDING)
    assert store.get_webhook_stats().waiting == 0
    assert store.get_webhook_stats().receivers == 0


def test_figures_of_the_waiting_events(world: StoreWorld, store: TaskStore) -> None:
    assert store.get_webhook_stats().oldest_age_s == 0
    finished(store, webhook=a_webhook())
    world.let_pass(100)
    finished(store, webhook=a_webhook("other:443"))
    stats = store.get_webhook_stats()
    assert (stats.waiting, stats.receivers, stats.receivers_down) == (2, 2, 0)
    assert 100 <= stats.oldest_age_s < 1000
    assert store.count_webhooks("other:443") == 1


def test_a_batch_is_known_while_an_event_of_it_waits(world: StoreWorld, store: TaskStore) -> None:
    batch = a_batch(a_request(webhook=a_webhook()))
    store.accept_batch(batch, enqueue=[], max_queue_depth=0)
    (task_id,) = batch.record.task_ids
    store.cancel(task_id)
    key = f"{world._prefix}:batch:{batch.batch_id}"
    assert world._redis.pttl(key) == -1
    store.note_webhook(task_id, RECEIVER, DELIVERED)
    ttl_ms: Any = world._redis.pttl(key)
    assert ttl_ms > 0


def test_a_task_that_is_run_again_after_a_lost_worker_has_one_event(world: StoreWorld, store: TaskStore) -> None:
    task_id = running(store, "w", webhook=a_webhook())
    world.let_pass(LONGER_THAN_A_LEASE_S)
    store.reap("sweeper", max_attempts=3, limit=10)
    assert claim(store) == []
    store.lease("w2", [task_id])
    store.start("w2", [task_id])
    assert store.commit("w", [Commit(task_id, 1, a_success())]) == [False]
    assert store.commit("w2", [Commit(task_id, 2, a_success())]) == [True]
    assert claim(store) == [task_id]
