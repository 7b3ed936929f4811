"""Two owners: no key sees, cancels or finds the tasks of another owner's keys (P9), on every route."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from api_rig import FakeWorker, MakeApp, assert_problem, encoded_form, form, raw_form, raw_image, services_of
from callers import ALICE, BOB, READER, ROOT, ClientOf, find_callers
from event_reading import events_in
from flask import Flask
from flask.testing import FlaskClient
from support.contract import operations
from werkzeug.test import TestResponse

from inference.access import Caller
from inference.domain import TaskStatus
from inference.task_store import TaskFilter

ASYNC = {"Prefer": "respond-async"}
JSON_LINES = {"Accept": "application/jsonl"}
UNKNOWN = "0" * 32
#: Operations with the id of a task or batch, as (method, path).
WITH_IDS = [(method, path) for method, path, _ in operations() if "{task_id}" in path or "{batch_id}" in path]
#: Operations that say 404 of the id itself, not of what the task has.
READING = [(method, path) for method, path in WITH_IDS if method == "GET"]
CHANGING = [("DELETE", "/tasks/{task_id}"), ("DELETE", "/batches/{batch_id}"), ("POST", "/tasks/{task_id}/replay")]
Clients = Callable[[Caller], ClientOf]


class Owned:
    """A task and a batch of an owner, and requests about them or about unknown ones."""

    def __init__(self, owner: ClientOf, app: Flask) -> None:
        self.task_id, self.batch_id = submit(owner), submit_batch(owner)
        self._store = services_of(app).store

    def open(self, client: ClientOf, method: str, path: str, headers: dict[str, str]) -> TestResponse:
        return client.open(path.format(task_id=self.task_id, batch_id=self.batch_id), method, headers=headers)

    def text(self, answer: TestResponse) -> str:
        """The answer, in which these ids are replaced by the unknown one."""
        return answer.get_data(as_text=True).replace(self.task_id, UNKNOWN).replace(self.batch_id, UNKNOWN)

    def statuses(self) -> set[TaskStatus]:
        """Statuses of all tasks."""
        states = self._store.get_states([self.task_id, *self._store.get_batch(self.batch_id).task_ids])
        return {state.status for state in states if state}

    def count(self) -> int:
        """Number of tasks of all owners."""
        return len(self._store.list_tasks(TaskFilter()).task_ids)


def submit(client: ClientOf, **fields: str) -> str:
    response = client.post("/inference", data=raw_form(**fields), headers=ASYNC)
    assert response.status_code == 202, response.data
    task_id: str = response.get_json()["task_id"]
    return task_id


def post_batch(client: ClientOf, *images: bytes, headers: dict[str, str] | None = None) -> TestResponse:
    encoded = encoded_form(images or (raw_image(), raw_image()), form(metadata={"shape": "8,8,1", "dtype": "float32"}))
    return client.post("/inference/batch", headers=ASYNC | (headers or {}), **encoded)


def submit_batch(client: ClientOf, *images: bytes) -> str:
    response = post_batch(client, *images)
    assert response.status_code == 202, response.data
    batch_id: str = response.get_json()["batch_id"]
    return batch_id


def listed(response: TestResponse) -> list[str]:
    return [task["task_id"] for task in response.get_json()["tasks"]]


@pytest.fixture
def app(app: Flask) -> Flask:
    find_callers(app)
    return app


@pytest.fixture
def by(client: FlaskClient) -> Clients:
    """The client of a caller."""
    return lambda caller: ClientOf(client, caller)


@pytest.fixture(params=[False, True], ids=["open", "ended"])
def owned(request: pytest.FixtureRequest, by: Clients, app: Flask, idle_worker: FakeWorker) -> Owned:
    """A task and a batch of Alice."""
    owned = Owned(by(ALICE), app)
    if request.param:
        idle_worker.work_off()
    return owned


def test_every_route_with_an_id_is_in_the_list_of_operations(app: Flask) -> None:
    routes = {rule.rule for rule in app.url_map.iter_rules() if rule.arguments & {"task_id", "batch_id"}}
    assert {path.replace("{", "<").replace("}", ">") for _, path in WITH_IDS} == routes
    assert set(CHANGING) <= set(WITH_IDS)


@pytest.mark.parametrize(("method", "path"), WITH_IDS)
@pytest.mark.parametrize("headers", [{}, JSON_LINES], ids=["", "lines"])
def test_what_belongs_to_another_owner_is_as_unknown(
    by: Clients, owned: Owned, method: str, path: str, headers: dict[str, str]
) -> None:
    statuses, count = owned.statuses(), owned.count()
    queries = ("", "?wait=5") if (method, path) in {("GET", "/tasks/{task_id}"), ("GET", "/batches/{batch_id}")} else ("",)
    for query in queries:
        answer = owned.open(by(BOB), method, path + query, headers)
        unknown = by(BOB).open(path.format(task_id=UNKNOWN, batch_id=UNKNOWN) + query, method, headers=headers)
        assert answer.status_code == unknown.status_code
        assert answer.status_code in {403, 404}, answer.get_data()  # 403: operations of other roles
        assert owned.text(answer) == unknown.get_data(as_text=True)
    assert (owned.statuses(), owned.count()) == (statuses, count), "nothing has changed, and nothing was accepted"


@pytest.mark.parametrize(("method", "path"), READING)
@pytest.mark.parametrize("caller", [ALICE, READER, ROOT], ids=str)
def test_the_owner_and_those_who_see_all_may_read(by: Clients, owned: Owned, caller: Caller, method: str, path: str) -> None:
    with owned.open(by(caller), method, path, {}) as answer:
        assert answer.status_code == 200


@pytest.mark.parametrize(("method", "path"), CHANGING)
def test_the_owner_and_admins_may_change(by: Clients, app: Flask, idle_worker: FakeWorker, method: str, path: str) -> None:
    for caller in (ALICE, ROOT):
        owned = Owned(by(ALICE), app)
        if method == "POST":
            idle_worker.work_off()
        assert owned.open(by(READER), method, path, {}).status_code in {403, 404}
        answer = owned.open(by(caller), method, path, {})
        assert answer.status_code in {200, 202}, answer.get_data()
        if method == "POST":
            assert answer.get_json()["owner"] == "alice", "the new task belongs to the owner of the first"


def test_what_was_accepted_without_keys_is_for_those_who_see_all(by: Clients, client: FlaskClient) -> None:
    task_id = client.post("/inference", data=raw_form(request_id="r"), headers=ASYNC).get_json()["task_id"]
    for caller, is_seen in ((ALICE, False), (READER, True), (ROOT, True)):
        assert (by(caller).get(f"/tasks/{task_id}").status_code == 200) is is_seen
        assert listed(by(caller).get("/tasks?request_id=r")) == ([task_id] if is_seen else [])
    assert "owner" not in client.get(f"/tasks/{task_id}").get_json()


class TestLists:
    @pytest.mark.parametrize("query", ["", "&request_id=r", "&model=digits", "&status=queued"])
    def test_a_list_has_the_tasks_of_the_owner(self, by: Clients, query: str) -> None:
        tasks: dict[str, list[str]] = {ALICE.owner: [], BOB.owner: []}
        for caller in (ALICE, BOB, BOB, ALICE, BOB):
            tasks[caller.owner].append(submit(by(caller), request_id="r"))
        for caller in (ALICE, BOB):
            found, path = list[str](), f"/tasks?limit=1{query}"
            while path:
                page = by(caller).get(path)
                found += listed(page)
                path = page.get_json().get("next", "")
            assert found == tasks[caller.owner][::-1]
        for caller in (READER, ROOT):
            assert sorted(listed(by(caller).get(f"/tasks?limit=10{query}"))) == sorted(tasks[ALICE.owner] + tasks[BOB.owner])

    @pytest.mark.parametrize("query", ["", "&request_id=r", "&status=queued"])
    def test_of_one_owner(self, by: Clients, query: str) -> None:
        tasks = [submit(by(caller), request_id="r") for caller in (ALICE, BOB, ALICE)]
        for caller in (ALICE, READER, ROOT):
            page = by(caller).get(f"/tasks?owner=alice&limit=1{query}").get_json()
            assert [task["task_id"] for task in page["tasks"]] == [tasks[2]]
            assert listed(by(caller).get(page["next"])) == [tasks[0]]
        assert listed(by(ROOT).get(f"/tasks?owner=nobody{query}")) == []
        for path in ("/tasks", "/events"):
            refusals = [by(BOB).get(f"{path}?owner={owner}{query}") for owner in ("alice", "nobody")]
            assert assert_problem(refusals[0], 403, "forbidden", field="owner") == refusals[1].get_json()

    @pytest.mark.parametrize("owner", ["", "-", "a:request:r", "a b", "a" * 65])
    def test_of_what_is_no_owner(self, by: Clients, owner: str) -> None:
        for path in ("/tasks", "/events"):
            assert_problem(by(ROOT).get(path, query_string={"owner": owner}), 400, "invalid_request", field="owner")

    def test_events_of_one_owner(self, by: Clients) -> None:
        with by(ROOT).get("/events?owner=alice") as stream:
            events = events_in(iter(stream.response))
            assert next(iter(stream.response)) == b"retry: 1000\n\n"
            assert next(events).data["tasks"] == []
            submit(by(BOB))
            task_id = submit(by(ALICE))
            assert [task["task_id"] for task in next(events).data["tasks"]] == [task_id]

    @pytest.mark.parametrize("query", ["", "?request_id=r", "?status=queued"])
    def test_events_of_a_list_are_those_of_the_owner(self, by: Clients, query: str) -> None:
        streams = {caller: by(caller).get(f"/events{query}") for caller in (ALICE, BOB, READER)}
        events = {caller: events_in(iter(stream.response)) for caller, stream in streams.items()}
        try:
            for caller, stream in streams.items():
                assert next(iter(stream.response)) == b"retry: 1000\n\n"
                assert next(events[caller]).data["tasks"] == []
            for caller in (ALICE, BOB):
                task_id = submit(by(caller), request_id="r")
                for reader in (caller, READER):
                    event = next(events[reader])
                    assert [task["task_id"] for task in event.data["tasks"]] == [task_id]
                    assert "omitted" not in event.data
        finally:
            for stream in streams.values():
                stream.close()


class TestIdempotency:
    def test_of_tasks(self, by: Clients) -> None:
        def send(client: ClientOf, number: int) -> TestResponse:
            return client.post("/inference", data=raw_form(number), headers=ASYNC | {"Idempotency-Key": "k"})

        first, other = send(by(ALICE), 1), send(by(BOB), 2)
        assert (first.status_code, other.status_code) == (202, 202)
        assert "Idempotent-Replayed" not in other.headers
        for client, number, answer in ((by(ALICE), 1, first), (by(BOB), 2, other)):
            again = send(client, number)
            assert (again.headers["Task-Id"], again.headers["Idempotent-Replayed"]) == (answer.headers["Task-Id"], "true")
        conflict = assert_problem(send(by(BOB), 1), 409, "idempotency_conflict")
        assert conflict["task_id"] == other.headers["Task-Id"]

    def test_of_batches(self, by: Clients) -> None:
        answers = [post_batch(by(caller), headers={"Idempotency-Key": "k"}) for caller in (ALICE, BOB, ALICE)]
        assert ["Idempotent-Replayed" in answer.headers for answer in answers] == [False, False, True]
        first, other, again = (answer.headers["Batch-Id"] for answer in answers)
        assert first == again != other


def test_a_batch_of_which_no_item_is_valid_has_an_owner(by: Clients) -> None:
    batch_id = post_batch(by(ALICE), b"no image").headers["Batch-Id"]
    assert [by(caller).get(f"/batches/{batch_id}").status_code for caller in (ALICE, BOB, READER)] == [200, 404, 200]


def test_images_of_v2_have_an_owner(by: Clients, app: Flask, worker: FakeWorker) -> None:
    tensor = {"name": "image", "shape": [1, 8, 8, 1], "datatype": "FP32", "data": [0.0] * 64}
    answer = by(ALICE).post("/v2/models/digits/infer", json={"id": "r", "inputs": [tensor]})
    assert answer.status_code == 200, answer.get_data()
    assert worker.messages
    found = [services_of(app).store.list_tasks(TaskFilter("r", owner=caller.owner)).task_ids for caller in (ALICE, BOB)]
    assert [len(task_ids) for task_ids in found] == [1, 0]


class TestUploads:
    def test_of_another_owner_cannot_be_named(self, by: Clients) -> None:
        upload = by(ALICE).post("/uploads").get_json()
        assert by(ALICE).put(upload["url"].partition("localhost")[2], data=raw_image()).status_code == 200
        answers = [self.name(by(caller), upload["image"]["url"]) for caller in (BOB, ALICE, ROOT)]
        assert [answer.status_code for answer in answers] == [404, 202, 202]
        unknown = upload["image"]["url"][:-4] + "0000"
        assert answers[0].get_data() == self.name(by(BOB), unknown).get_data()

    def test_the_image_of_a_task_cannot_be_named_by_its_key(self, by: Clients, app: Flask) -> None:
        task_id = submit(by(ALICE))
        key = services_of(app).store.get(task_id).item.object_key
        keys = (key, f"dead-letters/{task_id}", "uploads/2026/01/31/unknown")
        bucket = services_of(app).settings.uploads.bucket
        answers = [self.name(by(caller), f"s3://{bucket}/{key}") for key in keys for caller in (ALICE, BOB)]
        assert [answer.status_code for answer in answers] == [400] * len(answers)
        assert self.name(by(ROOT), f"s3://{bucket}/{key}").status_code == 202

    def test_other_objects_are_for_all_owners(self, by: Clients, app: Flask) -> None:
        services = services_of(app)
        services.objects.put("photos/17.raw", raw_image())
        url = f"s3://{services.settings.uploads.bucket}/photos/17.raw"
        assert [self.name(by(caller), url).status_code for caller in (ALICE, BOB)] == [202, 202]

    @staticmethod
    def name(client: ClientOf, url: str) -> TestResponse:
        document = {"image": {"url": url}, "shape": [8, 8, 1], "dtype": "float32"}
        return client.post("/inference", json=document, headers=ASYNC)


def test_one_owner_does_not_take_all_event_streams(make_app: MakeApp) -> None:
    app = make_app(api={"max_event_streams": 4})
    find_callers(app)
    alice, bob = (ClientOf(app.test_client(), one) for one in (ALICE, BOB))
    streams = [alice.get("/events") for _ in range(2)]
    refused = alice.get("/events")
    assert_problem(refused, 429, "rate_limited")
    assert refused.headers["Retry-After"] == "5"
    assert_problem(post_batch(alice, headers={"Accept": "application/jsonl"}), 429, "rate_limited")
    streams += [bob.get("/events")]
    assert [stream.status_code for stream in streams] == [200, 200, 200]
    streams[0].close()
    streams += [alice.get("/events")]
    assert streams[-1].status_code == 200
    for stream in streams[1:]:
        stream.close()
