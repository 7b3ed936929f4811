"""Routes of event streams: changes of a task, a batch, or all tasks, as they happen."""

from __future__ import annotations

from http import HTTPStatus

from flask import Blueprint, Response, request

from api.components import components
from api.events.batch_subject import BatchEvents, BatchItems, BatchSubject, batch_event_id
from api.events.encoding import EVENT_STREAM, EventSource, event_stream
from api.events.list_subject import ListEvents, ListSubject
from api.events.streams import EventStream, closed_on_error
from api.events.task_subject import TaskEvents, TaskSubject, task_event_id
from api.forms.event_query import is_last_event, read_event_filter, read_with_vectors
from api.security.caller import caller
from api.security.task_access import task_access
from api.views.responses import streamed_response

blueprint = Blueprint("events", __name__)


@blueprint.get("/tasks/<task_id>/events")
def task_events(task_id: str) -> Response:
    """Stream the task, each time that its status changes, until it has ended."""
    with_vector = read_with_vectors()
    store, hub = components().services.store, components().events
    stream, subject = hub.open(lambda: TaskSubject(task_id), TaskSubject.key_of(task_id), owner=caller().owner)
    with closed_on_error(stream):
        hub.load(subject)
        record = task_access().check(subject.record, task_id)
        if record.status.is_terminal and is_last_event(task_event_id(record.status, record.attempts)):
            return _nothing_more(stream)
        return _events(stream, TaskEvents(subject, store, request.root_path, with_vector=with_vector))


@blueprint.get("/batches/<batch_id>/events")
def batch_events(batch_id: str) -> Response:
    """Stream the counts of the batch and its items, each when it has ended, until all have ended."""
    with_vectors = read_with_vectors()
    store, hub = components().services.store, components().events
    batch = task_access().get_batch(batch_id)
    stream, subject = hub.open(lambda: BatchSubject(batch), BatchSubject.key_of(batch_id), owner=caller().owner)
    with closed_on_error(stream):
        hub.load(subject)
        if subject.has_ended and is_last_event(batch_event_id(subject.head())):
            return _nothing_more(stream)
        return _events(stream, BatchEvents(subject, BatchItems(subject, store, with_vectors=with_vectors)))


@blueprint.get("/events")
def events() -> Response:
    """Stream the newest tasks, then all that are accepted or change."""
    wanted = task_access().narrow(read_event_filter())
    store, hub = components().services.store, components().events
    stream, subject = hub.open(lambda: ListSubject(wanted, store), ListSubject.key_of(wanted), owner=caller().owner)
    with closed_on_error(stream):
        subject.page(request.root_path)  # an error is a problem, not an empty stream
        return _events(stream, ListEvents(subject, request.root_path))


def _events(stream: EventStream, source: EventSource) -> Response:
    return streamed_response(stream, event_stream(stream, source), EVENT_STREAM)


def _nothing_more(stream: EventStream) -> Response:
    """The answer to a client that has had the last event: a browser's EventSource stops reconnecting."""
    stream.close()
    response = Response(status=HTTPStatus.NO_CONTENT)
    del response.headers["Content-Type"]
    return response
