"""Sinks of a task's result: as configured, or some of those as a request asks; and none is none."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from api_rig import RAW_METADATA, FakeWorker, assert_problem, encoded_form, form, post, raw_form, raw_image, services_of
from flask import Flask
from flask.testing import FlaskClient
from support.waiting import until

from api.components import components_of


class Outboxes:
    """An API with sinks, and what lies in their outboxes."""

    def __init__(self, app: Flask, client: redis.Redis) -> None:
        self.app = app
        self.client: FlaskClient = app.test_client()
        self._redis = client

    def classify(self, **fields: Any) -> list[str]:
        """Names of the outboxes that the result of such a request lies in."""
        request = encoded_form([raw_image(3)], form(metadata=RAW_METADATA, **fields))
        task_id = self.client.post("/inference", headers={"Prefer": "respond-async"}, **request).json["task_id"]
        FakeWorker(services_of(self.app), self._redis).work_off()
        deliveries = self.client.get(f"/tasks/{task_id}").json["deliveries"]
        assert {one["status"] for one in deliveries} <= {"pending"}
        asked = [one["sink"] for one in deliveries]
        prefix = services_of(self.app).settings.task_store.key_prefix
        for sink in ("jsonl", "mongodb", "kafka"):
            entries = self._redis.xrange(f"{prefix}:outbox:{sink}")
            assert sum(fields[b"task_id"].decode() == task_id for _, fields in entries) == (sink in asked)
        return sorted(asked)


@pytest.fixture
def outboxes(make_app: Any, redis_client: redis.Redis) -> Any:
    return lambda **settings: Outboxes(make_app(**settings), redis_client)


@pytest.mark.parametrize(
    ("settings", "sinks"),
    [
        ({"ensemble": True}, ["kafka"]),
        ({"ensemble": False}, ["mongodb"]),
        ({"sinks": ("jsonl", "mongodb", "kafka")}, ["jsonl", "kafka", "mongodb"]),
        ({"sinks": ()}, []),
    ],
    ids=str,
)
def test_results_go_where_the_configuration_says(outboxes: Any, settings: dict[str, Any], sinks: list[str]) -> None:
    assert outboxes(**settings).classify() == sinks


@pytest.mark.parametrize("sinks", [["kafka"], ["jsonl", "kafka"], []], ids=str)
def test_a_request_names_some_of_them_or_none(outboxes: Any, sinks: list[str]) -> None:
    configured = outboxes(sinks=("jsonl", "kafka"))
    assert configured.classify(sinks=",".join(sinks)) == sinks


def test_one_that_is_named_twice_gets_it_once(outboxes: Any) -> None:
    assert outboxes(sinks=("jsonl", "kafka")).classify(sinks="kafka,kafka") == ["kafka"]


def test_a_request_names_no_other(outboxes: Any) -> None:
    configured = outboxes(ensemble=True)
    problem = assert_problem(post(configured.client, raw_form(sinks="jsonl")), 400, "invalid_metadata")
    assert problem["field"] == "metadata.sinks"
    assert "kafka" in problem["expected"]


def test_a_full_outbox_refuses_what_would_come_to_it_and_nothing_else(outboxes: Any) -> None:
    configured = outboxes(sinks=("jsonl", "kafka"), outbox={"max_entries": 2})
    for _ in range(2):
        configured.classify(sinks="kafka")
    components_of(configured.app).submissions.parts.admission._outbox._answers.clear()  # as half a second later
    for fields in ({}, {"sinks": "kafka"}):
        response = post(configured.client, raw_form(**fields), headers={"Prefer": "respond-async"})
        problem = assert_problem(response, 503, "service_unavailable")
        assert "2 results wait for kafka" in problem["detail"]
        assert int(response.headers["Retry-After"]) > 0
    assert configured.classify(sinks="jsonl") == ["jsonl"]
    assert configured.classify(sinks="") == []


def test_an_outbox_whose_oldest_result_is_too_old_refuses_too(outboxes: Any) -> None:
    configured = outboxes(sinks=("kafka",), outbox={"max_age_s": 0.05})
    configured.classify()

    def is_refused() -> bool:
        components_of(configured.app).submissions.parts.admission._outbox._answers.clear()
        return bool(post(configured.client, headers={"Prefer": "respond-async"}).status_code == 503)

    until(is_refused, "the refusal")
