"""API, two workers and two relays as processes of their own, with the servers of a real installation and each of its brokers."""

from __future__ import annotations

import hashlib
import random
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
import pytest
import requests
from support.client import wait_until
from support.digits import METADATA, Digit, distinct_digits
from support.full_stack import RELAYS, SINKS, WORKERS, FullStack
from support.samples import a_request
from support.tenant import Tenant

from inference.lifecycle.dead_letters import move_to_dead_letters

pytestmark = [pytest.mark.process, pytest.mark.services, pytest.mark.timeout(600)]

CALLERS = 16
#: Small, so that both workers have their share, and a worker holds few messages at a time.
SMALL_BATCHES = {"INFERENCE_WORKER__MAX_BATCH_SIZE": "8", "INFERENCE_WORKER__PREFETCH_BATCHES": "1"}
#: The API in two processes: an answer must find the one that its caller asked.
TWO_API_PROCESSES = {"INFERENCE_API__WORKERS": "2"}


@dataclass(frozen=True)
class Case:
    """A request and its expected result."""

    number: int
    image: bytes
    #: of the answer to the first request
    status: int
    fields: dict[str, str] = field(default_factory=dict)
    #: whose answer is the right one; None for a request that is bad
    digit: Digit | None = None
    #: where its result goes
    sinks: Sequence[str] = ()
    #: it becomes a task, although it is bad
    fails_late: bool = False

    @property
    def request_id(self) -> str:
        return f"request-{self.number}"


@dataclass(frozen=True)
class Answer:
    case: Case
    status: int
    document: dict[str, Any]
    #: once it has ended; None where there is none
    task: dict[str, Any] | None

    @property
    def prediction(self) -> list[float] | None:
        """Prediction that the caller got, at once or by asking for the task."""
        result = self.document.get("response") or (self.task or {}).get("result")
        return result["prediction"] if result else None


def good_case(number: int, digit: Digit) -> Case:
    """Raw or PNG, now or later, to every sink or to some."""
    raw, later, sinks = number % 2, number // 2 % 2, (SINKS, SINKS, SINKS, SINKS, SINKS, ("mongodb",), ("kafka",), ())[number % 8]
    fields = {"mode": "async" if later else "sync"}
    if raw:
        fields["metadata"] = METADATA
    if sinks != SINKS:
        fields["sinks"] = ",".join(sinks)
    return Case(number, digit.raw if raw else digit.png, 202 if later else 200, fields, digit, sinks)


def bad_case(number: int, digit: Digit) -> Case:
    """Case that the API refuses, or in which a worker finds the error."""
    broken = digit.png[:-30]
    cases = (
        Case(number, b"no image at all", 400, {"mode": "async"}),
        Case(number, digit.raw, 400, {"metadata": METADATA.replace("8,8,1", "8,9,1")}),
        Case(number, digit.raw, 400, {"metadata": "{"}),
        Case(number, digit.png, 404, {"model": "unknown"}),
        Case(number, digit.png, 400, {"sinks": "nowhere"}),
        Case(number, broken, 400, fails_late=True),
        Case(number, broken, 202, {"mode": "async"}, fails_late=True),
    )
    return cases[number % len(cases)]


def mixed_cases(count: int) -> list[Case]:
    """One in five is bad; in an order that is always the same."""
    digits = distinct_digits(count)
    kinds = (good_case, good_case, good_case, good_case, bad_case)
    cases = [kinds[number % 5](number, digits[number]) for number in range(count)]
    random.Random(0).shuffle(cases)  # noqa: S311
    return cases


def ask(stack: FullStack, case: Case) -> Answer:
    """Send it as a caller of its own, who asks for the task until it has ended."""
    response = stack.post(case.image, request_id=case.request_id, **case.fields)
    document = response.json()
    task_id = document.get("task_id")
    task = stack.task(task_id, wait_s=60) if task_id else None
    return Answer(case, response.status_code, document, task)


@dataclass(frozen=True)
class Broker:
    name: str
    requests: int
    variables: dict[str, str]


BROKERS = [
    Broker("redis", 500, {}),
    Broker("quorum", 500, {"INFERENCE_BROKER__QUEUE_TYPE": "quorum"}),
    Broker("classic", 60, {"INFERENCE_BROKER__QUEUE_TYPE": "classic"}),
]


@pytest.fixture(scope="module", params=BROKERS, ids=lambda broker: broker.name)
def broker(request: pytest.FixtureRequest) -> Broker:
    chosen: Broker = request.param
    return chosen


