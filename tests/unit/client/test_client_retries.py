"""Retries of the client: what is sent again, when, for how long, and that nothing is submitted twice by it."""

from __future__ import annotations

import pickle
from itertools import count
from typing import Any

import pytest
from client_answers import NOT_JSON, PREDICTION, batch, task
from rohe_inference import (
    NO_RETRIES,
    ApiError,
    Conflict,
    ConnectionFailed,
    InvalidRequest,
    Overloaded,
    RetryPolicy,
    ServerFault,
    ServiceUnavailable,
    UnexpectedAnswer,
    WaitTimeout,
)
from rohe_inference.messages import Reply, Request
from rohe_inference.retries import Retries
from rohe_inference.steps import Pause
from support.client_callers import MakeCaller
from support.scripted_server import RESET, Scripted, problem, scripted_server

TRUNCATED = Scripted(document=PREDICTION.document, sent=20)
OVERLOADED = problem(429, "overloaded", retry_after_s=0.01)
IMAGE = b"image"


@pytest.mark.parametrize(
    "failure",
    [
        RESET,
        TRUNCATED,
        OVERLOADED,
        problem(408, "request_timeout"),
        problem(503, "service_unavailable", retry_after=0),
        problem(503, "service_unavailable", task_id="t1", retry_after=0),
        Scripted(502, body=b"<html>Bad Gateway</html>"),
        Scripted(503, body=b""),
        Scripted(504, body=b"upstream timed out"),
    ],
    ids=["reset", "truncated", "429", "408", "503", "unknown whether accepted", "bad gateway", "empty 503", "proxy's 504"],
)
def test_submission_is_repeated_with_its_key(make_caller: MakeCaller, failure: Scripted) -> None:
    with scripted_server(failure, failure, PREDICTION) as server:
        prediction = make_caller(server.url).call("predict", IMAGE)

    assert (prediction.label, prediction.task_id) == ("seven", "t1")
    assert len(server.requests) == 3
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1
    assert all(IMAGE in request.body for request in server.requests)


def test_each_submission_has_a_key_of_its_own(make_caller: MakeCaller) -> None:
    with scripted_server(PREDICTION) as server:
        caller = make_caller(server.url)
        caller.call("predict", IMAGE)
        caller.call("predict", IMAGE)
        caller.call("predict", IMAGE, idempotency_key="mine")

    first, second, third = (request.headers["idempotency-key"] for request in server.requests)
    assert first != second
    assert third == "mine"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(400, "invalid_image", field="image", expected="PNG"), InvalidRequest),
        (problem(409, "idempotency_conflict"), Conflict),
        (problem(409, "change_in_progress", retry_after=0), Conflict),
        (problem(413, "payload_too_large"), InvalidRequest),
        (problem(500, "prediction_failed", task_id="t1"), ServerFault),
        (problem(504, "wait_timeout", task_id="t1"), WaitTimeout),
        (problem(504, "deadline_exceeded", task_id="t1"), TimeoutError),
        (Scripted(413, body=b"<html>Request Entity Too Large</html>"), InvalidRequest),
    ],
    ids=lambda value: value.status if isinstance(value, Scripted) else value.__name__,
)
def test_final_answers_are_not_asked_for_again(make_caller: MakeCaller, answer: Scripted, kind: type[Exception]) -> None:
    with scripted_server(answer) as server, pytest.raises(kind) as raised:
        make_caller(server.url).call("predict", IMAGE)

    assert len(server.requests) == 1
    assert isinstance(raised.value, ApiError)
    assert raised.value.status == answer.status


def test_error_has_the_members_of_the_problem(make_caller: MakeCaller) -> None:
    answer = problem(400, "invalid_image", field="image", expected="PNG or JPEG", task_id="t1")
    with scripted_server(answer) as server, pytest.raises(InvalidRequest) as raised:
        make_caller(server.url).call("predict", IMAGE)

    error = raised.value
    assert (error.code, error.status, error.field, error.expected) == ("invalid_image", 400, "image", "PNG or JPEG")
    assert (error.task_id, error.request_id, error.detail) == ("t1", "request-1", "it is invalid_image")
    assert str(error) == "it is invalid_image (400 invalid_image, field image, expected PNG or JPEG, task t1, request request-1)"


def test_error_can_be_sent_to_another_process() -> None:
    error = Reply(
        504, {"x-request-id": "r"}, b'{"status": 504, "code": "wait_timeout", "detail": "late", "task_id": "t1"}'
    ).error()
    found = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own

    assert isinstance(found, WaitTimeout)
    assert (str(found), found.task_id) == (str(error), "t1")


@pytest.mark.parametrize("answer", [NOT_JSON, Scripted(document={"hello": 1}), Scripted(301, headers={"Location": "https://a/"})])
def test_answer_of_another_server_is_told(make_caller: MakeCaller, answer: Scripted) -> None:
    with scripted_server(answer) as server, pytest.raises(UnexpectedAnswer):
        make_caller(server.url).call("predict", IMAGE)

    assert len(server.requests) == 1


def test_last_refusal_is_raised_when_the_time_is_over(make_caller: MakeCaller) -> None:
    refusal = problem(429, "overloaded", retry_after=0, retry_after_s=0.02)
    policy = RetryPolicy(max_elapsed_s=0.1)
    with scripted_server(refusal) as server, pytest.raises(Overloaded):
        make_caller(server.url, retries=policy).call("predict", IMAGE)

    assert 2 <= len(server.requests) <= 6


