"""Delivery from the outbox of webhooks to a real HTTP server: signed, retried, isolated by receiver. Pauses are short here."""

from __future__ import annotations

import secrets
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from typing import Any

import orjson
import pytest
import redis
from pydantic import TypeAdapter
from standardwebhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError
from support.metrics import Growth
from support.receiver import Received, Receiver, Reply, running_receiver
from support.redis_server import own_redis_server
from support.samples import a_failure, a_request, a_success
from support.waiting import until

from api.openapi.callbacks import TaskEvent
from inference.domain import Outcome, TaskRecord
from inference.relay.webhooks import WebhookRelay, event_body, give_up_old_webhooks
from inference.runtime.url_guard import UrlGuard, UrlRules
from inference.settings import WebhookSettings
from inference.sinks.webhook import WebhookSender
from inference.task_store import Commit
from inference.task_store.redis_store import RedisTaskStore, StorePolicy
from inference.webhook import Webhook, WebhookEvent, WebhookState

SECRET = f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"
OLD_SECRET = f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"
#: Pauses that are over at once.
QUICK: dict[str, Any] = {"backoff_s": 0.001, "max_backoff_s": 0.002}


class Rig:
    """A task store with ended tasks, and relays to receivers on loopback."""

    def __init__(self, client: redis.Redis, key_prefix: str) -> None:
        self.store = RedisTaskStore(client, StorePolicy(key_prefix))

    def end(
        self, url: str, outcome: Outcome | None = None, events: tuple[WebhookEvent, ...] = tuple(WebhookEvent), owner: str = ""
    ) -> str:
        """Accept and end a task whose webhook is `url`; return its id."""
        receiver = url.split("/")[2]
        webhook = Webhook(url, f"{owner}/{receiver}" if owner else receiver, events)
        task_id = self.store.accept(a_request(webhook=webhook, owner=owner), enqueue=None, max_queue_depth=0).task_id
        self.store.lease("w", [task_id])
        self.store.start("w", [task_id])
        assert self.store.commit("w", [Commit(task_id, 1, outcome or a_success())]) == [True]
        return task_id

    def relay(
        self,
        *ports: int,
        secrets: tuple[str, ...] = (SECRET,),
        secrets_of: Callable[[str], tuple[str, ...]] | None = None,
        timeout_s: float = 5,
        **settings: Any,
    ) -> WebhookRelay:
        rules = UrlRules(allow_http=True, ports=ports, private_networks=("127.0.0.0/8",), timeout_s=timeout_s)
        chosen = WebhookSettings(**{"secret": SECRET, "timeout_s": timeout_s} | QUICK | settings)
        sender = WebhookSender(UrlGuard(rules), secrets_of or (lambda _owner: secrets))
        return WebhookRelay(self.store, sender, chosen, jitter=lambda: 1.0)

    def state(self, task_id: str) -> WebhookState | None:
        delivery = self.store.get(task_id).webhook_delivery
        return delivery and delivery.state

    def wait_for(self, task_id: str, state: WebhookState) -> TaskRecord:
        until(lambda: self.state(task_id) is state, f"the webhook is {state}", timeout_s=20)
        return self.store.get(task_id)


@pytest.fixture
def rig(redis_client: redis.Redis, key_prefix: str) -> Rig:
    return Rig(redis_client, key_prefix)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as running:
        yield running


@contextmanager
def running(relay: WebhookRelay) -> Iterator[None]:
    stopping = threading.Event()
    thread = threading.Thread(target=relay.run, args=(stopping,))
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(20)
        assert not thread.is_alive()


def answering(*statuses: int, **headers: str) -> Callable[[Received, BaseHTTPRequestHandler], Reply]:
    """Answer with these statuses, one after the other, then for ever with the last."""
    left = list(statuses)
    return lambda _request, _handler: Reply(left.pop(0) if len(left) > 1 else left[0], headers)


def test_an_event_has_the_task_and_signatures_that_the_standard_library_verifies(rig: Rig, receiver: Receiver) -> None:
    task_id = rig.end(receiver.url(path="/hook"))
    with running(rig.relay(receiver.port)):
        record = rig.wait_for(task_id, WebhookState.DELIVERED)
    (request,) = receiver.received
    assert (request.method, request.path, request.headers["Content-Type"]) == ("POST", "/hook", "application/json")
    event = Verifier(SECRET).verify(request.body, dict(request.headers))
    TypeAdapter(TaskEvent).validate_python(event)
    assert event["type"] == "task.succeeded"
    assert event["timestamp"] == event["data"]["finished_at"]
    data = event["data"]
    assert (data["task_id"], data["request_id"], data["status"]) == (task_id, record.request_id, "succeeded")
    assert "prediction" not in data["result"]
    assert request.headers["webhook-id"] == f"msg_{task_id}"
    delivery = record.webhook_delivery
    assert delivery is not None
    assert [attempt.status for attempt in delivery.last_attempts] == [200]