@pytest.fixture(scope="module")
def stack(broker: Broker, services_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[FullStack]:
    folder = tmp_path_factory.mktemp(broker.name)
    tenant = Tenant(services_env, folder)
    url = tenant.env["REDIS_URL" if broker.name == "redis" else "AMQP_URL"]
    stack = FullStack(folder, tenant, SMALL_BATCHES | TWO_API_PROCESSES | broker.variables | {"INFERENCE_BROKER__URL": url})
    try:
        stack.start_all()
        yield stack
    finally:
        stack.stop_all()
        tenant.leave()
        tenant.leave_sinks()


@contextmanager
def relays_seen(tenant: Tenant) -> Iterator[dict[str, set[int]]]:
    """The relays that were seen with entries of each sink in their hands."""
    seen: dict[str, set[int]] = {sink: set() for sink in SINKS}
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.001):
            for sink, pids in seen.items():
                pids |= {pid for pid, entries in tenant.held(sink).items() if entries}

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        done.set()
        looking.join()


def test_each_request_ends_right(stack: FullStack, broker: Broker) -> None:
    """A good one is once in its sinks, its upload in MinIO, its answer with its own caller; a bad one is in no sink."""
    tenant, cases = stack.tenant, mixed_cases(broker.requests)

    with relays_seen(tenant) as relays:
        with ThreadPoolExecutor(CALLERS) as callers:
            answers = list(callers.map(lambda case: ask(stack, case), cases))
        tenant.wait_delivered(*SINKS)
        assert_answers(answers)
        assert_sinks(tenant, answers)
        assert_uploads(tenant, answers)
        task_ids = [answer.task["task_id"] for answer in answers if answer.task]
        assert tenant.worker_pids(task_ids) == set(map(stack.pid, WORKERS))
        wait_until(lambda: have_both_a_share(stack, relays), timeout_s=60, what="both relays have had a share of each sink")


def have_both_a_share(stack: FullStack, relays: dict[str, set[int]]) -> bool:
    """Whether both relays were seen at each sink; one more result for them otherwise: a relay may be quicker than the other."""
    are_all = relays == {sink: set(map(stack.pid, RELAYS)) for sink in SINKS}
    return are_all or not stack.submit(distinct_digits(1)[0].png)


def assert_answers(answers: list[Answer]) -> None:
    for answer in answers:
        case = answer.case
        assert (case, answer.status) == (case, case.status), answer.document
        if case.digit is not None:
            assert answer.task is not None
            assert answer.prediction is not None
            assert case.digit.is_answer(answer.prediction), case
            assert (answer.document["request_id"], answer.task["request_id"]) == (case.request_id, case.request_id)
            assert answer.task["status"] == "succeeded"
        elif case.fails_late:
            assert answer.task is not None
            assert (answer.task["status"], answer.task["error"]["code"]) == ("failed", "invalid_image")
        else:
            assert answer.task is None
            assert answer.document["code"] in {"invalid_image", "invalid_metadata", "unsupported_image_type", "model_not_found"}
    task_ids = [answer.task["task_id"] for answer in answers if answer.task]
    assert len(task_ids) == len(set(task_ids))


def assert_sinks(tenant: Tenant, answers: list[Answer]) -> None:
    """Compare by the ids that the callers sent, so that a result under another's id shows too."""
    expected = {sink: {a.case.request_id: a for a in answers if sink in a.case.sinks} for sink in SINKS}
    in_mongodb = tenant.documents()
    assert Counter(document["request_id"] for document in in_mongodb) == Counter(expected["mongodb"].keys())
    in_kafka = {dict(record.headers)["task_id"]: orjson.loads(record.value) for record in tenant.records()}
    assert Counter(document["request_id"] for document in in_kafka.values()) == Counter(expected["kafka"].keys())
    assert all(document["task_id"].encode() == task_id for task_id, document in in_kafka.items())

    for sink, documents in (("mongodb", in_mongodb), ("kafka", list(in_kafka.values()))):
        for document in documents:
            answer = expected[sink][document["request_id"]]
            assert answer.case.digit is not None
            assert answer.task is not None
            assert answer.case.digit.is_answer(document["prediction"])
            assert document["task_id"] == answer.task["task_id"]
            assert (document["pipeline_id"], document["inference_model_id"]) == ("full", tenant.name)


def assert_uploads(tenant: Tenant, answers: list[Answer]) -> None:
    """Every task has an upload, and nothing that was refused has one."""
    images = {answer.task["task_id"]: answer.case.image for answer in answers if answer.task}
    contents = {key.rpartition("/")[2]: content for key, content in tenant.uploads().items()}
    assert contents == {task_id: hashlib.md5(image).hexdigest() for task_id, image in images.items()}  # noqa: S324
    days = {(datetime.now(UTC) - timedelta(days=ago)).strftime("uploads/%Y/%m/%d") for ago in (0, 1)}
    assert {key.rpartition("/")[0] for key in tenant.uploads()} <= days