def test_wait_that_would_pass_the_bound_is_not_begun(make_caller: MakeCaller) -> None:
    with scripted_server(problem(503, "service_unavailable", retry_after=3600)) as server, pytest.raises(ServiceUnavailable):
        make_caller(server.url).call("predict", IMAGE)

    assert len(server.requests) == 1


def test_deadline_bounds_the_retries_too(make_caller: MakeCaller) -> None:
    with scripted_server(problem(429, "overloaded", retry_after_s=5)) as server, pytest.raises(Overloaded):
        make_caller(server.url).call("predict", IMAGE, deadline_s=2)

    assert len(server.requests) == 1
    assert b'"deadline_s": 2' in server.requests[0].body


def test_nothing_is_repeated_without_retries(make_caller: MakeCaller) -> None:
    with scripted_server(RESET, PREDICTION) as server, pytest.raises(ConnectionFailed, match=server.url):
        make_caller(server.url, retries=NO_RETRIES).call("predict", IMAGE)

    assert len(server.requests) == 1


def test_address_without_a_service_is_told_soon(make_caller: MakeCaller) -> None:
    with scripted_server(PREDICTION) as server:
        pass
    policy = RetryPolicy(max_elapsed_s=3600, first_contact_s=0.05, first_delay_s=0.01)
    with pytest.raises(ConnectionFailed, match=server.url):
        make_caller(server.url, retries=policy).call("predict", IMAGE)


def test_cancellation_whose_answer_was_lost_succeeds(make_caller: MakeCaller) -> None:
    with scripted_server(RESET, problem(409, "task_already_finished"), task("canceled")) as server:
        found = make_caller(server.url).call("cancel", "t1")

    assert found.status == "canceled"
    assert [request.method for request in server.requests] == ["DELETE", "DELETE", "GET"]


def test_cancellation_of_a_task_that_succeeded_is_a_conflict(make_caller: MakeCaller) -> None:
    with scripted_server(problem(409, "task_already_finished"), task("succeeded")) as server, pytest.raises(Conflict):
        make_caller(server.url).call("cancel", "t1")


def test_cancellation_of_a_batch_whose_answer_was_lost_succeeds(make_caller: MakeCaller) -> None:
    answers = (RESET, problem(409, "task_already_finished"), batch("succeeded", "canceled"))
    with scripted_server(*answers) as server:
        assert make_caller(server.url).call("cancel_batch", "b1").counts["canceled"] == 1


class TestPolicy:
    """The pauses, on a clock of the test."""

    REQUEST = Request("GET", "/")

    def pauses(self, policy: RetryPolicy, outcomes: list[Reply | ConnectionFailed], *, answer_s: float = 0.0) -> list[float]:
        """Drive a call; gives the pauses until it ends."""
        now = 0.0
        retries = Retries(policy, clock=lambda: now, draw=lambda: 1.0)
        retries.note_answer()
        steps = retries.exchange(self.REQUEST)
        found: list[float] = []
        step: Any = next(steps)
        for number in count():
            try:
                if isinstance(step, Pause):
                    found.append(step.seconds)
                    now += step.seconds
                    step = steps.send(None)
                    continue
                now += answer_s
                outcome = outcomes[min(number // 2, len(outcomes) - 1)]
                step = steps.throw(outcome) if isinstance(outcome, Exception) else steps.send(outcome)
            except (StopIteration, ConnectionFailed):
                return found
        raise AssertionError("a call ends")

    def test_bound_of_the_pause_doubles_up_to_its_maximum(self) -> None:
        policy = RetryPolicy(max_elapsed_s=60, first_delay_s=1, max_delay_s=8)

        assert self.pauses(policy, [ConnectionFailed("gone")]) == [1, 2, 4, 8, 8, 8, 8, 8, 8]

    def test_pause_is_a_random_part_of_its_bound(self) -> None:
        draws = iter([0.25, 0.5])
        retries = Retries(RetryPolicy(first_delay_s=1), draw=lambda: next(draws))

        assert [retries.backoff_s(0), retries.backoff_s(1)] == [0.25, 1.0]

    @pytest.mark.parametrize(
        ("headers", "body", "pause_s"),
        [
            ({"retry-after": "7"}, b"", 7),
            ({"retry-after": "7"}, b'{"status": 429, "code": "overloaded", "retry_after_s": 6.25}', 6.25),
            ({"retry-after": "-3"}, b"", 0),
            ({"retry-after": "soon"}, b"", 0.25),
            ({}, b"", 0.25),
        ],
    )
    def test_retry_after_is_the_pause(self, headers: dict[str, str], body: bytes, pause_s: float) -> None:
        refusal = Reply(429, headers, body)

        assert self.pauses(RetryPolicy(), [refusal, Reply(200, {}, b"{}")]) == [pause_s]

    def test_date_of_retry_after_is_understood(self) -> None:
        past = Reply(503, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, b"")

        assert past.retry_after_s() == 0

    def test_time_of_the_attempts_counts(self) -> None:
        policy = RetryPolicy(max_elapsed_s=100)

        assert len(self.pauses(policy, [ConnectionFailed("timed out")], answer_s=30)) == 3