def test_the_error_of_a_failed_task_is_a_problem(rig: Rig, receiver: Receiver) -> None:
    task_id = rig.end(receiver.url(), a_failure())
    with running(rig.relay(receiver.port)):
        rig.wait_for(task_id, WebhookState.DELIVERED)
    event = orjson.loads(receiver.received[0].body)
    TypeAdapter(TaskEvent).validate_python(event)
    assert event["type"] == "task.failed"
    assert event["data"]["error"].keys() >= {"type", "title", "status", "detail", "code"}


def test_an_event_is_signed_with_each_secret_while_they_rotate(rig: Rig, receiver: Receiver) -> None:
    task_id = rig.end(receiver.url())
    with running(rig.relay(receiver.port, secrets=(SECRET, OLD_SECRET))):
        rig.wait_for(task_id, WebhookState.DELIVERED)
    (request,) = receiver.received
    for secret in (SECRET, OLD_SECRET):
        Verifier(secret).verify(request.body, dict(request.headers))
    with pytest.raises(WebhookVerificationError):
        Verifier(f"whsec_{b64encode(bytes(32)).decode()}").verify(request.body, dict(request.headers))


@pytest.mark.parametrize("status", [302, 400, 401, 404, 429, 500, 503])
def test_an_event_that_is_not_taken_is_sent_again_with_the_same_id_and_body(rig: Rig, receiver: Receiver, status: int) -> None:
    receiver.reply = answering(status, status, 204)
    task_id = rig.end(receiver.url())
    with running(rig.relay(receiver.port)):
        record = rig.wait_for(task_id, WebhookState.DELIVERED)
    assert len({(request.headers["webhook-id"], request.body) for request in receiver.received}) == 1
    delivery = record.webhook_delivery
    assert delivery is not None
    assert [attempt.status for attempt in delivery.last_attempts] == [status, status, 204]
    for request in receiver.received:
        Verifier(SECRET).verify(request.body, dict(request.headers))


def test_410_gives_the_event_up(rig: Rig, receiver: Receiver) -> None:
    receiver.reply = answering(410)
    task_id = rig.end(receiver.url())
    with running(rig.relay(receiver.port)):
        rig.wait_for(task_id, WebhookState.GIVEN_UP)
    assert len(receiver.received) == 1


def test_a_url_that_the_guard_refuses_is_given_up_and_the_record_says_why(rig: Rig, receiver: Receiver) -> None:
    task_id = rig.end(f"http://localhost:{receiver.port}/")
    relay = rig.relay(receiver.port)
    relay._sender = WebhookSender(UrlGuard(UrlRules(allow_http=True, ports=(receiver.port,))), lambda _owner: (SECRET,))
    with running(relay):
        record = rig.wait_for(task_id, WebhookState.GIVEN_UP)
    delivery = record.webhook_delivery
    assert delivery is not None
    assert "not public" in (delivery.last_attempts[0].error or "")
    assert receiver.received == []


def test_the_log_has_the_last_ten_attempts_and_their_number(rig: Rig, receiver: Receiver) -> None:
    receiver.reply = answering(*[500] * 14, 200)
    task_id = rig.end(receiver.url())
    with running(rig.relay(receiver.port)):
        record = rig.wait_for(task_id, WebhookState.DELIVERED)
    delivery = record.webhook_delivery
    assert delivery is not None
    assert (delivery.attempts, len(delivery.last_attempts)) == (15, 10)


@pytest.mark.parametrize("attempts", range(1, 12))
def test_pauses_grow_from_seconds_to_hours(rig: Rig, receiver: Receiver, attempts: int) -> None:
    receiver.reply = answering(500)
    relay = rig.relay(receiver.port, backoff_s=5, max_backoff_s=21_600)
    answer = relay._sender.send(receiver.url(), "msg_1", b"{}")
    assert relay._retry_in_s(attempts, answer) == min(21_600, 5 * 4 ** (attempts - 1))


