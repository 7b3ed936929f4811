"""Event streams: what the client makes of them, and that a stream which breaks is opened again with nothing lost or repeated."""

from __future__ import annotations

import json
from typing import Any

import pytest
from client_answers import NOT_JSON, batch_document, item_document, task_document
from rohe_inference import BatchItem, BatchProgress, ConnectionFailed, NotFound, RetryPolicy, UnexpectedAnswer
from support.client_callers import MakeCaller
from support.scripted_server import RESET, Scripted, problem, scripted_server

_RETRY = b"retry: 1\n\n"
_COMMENT = b": keep-alive\n\n"


def event(name: str, event_id: str, document: Any) -> bytes:
    return f"id: {event_id}\nevent: {name}\ndata: {json.dumps(document)}\n\n".encode()


def stream(*events: bytes, is_cut: bool = False) -> Scripted:
    """A stream that the service ends after these events; or one that breaks off within the next one."""
    body = _RETRY + b"".join(events)
    headers = {"Content-Type": "text/event-stream; charset=utf-8"}
    return (
        Scripted(body=body + b"data: {", headers=headers, sent=len(body) + 3) if is_cut else Scripted(body=body, headers=headers)
    )


def task_event(status: str) -> bytes:
    return event("task", status, task_document(status))


def progress_event(*statuses: str) -> bytes:
    document = batch_document(*statuses)
    return event("batch", "-".join(statuses), {name: document[name] for name in ("batch_id", "status", "counts")})


def item_event(index: int, status: str = "succeeded") -> bytes:
    return event("item", f"item.{index}", {"index": index, **item_document(status)})


class TestTask:
    def test_states_until_the_end(self, make_caller: MakeCaller) -> None:
        whole = stream(task_event("queued"), _COMMENT, event("novel", "x", {}), task_event("running"), task_event("succeeded"))
        with scripted_server(whole) as server:
            states = make_caller(server.url).collect("events", "t1")

        assert [task.status for task in states] == ["queued", "running", "succeeded"]
        assert states[-1].get_result().label == "seven"
        assert (server.requests[0].target, server.requests[0].headers["accept"]) == ("/tasks/t1/events", "text/event-stream")

    @pytest.mark.parametrize(
        "broken",
        [
            [stream(task_event("queued"), task_event("running"), is_cut=True)],
            [stream(task_event("queued"), task_event("running"))],
            [
                stream(task_event("queued"), is_cut=True),
                RESET,
                problem(503, "service_unavailable"),
                stream(task_event("running")),
            ],
        ],
        ids=["cut", "drained", "restarted"],
    )
    def test_stream_that_breaks_is_opened_again(self, make_caller: MakeCaller, broken: list[Scripted]) -> None:
        rest = stream(task_event("running"), task_event("succeeded"))
        with scripted_server(*broken, rest) as server:
            states = make_caller(server.url).collect("events", "t1")

        assert [task.status for task in states] == ["queued", "running", "succeeded"]
        assert "last-event-id" not in server.requests[0].headers
        assert server.requests[-1].headers["last-event-id"] == "running"

    def test_unknown_task_is_told(self, make_caller: MakeCaller) -> None:
        with scripted_server(problem(404, "task_not_found", task_id="t1")) as server, pytest.raises(NotFound):
            make_caller(server.url).collect("events", "t1")

        assert len(server.requests) == 1

    @pytest.mark.parametrize("answer", [NOT_JSON, stream(b"event: task\ndata: {}\n\n"), stream(b"event: task\ndata: hello\n\n")])
    def test_answer_without_events_is_told(self, make_caller: MakeCaller, answer: Scripted) -> None:
        with scripted_server(answer) as server, pytest.raises(UnexpectedAnswer):
            make_caller(server.url).collect("events", "t1")

    def test_service_that_stays_away_is_told(self, make_caller: MakeCaller) -> None:
        policy = RetryPolicy(max_elapsed_s=0.1, first_delay_s=0.01, max_delay_s=0.02)
        with scripted_server(stream(task_event("queued")), RESET) as server, pytest.raises(ConnectionFailed):
            make_caller(server.url, retries=policy).collect("events", "t1")


def test_batch_is_told_once_over_broken_streams(make_caller: MakeCaller) -> None:
    first = stream(progress_event("running", "queued"), item_event(1), progress_event("running", "succeeded"), is_cut=True)
    second = stream(progress_event("running", "succeeded"), item_event(1), item_event(0), progress_event("failed", "succeeded"))
    with scripted_server(first, second) as server:
        found = make_caller(server.url).collect("batch_events", "b1")

    items = [one.index for one in found if isinstance(one, BatchItem)]
    counts = [one.counts["succeeded"] for one in found if isinstance(one, BatchProgress)]
    assert (items, counts) == ([1, 0], [0, 1, 1])
    assert found[-1].is_ended


def test_changes_of_all_tasks(make_caller: MakeCaller) -> None:
    changes = event("tasks", "1", {"tasks": [task_document("queued")], "omitted": 7})
    with scripted_server(stream(changes), problem(403, "forbidden")) as server:
        iterator = make_caller(server.url)
        with pytest.raises(Exception, match="forbidden"):
            iterator.collect("all_events", status="queued", model="digits")

    assert server.requests[0].target == "/events?status=queued&model=digits"
    assert server.requests[1].headers["last-event-id"] == "1"