def test_priorities_where_the_broker_has_them(stack: FullStack, broker: Broker) -> None:
    if broker.name == "quorum":
        assert_refused(stack)
    else:
        assert_overtakes(stack)


def assert_refused(stack: FullStack) -> None:
    (digit,) = distinct_digits(1)
    refused = stack.post(digit.png, priority="9")
    assert (refused.status_code, refused.json()["field"]) == (400, "metadata.priority")
    assert "quorum queues of RabbitMQ before 4.3 keep the order of acceptance" in refused.json()["detail"]


def assert_overtakes(stack: FullStack) -> None:
    usual, urgent = distinct_digits(2)
    predictors = [stack.predictor(worker) for worker in WORKERS]
    for predictor in predictors:
        predictor.suspend()
    waiting = [stack.submit(usual.png) for _ in range(100)]
    wait_until(lambda: stack.task(waiting[0])["status"] == "running", timeout_s=60, what="a batch is running")
    overtaking = stack.submit(urgent.png, priority="9")
    for predictor in predictors:
        predictor.resume()

    first = stack.task(overtaking, wait_s=60)
    tasks = [stack.task(task_id, wait_s=60) for task_id in waiting]
    assert {task["status"] for task in (first, *tasks)} == {"succeeded"}
    # A worker holds a few messages already; the others were on the queue.
    assert sum(first["started_at"] < task["started_at"] for task in tasks) >= 50


def test_an_erased_task_leaves_nothing_behind(stack: FullStack) -> None:
    """Tasks that are delivered, dead, running and waiting: looked for in every store."""
    tenant, person = stack.tenant, f"person-{uuid.uuid4().hex}"
    images = [np.random.default_rng().uniform(0, 16, 64).astype("<f4").tobytes() for _ in range(4)]
    options = {"metadata": METADATA, "request_id": person}
    delivered = stack.post(
        images[0], headers={"Idempotency-Key": f"key of {person}"}, metadata=METADATA, request_id=f"{person}-1"
    ).json()["task_id"]
    dead = a_dead_letter(tenant, person, images[1])
    tenant.wait_delivered(*SINKS)
    tenant.compact_topic()

    predictors = [stack.predictor(worker) for worker in WORKERS]
    for predictor in predictors:
        predictor.suspend()
    others = [stack.submit(images[2], metadata=METADATA) for _ in range(60)]
    waiting = [stack.submit(image, **options) for image in images[2:]]
    sought = [text.encode() for text in (delivered, dead, *waiting, person)]
    assert len(tenant.traces(*sought, images[0], images[1], images[3])) > 10

    single = requests.delete(f"{stack.url}/tasks/{delivered}?erase=true", timeout=60)
    whole = requests.delete(f"{stack.url}/tasks", params={"request_id": person, "erase": "true"}, timeout=60)
    for predictor in predictors:
        predictor.resume()

    def progress() -> dict[str, Any]:
        document: dict[str, Any] = requests.get(stack.url + single.headers["Location"], timeout=60).json()
        return document

    wait_until(lambda: progress()["status"] == "done", timeout_s=60, what="the sinks have erased the result")
    assert progress()["stores"] == dict.fromkeys(("records", "images", "kafka", "mongodb"), "erased")
    result, tombstone = (record for record in tenant.records() if record.key == f"{person}-1".encode())
    assert (result.value is None, tombstone.value, tombstone.headers) == (False, None, [])
    assert (whole.status_code, set(whole.json()["task_ids"])) == (200, {dead, *waiting})
    answers = [requests.get(f"{stack.url}/tasks/{task_id}", timeout=60) for task_id in (delivered, dead, *waiting)]
    assert {answer.status_code for answer in answers} == {404}
    wait_until(
        lambda: not tenant.traces(*sought, images[0], images[1], images[3]),
        timeout_s=60,
        what="workers have dropped the messages that they held",
    )
    assert {stack.task(task_id, wait_s=60)["status"] for task_id in others} == {"succeeded"}
    assert tenant.traces(*sought, images[0], images[1], images[3]) == []


def a_dead_letter(tenant: Tenant, request_id: str, image: bytes) -> str:
    """A task that was given up, with its image; its id. No worker of the stack takes part."""
    request = a_request(request_id=request_id, image=image, queue=f"nobody-{tenant.name}")
    tenant.store.accept(request, enqueue=None, max_queue_depth=0)
    tenant.store.lease("w", [request.task_id])
    tenant.store.start("w", [request.task_id])
    tenant.store.note_death("w", [request.task_id])
    assert move_to_dead_letters(tenant.store, tenant.objects, "w", tenant.store.get(request.task_id))
    return request.task_id
