"""Keys in requests: where they may be, the answers to those that are not valid, and what else a key opens and closes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from api_rig import MakeApp, assert_problem, post, post_batch, raw_form, services_of
from event_reading import Watch
from flask import Flask
from flask.testing import FlaskClient
from key_rig import Keys, bearer, write_keys
from support.fake_clock import FakeClock
from support.keys import key_document, new_key
from werkzeug.test import TestResponse

from api.events.streams import EventStream
from api.security.failed_keys import MAX_FAILURES, WINDOW_S, FailedKeys
from inference.access import Role
from inference.runtime.log_context import logged_owner

ID = "0123456789abcdef0123456789abcdef"
CHALLENGE = 'Bearer realm="inference"'
INVALID = f'{CHALLENGE}, error="invalid_token"'
AuditLines = Callable[[], list[dict[str, Any]]]
COMMAND = {"command": "load_new_model", "model_id": "digits"}


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return write_keys(tmp_path)


@pytest.fixture
def app(make_app: MakeApp, keys: Keys) -> Flask:
    return make_app(security={"keys_file": keys.file})


@pytest.fixture
def audit_lines(caplog: pytest.LogCaptureFixture) -> AuditLines:
    """Reads the lines of the audit log until now."""
    caplog.set_level(logging.INFO, "audit")
    return lambda: [json.loads(found.getMessage()) for found in caplog.records if found.name == "audit"]


def challenge(response: TestResponse) -> str:
    assert_problem(response, 401, "unauthenticated")
    (found,) = response.headers.getlist("WWW-Authenticate")
    return found


class TestPlaces:
    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
    def test_authorization(self, client: FlaskClient, keys: Keys, scheme: str) -> None:
        assert client.get("/tasks", headers={"Authorization": f"{scheme} {keys.predict}"}).status_code == 200

    def test_a_header_of_its_own(self, client: FlaskClient, keys: Keys) -> None:
        assert client.get("/tasks", headers={"X-API-Key": keys.predict}).status_code == 200

    def test_the_same_key_twice(self, client: FlaskClient, keys: Keys) -> None:
        assert client.get("/tasks", headers={"X-API-Key": keys.predict, **bearer(keys.predict)}).status_code == 200

    def test_two_keys(self, client: FlaskClient, keys: Keys) -> None:
        response = client.get("/tasks", headers={"X-API-Key": keys.predict, **bearer(keys.admin)})
        assert_problem(response, 400, "invalid_request", field="X-API-Key")

    @pytest.mark.parametrize("value", ["Basic YTpi", "Bearer", "Bearer ", "Negotiate", "KEY", ""])
    def test_another_scheme(self, client: FlaskClient, keys: Keys, value: str) -> None:
        sent = value.replace("KEY", keys.predict)
        response = client.get("/tasks", headers={"Authorization": sent})
        assert challenge(response) == CHALLENGE
        assert "Bearer KEY" in response.json["expected"]
        assert keys.predict not in response.text

    def test_the_login_of_a_proxy_next_to_a_key(self, client: FlaskClient, keys: Keys) -> None:
        assert client.get("/tasks", headers={"Authorization": "Basic YTpi", "X-API-Key": keys.predict}).status_code == 200

    def test_not_in_the_query(self, client: FlaskClient, keys: Keys) -> None:
        assert challenge(client.get(f"/tasks?api_key={keys.predict}")) == CHALLENGE


class TestKeysThatAreNotValid:
    @pytest.fixture
    def wrong(self, keys: Keys) -> dict[str, str]:
        """A key by the reason for which it is not valid."""
        unknown, _ = new_key()
        return {"malformed": f"{keys.predict[:-1]}!", "unknown": unknown, "expired": keys.expired}

    @pytest.mark.parametrize("reason", ["malformed", "unknown", "expired"])
    def test_are_refused_and_logged_without_their_secret(
        self,
        client: FlaskClient,
        wrong: dict[str, str],
        reason: str,
        audit_lines: AuditLines,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        text = wrong[reason]
        response = client.get("/tasks/x", headers=bearer(text))
        assert challenge(response) == INVALID
        line = audit_lines()[-1]
        assert (line["what"], line["outcome"], line["target"]) == ("key.refused", reason, "GET /tasks/x")
        assert (line["who"], line["from"]) == ({"key_id": text[3:13]}, "127.0.0.1")
        for shown in (response.text, caplog.text):
            assert text not in shown
            assert text[14:24] not in shown

    def test_no_key_is_no_failure(self, client: FlaskClient, audit_lines: AuditLines) -> None:
        for _ in range(MAX_FAILURES + 2):
            assert challenge(client.get("/tasks")) == CHALLENGE
        assert audit_lines() == []

    def test_many_slow_down_their_address_alone(
        self, client: FlaskClient, keys: Keys, wrong: dict[str, str], audit_lines: AuditLines
    ) -> None:
        failing = bearer(wrong["unknown"])
        for _ in range(MAX_FAILURES):
            assert challenge(client.get("/tasks", headers=failing)) == INVALID
        refused = client.get("/tasks", headers=failing)
        problem = assert_problem(refused, 429, "rate_limited")
        assert 0 < problem["retry_after_s"] <= WINDOW_S
        assert 1 <= int(refused.headers["Retry-After"]) <= WINDOW_S
        assert client.get("/tasks", headers=bearer(keys.predict)).status_code == 200
        elsewhere = client.get("/tasks", headers=failing, environ_overrides={"REMOTE_ADDR": "192.0.2.7"})
        assert challenge(elsewhere) == INVALID
        assert [line["from"] for line in audit_lines()] == ["127.0.0.1"] * MAX_FAILURES + ["192.0.2.7"]

    def test_behind_a_trusted_proxy_the_clients_address_counts(
        self, make_app: MakeApp, keys: Keys, wrong: dict[str, str], audit_lines: AuditLines
    ) -> None:
        client = make_app(security={"keys_file": keys.file}, api={"trusted_proxies": ["127.0.0.1"]}).test_client()
        client.get("/tasks", headers={"X-Forwarded-For": "198.51.100.9", **bearer(wrong["unknown"])})
        assert audit_lines()[-1]["from"] == "198.51.100.9"


class TestFailedKeys:
    def fail(self, failed: FailedKeys, address: str, times: int = MAX_FAILURES) -> None:
        for _ in range(times):
            assert failed.note(address) is None

    def test_a_window_ends(self) -> None:
        clock = FakeClock()
        failed = FailedKeys(clock=clock)
        self.fail(failed, "192.0.2.7")
        clock.advance(WINDOW_S - 1)
        assert failed.note("192.0.2.7") == pytest.approx(1)
        clock.advance(1)
        self.fail(failed, "192.0.2.7")
        assert failed.note("192.0.2.7") == pytest.approx(WINDOW_S)

    @pytest.mark.parametrize(
        ("one", "other", "are_one"),
        [
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
            ("::ffff:192.0.2.7", "192.0.2.7", True),
            ("192.0.2.7", "192.0.2.8", False),
            ("", "", True),
        ],
    )
    def test_addresses_of_one_client(self, one: str, other: str, are_one: bool) -> None:
        failed = FailedKeys(clock=FakeClock())
        self.fail(failed, one)
        assert (failed.note(other) is not None) == are_one

    def test_the_table_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("api.security.failed_keys._MAX_ADDRESSES", 3)
        failed = FailedKeys(clock=FakeClock())
        self.fail(failed, "192.0.2.1")
        for last in (2, 3, 4):
            self.fail(failed, f"192.0.2.{last}", 1)
        assert len(failed._windows) == 3
        assert failed.note("192.0.2.1") is None


class TestOrder:
    def test_nothing_else_is_read_of_a_request_without_a_key(self, client: FlaskClient) -> None:
        class Unread:
            def read(self, *_: int) -> bytes:
                raise AssertionError("the body was read")

        for path in ("/inference", "/inference/batch?nothing=1", "/tasks/x/replay", "/v2/models/digits/infer"):
            unread = {"wsgi.input": Unread(), "CONTENT_LENGTH": "5"}
            assert client.post(path, environ_overrides=unread).status_code == 401
        assert challenge(client.get("/tasks/no-id?nothing=1")) == CHALLENGE

    def test_host_and_origin_come_first(self, client: FlaskClient) -> None:
        assert_problem(client.get("/tasks", headers={"Host": "evil.example"}), 421, "misdirected_request")
        assert_problem(client.post("/inference", headers={"Origin": "https://evil.example"}), 403, "cross_origin")

    def test_the_answer_has_the_headers_of_all_answers(self, client: FlaskClient) -> None:
        response = client.get("/tasks")
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Request-ID"]

    @pytest.mark.parametrize("path", ["/nothing", "/v2/nothing"])
    def test_unknown_paths(self, client: FlaskClient, keys: Keys, path: str) -> None:
        assert client.get(path).status_code == 401
        assert client.get(path, headers=bearer(keys.predict)).status_code == 404

    def test_head_is_as_get(self, client: FlaskClient, keys: Keys) -> None:
        assert client.head("/tasks").status_code == 401
        assert client.head("/tasks", headers=bearer(keys.predict)).status_code == 200
        assert client.head("/status", headers=bearer(keys.predict)).status_code == 403
        assert client.head("/health/live").status_code == 200


def test_without_a_key_the_overview_has_only_paths(client: FlaskClient, keys: Keys) -> None:
    assert client.get("/").json.keys() == {"service", "paths"}
    assert client.get("/inference", headers=bearer(keys.predict)).json["served_model"] == "digits"


class TestPagesOfListedOrigins:
    ORIGIN = "https://page.example"

    def test_may_send_a_key(self, make_app: MakeApp, keys: Keys) -> None:
        client = make_app(security={"keys_file": keys.file}, api={"cors_origins": [self.ORIGIN]}).test_client()
        asked = {"Origin": self.ORIGIN, "Access-Control-Request-Method": "GET"}
        preflight = client.options("/tasks", headers=asked)
        assert preflight.status_code == 204
        assert {"Authorization", "X-API-Key"} <= set(preflight.headers["Access-Control-Allow-Headers"].split(", "))
        refused = client.get("/tasks", headers={"Origin": self.ORIGIN})
        assert challenge(refused) == CHALLENGE
        assert refused.headers["Access-Control-Allow-Origin"] == self.ORIGIN
        assert "WWW-Authenticate" in refused.headers["Access-Control-Expose-Headers"]


class TestKeyOfTheRequest:
    def test_is_described(self, client: FlaskClient, keys: Keys) -> None:
        found = client.get("/key", headers=bearer(keys.read)).json
        assert found == {
            "owner": "read-owner",
            "role": "read",
            "key_id": keys.read[3:13],
            "limits": dict.fromkeys(found["limits"]),
            "use": {"requests_left": None, "images_today": 0, "bytes_today": 0, "open_tasks": 0},
            "expires_at": "2999-01-02T03:04:05.000Z",
        }
        assert client.get("/key", headers=bearer(keys.admin)).json["expires_at"] is None

    def test_without_keys(self, make_app: MakeApp) -> None:
        found = make_app().test_client().get("/key", headers=bearer("anything")).json
        assert (found["owner"], found["role"], found["key_id"], found["use"]) == ("", "admin", None, None)


class TestCommands:
    def send(self, client: FlaskClient, path: str, headers: dict[str, str], **environ: str) -> TestResponse:
        return client.post(path, data=COMMAND, headers=headers, environ_overrides=environ)

    def test_at_the_path_of_images_need_the_role_admin(self, client: FlaskClient, keys: Keys, audit_lines: AuditLines) -> None:
        assert_problem(self.send(client, "/inference", bearer(keys.predict)), 403, "forbidden")
        line = audit_lines()[-1]
        assert (line["what"], line["outcome"], line["who"]["owner"]) == ("command", "forbidden", "predict-owner")
        assert_problem(self.send(client, "/inference", bearer(keys.admin)), 503, "service_unavailable")  # there is no worker
        line = audit_lines()[-1]
        assert (line["command"], line["target"], line["outcome"]) == ("load_new_model", "digits", "service_unavailable")
        assert (line["who"], line["from"]) == ({"owner": "admin-owner", "key_id": keys.admin[3:13]}, "127.0.0.1")

    @pytest.mark.parametrize("path", ["/inference_service_controller", "/v2/repository/models/digits/load"])
    def test_at_paths_of_their_own_are_logged_too(
        self, client: FlaskClient, keys: Keys, audit_lines: AuditLines, path: str
    ) -> None:
        assert_problem(client.get("/status", headers=bearer(keys.predict)), 403, "forbidden")
        assert audit_lines() == []
        assert self.send(client, path, bearer(keys.predict)).status_code == 403
        (line,) = audit_lines()
        assert (line["what"], line["target"], line["outcome"]) == ("key.refused", f"POST {path}", "forbidden")
        assert (line["who"], line["from"]) == ({"owner": "predict-owner", "key_id": keys.predict[3:13]}, "127.0.0.1")

    def test_images_do_not(self, client: FlaskClient, keys: Keys) -> None:
        headers = {"Prefer": "respond-async", **bearer(keys.predict)}
        assert post(client, raw_form(command="predict"), headers=headers).status_code == 202

    @pytest.mark.parametrize("path", ["/inference", "/inference_service_controller", "/v2/repository/models/digits/load"])
    def test_switched_off(self, make_app: MakeApp, path: str) -> None:
        client = make_app(api={"commands": False}).test_client()
        sent = {"json": {"parameters": {}}} if "v2" in path else {"data": COMMAND}
        response = client.post(path, **sent)
        assert response.status_code == 403
        assert "takes no commands (api.commands)" in response.text
        assert post(client, headers={"Prefer": "respond-async"}).status_code == 202

    def test_on_a_listener_of_their_own(self, make_app: MakeApp) -> None:
        client = make_app(api={"commands": "127.0.0.1:30006"}).test_client()
        problem = assert_problem(self.send(client, "/inference", {}, SERVER_PORT="30005"), 403, "forbidden")
        assert problem["detail"] == "commands are not taken at this address"
        assert self.send(client, "/inference", {}, SERVER_PORT="30006").status_code == 503

    def test_replays_of_dead_letters_are_logged(self, client: FlaskClient, keys: Keys, audit_lines: AuditLines) -> None:
        assert_problem(client.post(f"/dead-letters/{ID}/replay", headers=bearer(keys.admin)), 404, "task_not_found")
        line = audit_lines()[-1]
        assert (line["what"], line["target"], line["outcome"]) == ("dead_letter.replay", ID, "task_not_found")


class TestUploads:
    def test_the_url_of_an_upload_needs_no_other_key(self, client: FlaskClient, keys: Keys) -> None:
        upload = client.post("/uploads", headers=bearer(keys.predict)).json
        path = upload["url"].removeprefix("http://localhost")
        assert_problem(client.put(path[:-1], data=b"bytes"), 404, "object_not_found")
        assert client.put(path, data=b"bytes").status_code == 200


class TestEventStreams:
    def test_end_when_the_key_is_revoked(self, app: Flask, client: FlaskClient, watch: Watch, keys: Keys) -> None:
        revoked, kept = (watch("/events", bearer(text)) for text in (keys.predict, keys.admin))
        assert revoked.next().data == kept.next().data == {"tasks": []}
        ring = services_of(app).keys
        admin = ring._file.content.keys[keys.admin[3:13]]
        keys.file.write_text(json.dumps(key_document(admin)), encoding="utf-8")
        ring.refresh()
        assert revoked.has_ended()
        assert challenge(client.get("/events", headers=bearer(keys.predict))) == INVALID
        task_id = post(client, headers={"Prefer": "respond-async", **bearer(keys.admin)}).json["task_id"]
        assert [task["task_id"] for task in kept.next().data["tasks"]] == [task_id]

    def test_lines_of_a_new_batch_end_too(
        self, app: Flask, client: FlaskClient, keys: Keys, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def wait(*_: object) -> None:
            pytest.fail("it waits for results")

        with post_batch(client, [7], headers={"Accept": "application/jsonl", **bearer(keys.predict)}) as response:
            texts = iter(response.iter_encoded())
            assert next(texts) == b""
            keys.file.write_text(json.dumps(key_document()), encoding="utf-8")
            services_of(app).keys.refresh()
            monkeypatch.setattr(EventStream, "wait", wait)
            (last,) = map(json.loads, texts)
        assert (last["status"], last["counts"]["queued"]) == ("running", 1)


def test_log_lines_of_a_request_name_the_owner_of_its_key(
    app: Flask, client: FlaskClient, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    view, seen = app.view_functions["tasks.list_tasks"], list[str]()

    def list_tasks() -> Any:
        seen.append(logged_owner.get())
        return view()

    monkeypatch.setitem(app.view_functions, "tasks.list_tasks", list_tasks)
    assert client.get("/tasks", headers=bearer(keys.predict)).status_code == 200
    assert (seen, logged_owner.get()) == (["predict-owner"], "")


def test_a_role_that_does_not_fit_is_403_of_v2(client: FlaskClient, keys: Keys) -> None:
    response = client.post("/v2/models/digits/infer", headers=bearer(keys.of(Role.READ)))
    assert (response.status_code, set(response.json)) == (403, {"error"})