@pytest.mark.parametrize("as_date", [False, True])
def test_a_retry_after_is_honoured_up_to_the_longest_pause(rig: Rig, receiver: Receiver, as_date: bool) -> None:
    relay = rig.relay(receiver.port, backoff_s=5, max_backoff_s=3600)
    for wished_s in (600, 100_000):
        at = format_datetime(datetime.now(UTC) + timedelta(seconds=wished_s), usegmt=True)
        receiver.reply = answering(429, **{"Retry-After": at if as_date else str(wished_s)})
        answer = relay._sender.send(receiver.url(), "msg_1", b"{}")
        pause = relay._pause(answer)
        assert pause is not None
        assert min(3600, wished_s) - 30 < relay._retry_in_s(1, answer) <= min(3600, wished_s)
        assert pause.least_s == relay._retry_in_s(1, answer)


def test_a_broken_retry_after_is_ignored(rig: Rig, receiver: Receiver) -> None:
    relay = rig.relay(receiver.port)
    huge = "9" * 30
    for text in ("soon", "-1", "1e9", "²", f"Mon, 01 Jan {huge} 00:00:00 GMT", f"Mon, 01 Jan 2026 00:00:00 +{huge}"):
        receiver.reply = answering(503, **{"Retry-After": text.encode("latin-1", "replace").decode("latin-1")})
        assert relay._sender.send(receiver.url(), "msg_1", b"{}").retry_after_s == 0


def test_an_event_is_signed_with_the_secrets_of_its_owner(rig: Rig, receiver: Receiver) -> None:
    by_owner = {"alice": (SECRET,), "bob": (OLD_SECRET,)}
    for owner in by_owner:
        rig.end(receiver.url(path=f"/{owner}"), owner=owner)
    with running(rig.relay(receiver.port, secrets_of=by_owner.__getitem__)):
        until(lambda: len(receiver.received) == 2, "both events", timeout_s=20)
    for request in receiver.received:
        owner = request.path.removeprefix("/")
        (secret,) = by_owner[owner]
        assert Verifier(secret).verify(request.body, dict(request.headers))["data"]["owner"] == owner
        (other,) = by_owner["bob" if owner == "alice" else "alice"]
        with pytest.raises(WebhookVerificationError):
            Verifier(other).verify(request.body, dict(request.headers))


def test_an_event_waits_while_its_owner_has_no_secret(rig: Rig, receiver: Receiver) -> None:
    found: dict[str, tuple[str, ...]] = {"alice": ()}
    task_id = rig.end(receiver.url(), owner="alice")
    with running(rig.relay(receiver.port, secrets_of=found.__getitem__)):
        until(lambda: getattr(rig.store.get(task_id).webhook_delivery, "attempts", 0), "an attempt", timeout_s=20)
        assert receiver.received == []
        found["alice"] = (SECRET,)
        record = rig.wait_for(task_id, WebhookState.DELIVERED)
    assert record.webhook_delivery is not None
    assert record.webhook_delivery.last_attempts[0].error == "there is no secret to sign the event with"


def test_a_receiver_that_is_down_for_one_owner_is_asked_for_another(rig: Rig, receiver: Receiver) -> None:
    receiver.reply = lambda request, _handler: Reply(503 if request.path == "/alice" else 200)
    refused = rig.end(receiver.url(path="/alice"), owner="alice")
    with running(rig.relay(receiver.port, backoff_s=3600, max_backoff_s=3600)):
        until(lambda: rig.store.get_webhook_stats().receivers_down == 1, "the receiver is down", timeout_s=20)
        waiting = rig.end(receiver.url(path="/alice"), owner="alice")
        rig.wait_for(rig.end(receiver.url(path="/bob"), owner="bob"), WebhookState.DELIVERED)
        rig.wait_for(rig.end(receiver.url(path="/"), owner=""), WebhookState.DELIVERED)
    assert [rig.state(task_id) for task_id in (refused, waiting)] == [WebhookState.PENDING] * 2
    assert [request.path for request in receiver.received] == ["/alice", "/bob", "/"]


def test_receivers_that_hang_delay_no_other(rig: Rig, receiver: Receiver) -> None:
    released = threading.Event()

    def hang(_request: Received, _handler: BaseHTTPRequestHandler) -> Reply:
        released.wait(30)
        return Reply()

    with running_receiver() as hanging:
        hanging.reply = hang
        stuck = [rig.end(hanging.url()) for _ in range(20)]
        with running(rig.relay(receiver.port, hanging.port, concurrency=4, max_per_receiver=2, timeout_s=60)):
            until(lambda: len(hanging.received) == 2, "the hanging receiver is asked", timeout_s=20)
            prompt = [rig.end(receiver.url()) for _ in range(20)]
            for task_id in prompt:
                rig.wait_for(task_id, WebhookState.DELIVERED)
            assert len(hanging.received) == 2
            released.set()
            for task_id in stuck:
                rig.wait_for(task_id, WebhookState.DELIVERED)


