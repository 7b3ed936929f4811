"""Webhooks at acceptance: where a request may name one, defaults, refusals, and the delivery that a task shows."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import redis
from api_rig import (
    RAW_METADATA,
    FakeWorker,
    MakeApp,
    accept_with,
    assert_problem,
    encoded_form,
    form,
    post_batch,
    raw_image,
    services_of,
)
from callers import ALICE, BOB, ClientOf, find_callers
from flask import Flask
from pydantic import SecretStr
from werkzeug.test import TestResponse

from api.acceptance.webhooks import WebhookPolicy
from inference.errors import ConfigurationError
from inference.keys.entries import OwnerSettings, OwnerWebhook
from inference.keys.owner_webhooks import OwnerWebhooks
from inference.settings import WebhookSettings
from inference.webhook import WebhookAttempt, WebhookDelivery, WebhookEvent, WebhookState

URL = "https://hooks.example/path?query"
SECRET = "whsec_c2l4dGVlbiBieXRlcyBhbmQgc2l4dGVlbiBtb3Jl"
ON = {"secret": SECRET}
ALL = [str(event) for event in WebhookEvent]


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app(webhooks=ON)


def submit(app: Flask, **fields: Any) -> TestResponse:
    """Send one image; `metadata` joins the usual metadata, other fields are fields of the form."""
    metadata = RAW_METADATA | fields.pop("metadata", {})
    request = encoded_form([raw_image(3)], form(metadata=metadata, **fields))
    return app.test_client().post("/inference", headers={"Prefer": "respond-async"}, **request)


def chosen(response: TestResponse) -> tuple[str, list[str]] | None:
    assert response.status_code == 202, response.text
    webhook = response.json.get("webhook")
    return webhook and (webhook["url"], webhook["events"])


@pytest.mark.parametrize(
    "value", [{"url": URL}, URL, {"url": URL, "events": ALL}, {"url": URL, "events": ",".join(ALL)}], ids=str
)
def test_a_request_names_a_webhook_in_its_metadata(app: Flask, value: Any) -> None:
    response = submit(app, metadata={"webhook": value})
    assert chosen(response) == (URL, ALL)
    assert response.json["webhook"]["status"] is None
    shown = app.test_client().get(f"/tasks/{response.json['task_id']}").json
    assert shown["webhook"] == response.json["webhook"]


@pytest.mark.parametrize("value", [URL, f'{{"url": "{URL}"}}', orjson.dumps({"url": URL, "events": ALL}).decode()])
def test_a_request_names_a_webhook_in_a_field_of_the_form_or_the_query(app: Flask, value: str) -> None:
    assert chosen(submit(app, webhook=value)) == (URL, ALL)
    request = encoded_form([raw_image(3)], form(metadata=RAW_METADATA))
    response = app.test_client().post(
        "/inference", query_string={"webhook": value}, headers={"Prefer": "respond-async"}, **request
    )
    assert chosen(response) == (URL, ALL)


def test_the_same_webhook_may_be_in_two_places_and_another_may_not(app: Flask) -> None:
    assert chosen(submit(app, metadata={"webhook": {"url": URL}}, webhook=URL)) == (URL, ALL)
    response = submit(app, metadata={"webhook": {"url": URL}}, webhook=f"{URL}2")
    assert_problem(response, 400, "invalid_metadata", field="metadata.webhook")


def test_events_are_chosen_in_any_order(app: Flask) -> None:
    response = submit(app, metadata={"webhook": {"url": URL, "events": ["task.expired", "task.failed", "task.expired"]}})
    assert chosen(response) == (URL, ["task.failed", "task.expired"])


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"url": "http://hooks.example/"}, "url"),
        ({"url": "https://127.0.0.1/"}, "url"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "url"),
        ({"url": "https://169.254.169.254/latest"}, "url"),
        ({"url": "https://2130706433/"}, "url"),
        ({"url": "https://user:password@hooks.example/"}, "url"),
        ({"url": "https://hooks.example:22/"}, "url"),
        ({"url": "https://hooks.example/a b"}, "url"),
        ({"url": "hooks.example"}, "url"),
        ({"url": ""}, "url"),
        ({"url": 7}, "url"),
        ({"url": "https://hooks.example/" + "a" * 3000}, "url"),
        ({}, "url"),
        ({"events": ["task.failed"]}, "url"),
        ({"url": URL, "events": []}, "events"),
        ({"url": URL, "events": ["task.done"]}, "events"),
        ({"url": URL, "events": "task.done"}, "events"),
        ({"url": URL, "events": [7]}, "events"),
        ({"url": URL, "events": {}}, "events"),
        ({"url": URL, "secret": "x"}, "secret"),
        (7, ""),
        (True, ""),
        ([URL], ""),
        ("{", ""),
        ("[]", "url"),
    ],
    ids=str,
)
def test_a_webhook_that_is_not_valid_is_refused_with_the_member(app: Flask, value: Any, field: str) -> None:
    response = submit(app, metadata={"webhook": value})
    problem = assert_problem(response, 400, "invalid_metadata", field=f"metadata.webhook.{field}".rstrip("."))
    assert "password" not in problem["detail"]


def test_a_misspelled_member_of_the_webhook_is_named(app: Flask) -> None:
    response = submit(app, metadata={"webhook": {"url": URL, "event": ["task.failed"]}})
    problem = assert_problem(response, 400, "invalid_metadata", field="metadata.webhook.event")
    assert problem["detail"] == "webhook has no member 'event': did you mean events?"


def test_a_misspelled_webhook_is_refused(app: Flask) -> None:
    assert_problem(submit(app, metadata={"webhoook": URL}), 400, "invalid_metadata", field="metadata.webhoook")


def test_without_a_secret_no_webhook_is_accepted(make_app: MakeApp) -> None:
    app = make_app()
    response = submit(app, webhook=URL)
    assert_problem(response, 400, "invalid_metadata", field="metadata.webhook")
    assert chosen(submit(app)) is None
    assert chosen(submit(app, webhook="false")) is None


def test_requests_that_name_none_have_the_webhook_of_the_settings(make_app: MakeApp) -> None:
    app = make_app(webhooks=ON | {"url": URL, "events": ("task.failed",)})
    assert chosen(submit(app)) == (URL, ["task.failed"])
    assert chosen(submit(app, metadata={"webhook": {"events": ["task.expired"]}})) == (URL, ["task.expired"])
    assert chosen(submit(app, metadata={"webhook": {"url": f"{URL}2"}})) == (f"{URL}2", ["task.failed"])
    assert chosen(submit(app, webhook="")) == (URL, ["task.failed"])
    for none in (False, "false"):
        assert chosen(submit(app, metadata={"webhook": none})) is None


@pytest.mark.parametrize(
    ("webhooks", "part"),
    [
        (ON | {"url": "https://127.0.0.1/"}, "webhooks.url"),
        (ON | {"private_networks": ("64:ff9b::/96",)}, "webhooks"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(make_app: MakeApp, webhooks: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigurationError, match=part):
        make_app(webhooks=webhooks)


def test_private_receivers_are_allowed_by_the_settings(make_app: MakeApp) -> None:
    app = make_app(webhooks=ON | {"allow_http": True, "ports": (8080,), "private_networks": ("10.1.0.0/16",)})
    assert chosen(submit(app, webhook="http://10.1.2.3:8080/")) == ("http://10.1.2.3:8080/", ALL)
    assert_problem(submit(app, webhook="http://10.2.2.3:8080/"), 400, "invalid_metadata", field="metadata.webhook.url")


def test_a_batch_has_webhooks_for_all_or_by_item_and_a_bad_one_fails_alone(app: Flask) -> None:
    own = [RAW_METADATA, RAW_METADATA | {"webhook": {"url": f"{URL}2"}}, RAW_METADATA | {"webhook": "https://127.0.0.1/"}]
    client = app.test_client()
    response = post_batch(client, range(3), metadata=own, webhook=URL, headers={"Prefer": "respond-async"})
    first, second, third = response.json["items"]
    assert third["status"] == "refused"
    assert third["error"]["field"] == "metadata.webhook.url"
    for item, url in ((first, URL), (second, f"{URL}2")):
        assert client.get(f"/tasks/{item['task_id']}").json["webhook"]["url"] == url


def test_an_idempotency_key_stands_for_the_webhook_too(app: Flask) -> None:
    def send(url: str) -> TestResponse:
        request = encoded_form([raw_image(3)], form(metadata=RAW_METADATA, webhook=url))
        headers = {"Prefer": "respond-async", "Idempotency-Key": "key"}
        return app.test_client().post("/inference", headers=headers, **request)

    assert send(URL).status_code == 202
    assert send(URL).headers["Idempotent-Replayed"] == "true"
    assert_problem(send(f"{URL}2"), 409, "idempotency_conflict")


def test_a_task_shows_the_delivery(app: Flask, redis_client: redis.Redis) -> None:
    task_id = submit(app, webhook=URL).json["task_id"]
    FakeWorker(services_of(app), redis_client).work_off()
    store, client = services_of(app).store, app.test_client()
    assert client.get(f"/tasks/{task_id}").json["webhook"] == {
        "url": URL,
        "events": ALL,
        "status": "pending",
        "attempts": 0,
        "last_attempts": [],
        "next_attempt_at": None,
    }
    attempt = WebhookAttempt(1_700_000_000_000, 12.5, None, "no connection to hooks.example")
    store.note_webhook(task_id, "hooks.example:443", WebhookDelivery(WebhookState.PENDING, 1, (attempt,)), retry_in_s=60)
    shown = client.get(f"/tasks/{task_id}").json["webhook"]
    assert (shown["attempts"], shown["next_attempt_at"] is None) == (1, False)
    assert shown["last_attempts"] == [
        {"at": "2023-11-14T22:13:20.000Z", "duration_ms": 12.5, "status": None, "error": "no connection to hooks.example"}
    ]
    store.note_webhook(task_id, "hooks.example:443", WebhookDelivery(WebhookState.DELIVERED, 2))
    assert client.get(f"/tasks/{task_id}").json["webhook"]["status"] == "delivered"


def test_a_replay_has_the_webhook_of_the_first_task(app: Flask, redis_client: redis.Redis) -> None:
    task_id = submit(app, metadata={"webhook": {"url": URL, "events": ["task.failed"]}}).json["task_id"]
    FakeWorker(services_of(app), redis_client).work_off()
    assert chosen(app.test_client().post(f"/tasks/{task_id}/replay")) == (URL, ["task.failed"])


def test_a_request_is_refused_while_too_many_events_wait_for_its_receiver_alone(
    make_app: MakeApp, redis_client: redis.Redis
) -> None:
    app = make_app(webhooks=ON | {"max_waiting": 1})
    assert submit(app, webhook=URL).status_code == 202
    FakeWorker(services_of(app), redis_client).work_off()
    fresh = make_app(webhooks=ON | {"max_waiting": 1})
    refused = submit(fresh, webhook=URL)
    assert_problem(refused, 503, "service_unavailable")
    assert "Retry-After" in refused.headers
    batch = post_batch(fresh.test_client(), [1], webhook=URL)
    assert_problem(batch, 503, "service_unavailable")
    assert submit(fresh, webhook="https://other.example/").status_code == 202
    assert submit(fresh).status_code == 202


def test_defaults_limits_and_secrets_are_those_of_the_owner(app: Flask) -> None:
    services = services_of(app)
    own = {"alice": OwnerSettings(webhook=OwnerWebhook(secret=SecretStr(SECRET), url=URL, events=(WebhookEvent.FAILED,)))}
    waiting: list[str] = []

    def count(receiver: str) -> int:
        waiting.append(receiver)
        return 0

    owners = OwnerWebhooks(WebhookSettings(), lambda name: own.get(name, OwnerSettings()))
    find_callers(app)
    accept_with(app, webhooks=WebhookPolicy(WebhookSettings(), owners, lambda: services.webhook_guard, count))
    client = app.test_client()
    sent = encoded_form([raw_image(3)], form(metadata=RAW_METADATA))
    answers = [
        ClientOf(client, caller).post("/inference", headers={"Prefer": "respond-async"}, **sent) for caller in (ALICE, BOB)
    ]
    assert [chosen(answer) for answer in answers] == [(URL, ["task.failed"]), None]
    assert waiting == ["alice/hooks.example:443"]
    named = encoded_form([raw_image(3)], form(metadata=RAW_METADATA, webhook=URL))
    assert_problem(ClientOf(client, BOB).post("/inference", **named), 400, "invalid_metadata", field="metadata.webhook")


def test_the_status_counts_waiting_events(app: Flask, make_app: MakeApp, redis_client: redis.Redis) -> None:
    submit(app, webhook=URL)
    FakeWorker(services_of(app), redis_client).work_off()
    status = app.test_client().get("/status").json
    assert (status["webhooks"]["waiting"], status["webhooks"]["receivers"], status["webhooks"]["receivers_down"]) == (1, 1, 0)
    off = make_app().test_client().get("/status").json
    assert any("webhooks.secret is not set" in problem for problem in off["problems"])


def test_tasks_without_a_webhook_have_no_such_member(app: Flask) -> None:
    assert "webhook" not in submit(app).json