def test_a_receiver_that_is_down_gets_one_request_at_a_time_and_everything_once_it_is_up(rig: Rig, receiver: Receiver) -> None:
    at_a_time, most = [0], [0]
    lock, is_up = threading.Lock(), threading.Event()

    def reply(_request: Received, _handler: BaseHTTPRequestHandler) -> Reply:
        with lock:
            at_a_time[0] += 1
            most[0] = max(most[0], at_a_time[0])
        time.sleep(0.01)
        with lock:
            at_a_time[0] -= 1
        return Reply(200 if is_up.is_set() else 503)

    receiver.reply = reply
    first = rig.end(receiver.url())
    with running(rig.relay(receiver.port)):
        until(lambda: rig.store.get_webhook_stats().receivers_down == 1, "the receiver is down", timeout_s=20)
        others = [rig.end(receiver.url()) for _ in range(30)]
        seen = len(receiver.received)
        until(lambda: len(receiver.received) > seen + 5, "it is asked again", timeout_s=20)
        assert most[0] == 1
        is_up.set()
        for task_id in (first, *others):
            rig.wait_for(task_id, WebhookState.DELIVERED)
    assert len({request.headers["webhook-id"] for request in receiver.received}) == 31


def test_events_continue_after_an_outage_of_the_task_store(receiver: Receiver) -> None:
    with own_redis_server() as server:
        rig = Rig(redis.Redis.from_url(server.url), "outage")
        with running(rig.relay(receiver.port)):
            server.stop()
            time.sleep(0.5)
            server.start()
            task_id = rig.end(receiver.url())
            rig.wait_for(task_id, WebhookState.DELIVERED)


def test_a_broken_record_does_not_stop_the_others(
    rig: Rig, receiver: Receiver, redis_client: redis.Redis, key_prefix: str
) -> None:
    broken, whole = rig.end(receiver.url()), rig.end(receiver.url())
    redis_client.hset(f"{key_prefix}:task:{broken}", "webhook_log", "no JSON")
    with running(rig.relay(receiver.port)):
        rig.wait_for(whole, WebhookState.DELIVERED)


def test_two_relays_send_an_event_once(rig: Rig, receiver: Receiver) -> None:
    ids = [rig.end(receiver.url()) for _ in range(40)]
    with running(rig.relay(receiver.port)), running(rig.relay(receiver.port)):
        for task_id in ids:
            rig.wait_for(task_id, WebhookState.DELIVERED)
    assert sorted(request.headers["webhook-id"] for request in receiver.received) == sorted(f"msg_{task_id}" for task_id in ids)


def test_an_old_event_is_given_up(rig: Rig, receiver: Receiver) -> None:
    task_id = rig.end(receiver.url())
    assert give_up_old_webhooks(rig.store, 3600) > 0
    assert rig.state(task_id) is WebhookState.PENDING
    assert give_up_old_webhooks(rig.store, 0) > 0
    assert rig.state(task_id) is WebhookState.GIVEN_UP


def test_the_body_does_not_depend_on_what_happens_after_the_end(rig: Rig, receiver: Receiver) -> None:
    receiver.reply = answering(500, 200)
    task_id = rig.end(receiver.url())
    before = event_body(rig.store.get(task_id))
    with running(rig.relay(receiver.port)):
        record = rig.wait_for(task_id, WebhookState.DELIVERED)
    assert event_body(record) == before == receiver.received[1].body


def test_attempts_are_counted_by_their_outcome(rig: Rig, receiver: Receiver) -> None:
    growth = Growth()
    receiver.reply = answering(500, 204, 410)
    with running(rig.relay(receiver.port)):
        rig.wait_for(rig.end(receiver.url()), WebhookState.DELIVERED)
        rig.wait_for(rig.end(receiver.url()), WebhookState.GIVEN_UP)
    rig.end(receiver.url())
    assert give_up_old_webhooks(rig.store, 0) > 0
    counts = {outcome: growth.of("webhook_deliveries_total", outcome=outcome) for outcome in ("delivered", "failed", "given_up")}
    assert counts == {"delivered": 1, "failed": 1, "given_up": 2}
    assert growth.of("webhook_duration_seconds_count") == 3
