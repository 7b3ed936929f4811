"""Calls of the API, shared by both clients: which requests they send, and how they read the answers."""

from __future__ import annotations

import platform
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from rohe_inference._version import __version__
from rohe_inference.batches import Batch, BatchProgress
from rohe_inference.errors import Conflict, UnexpectedAnswer, WaitTimeout
from rohe_inference.images import EncodedImage, ImageSource, encode
from rohe_inference.messages import Reply, Request
from rohe_inference.options import Item, known_options
from rohe_inference.results import Json
from rohe_inference.retries import Retries
from rohe_inference.service import CallerKey, Erasure, Model, ServiceStatus, StoredImage, Upload
from rohe_inference.steps import Load, Pause, Steps
from rohe_inference.submissions import (
    PREFER_WAIT,
    RESPOND_ASYNC,
    WAIT_S,
    as_item,
    batch_request,
    load,
    single_request,
)
from rohe_inference.subscriptions import BatchSubscription, ServiceSubscription, TaskSubscription
from rohe_inference.tasks import Prediction, Task

#: A synchronous request without `deadline_s` may take that of the service, which is not known here, in seconds.
_USUAL_DEADLINE_S = 60.0
#: The service answers at most this time after a deadline, in seconds.
_DEADLINE_GRACE_S = 10.0
#: A wait that the service ended earlier is followed by a pause: it stops, or allows no waits. In seconds.
_SHORT_WAIT_S = 0.5
_USER_AGENT = f"rohe-inference/{__version__} Python/{platform.python_version()}"

T = TypeVar("T")
P = TypeVar("P", Task, Batch)


class Calls:
    """Calls to one service with one API key."""

    def __init__(self, api_key: str | None, retries: Retries, *, new_key: Callable[[], str] = lambda: uuid.uuid4().hex) -> None:
        """`new_key` makes Idempotency-Keys."""
        self.retries = retries
        self._new_key = new_key
        self._headers = {"User-Agent": _USER_AGENT, **({"Authorization": f"Bearer {api_key}"} if api_key else {})}

    def request(self, method: str, path: str, params: Mapping[str, str] | None = None, *, patience_s: float = 0.0) -> Request:
        """Make a request without a body."""
        return Request(method, path, params or {}, self._headers, patience_s=patience_s)

    def headers(self, idempotency_key: str | None, others: Mapping[str, str]) -> dict[str, str]:
        """Make the headers of a submission; a new key for it, if there is none."""
        return {**self._headers, "Idempotency-Key": idempotency_key or self._new_key(), **others}

    def ask(self, request: Request, read: Callable[[Json], T], *, max_elapsed_s: float | None = None) -> Steps[T]:
        """Send a request, and read the answer."""
        reply = yield from self.retries.exchange(request, max_elapsed_s=max_elapsed_s)
        return read_document(reply, read)

    # One image

    def predict(self, image: ImageSource, key: str | None, options: Mapping[str, Any]) -> Steps[Prediction]:
        """See `Client.predict`."""
        deadline_s = options.get("deadline_s")
        patience_s = _DEADLINE_GRACE_S + (deadline_s or _USUAL_DEADLINE_S)
        request = yield from self._single(image, key, options, {}, patience_s)
        return (yield from self.ask(request, Prediction.from_json, max_elapsed_s=deadline_s))

    def submit(self, image: ImageSource, key: str | None, options: Mapping[str, Any]) -> Steps[Task]:
        """See `Client.submit`."""
        request = yield from self._single(image, key, options, RESPOND_ASYNC, 0.0)
        return (yield from self.ask(request, Task.from_json, max_elapsed_s=options.get("deadline_s")))

    def wait(self, task: Task | str, timeout_s: float | None) -> Steps[Task]:
        """See `Client.wait`."""
        found = yield from self._wait(self.request("GET", task_path(task)), Task.from_json, timeout_s)
        if not found.is_ended:
            raise _wait_timeout(f"the task is still {found.status}", task_id=found.task_id)
        return found

    def task(self, task: Task | str) -> Steps[Task]:
        """See `Client.task`."""
        return self.ask(self.request("GET", task_path(task)), Task.from_json)

    def task_events(self, task: Task | str) -> TaskSubscription:
        """See `Client.events`."""
        return TaskSubscription(self.request("GET", f"{task_path(task)}/events"), self.retries)

    def cancel(self, task: Task | str) -> Steps[Task]:
        """See `Client.cancel`. A task that was canceled before is no error: an attempt without an answer may have done it."""
        try:
            return (yield from self.ask(self.request("DELETE", task_path(task)), Task.from_json))
        except Conflict:
            found = yield from self.task(task)
            if found.status != "canceled":
                raise
            return found

    def replay(self, task: Task | str, key: str | None) -> Steps[Task]:
        """See `Client.replay`."""
        request = replace(self.request("POST", f"{task_path(task)}/replay"), headers=self.headers(key, {}))
        return self.ask(request, Task.from_json)

    def erase(self, task: Task | str) -> Steps[Erasure]:
        """See `Client.erase`."""
        return self.ask(self.request("DELETE", task_path(task), {"erase": "true"}), Erasure.from_json)

    def erase_request(self, request_id: str) -> Steps[list[Erasure]]:
        """See `Client.erase_request`."""
        request = self.request("DELETE", "/tasks", {"request_id": request_id, "erase": "true"})
        found = [(yield from self.ask(request, Erasure.from_json))]
        while found[-1].has_more:
            found.append((yield from self.ask(request, Erasure.from_json)))
        return found

    def erasure(self, erasure: Erasure | str) -> Steps[Erasure]:
        """See `Client.erasure`."""
        erasure_id = erasure if isinstance(erasure, str) else erasure.erasure_id
        return self.ask(self.request("GET", f"/erasures/{quote(erasure_id, safe='')}"), Erasure.from_json)

    def image(self, task: Task | str) -> Steps[StoredImage]:
        """See `Client.image`."""
        reply = yield from self.retries.exchange(self.request("GET", f"{task_path(task)}/image"))
        reply.check()
        shape = reply.headers.get("array-shape")
        sizes = tuple(int(size) for size in shape.split(",")) if shape else None
        return StoredImage(reply.body, reply.media_type, sizes, reply.headers.get("array-dtype"))

    def upload(self, image: ImageSource) -> Steps[str]:
        """See `Client.upload`."""
        encoded: EncodedImage = yield Load(partial(encode, image))
        upload = yield from self.ask(self.request("POST", "/uploads"), Upload.from_json)
        request = Request(upload.method, upload.url, headers=upload.headers, content=encoded.data)
        reply = yield from self.retries.exchange(request)
        reply.check()
        return upload.image_url

    # Many images

    def batch(self, images: Iterable[ImageSource | Item], key: str | None, options: Mapping[str, Any]) -> Steps[Batch]:
        """See `Client.batch`."""
        found = yield from self._batch(images, key, options, PREFER_WAIT)
        return found if found.is_ended else (yield from self.wait_batch(found, None))

    def submit_batch(self, images: Iterable[ImageSource | Item], key: str | None, options: Mapping[str, Any]) -> Steps[Batch]:
        """See `Client.submit_batch`."""
        return self._batch(images, key, options, RESPOND_ASYNC)

    def wait_batch(self, batch: BatchProgress | str, timeout_s: float | None) -> Steps[Batch]:
        """See `Client.wait_batch`."""
        found = yield from self._wait(self.request("GET", batch_path(batch)), Batch.from_json, timeout_s)
        if not found.is_ended:
            raise _wait_timeout("the batch still runs", batch_id=found.batch_id)
        return found

    def get_batch(self, batch: BatchProgress | str) -> Steps[Batch]:
        """See `Client.get_batch`."""
        return self.ask(self.request("GET", batch_path(batch)), Batch.from_json)

    def batch_events(self, batch: BatchProgress | str) -> BatchSubscription:
        """See `Client.batch_events`."""
        return BatchSubscription(self.request("GET", f"{batch_path(batch)}/events"), self.retries)

    def cancel_batch(self, batch: BatchProgress | str) -> Steps[Batch]:
        """See `Client.cancel_batch`; as in `cancel`, a batch that was canceled before is no error."""
        try:
            return (yield from self.ask(self.request("DELETE", batch_path(batch)), Batch.from_json))
        except Conflict:
            found = yield from self.get_batch(batch)
            if not found.counts["canceled"]:
                raise
            return found

    # The service

    def page(self, query: Mapping[str, str]) -> Steps[tuple[list[Task], str | None]]:
        """Return the tasks of a page, and the cursor of the next one; None if there is none."""

        def read(json: Json) -> tuple[list[Task], str | None]:
            return [Task.from_json(task) for task in json["tasks"]], json.get("next_cursor")

        return self.ask(self.request("GET", "/tasks", query), read)

    def service_events(self, query: Mapping[str, str]) -> ServiceSubscription:
        """See `Client.all_events`."""
        return ServiceSubscription(self.request("GET", "/events", query), self.retries)

    def key(self) -> Steps[CallerKey]:
        """See `Client.key`."""
        return self.ask(self.request("GET", "/key"), CallerKey.from_json)

    def models(self) -> Steps[list[Model]]:
        """See `Client.models`."""
        return self.ask(self.request("GET", "/models"), lambda json: [Model.from_json(model) for model in json["models"]])

    def model(self, name: str) -> Steps[Model]:
        """See `Client.model`."""
        return self.ask(self.request("GET", f"/models/{quote(name, safe='')}"), Model.from_json)

    def status(self) -> Steps[ServiceStatus]:
        """See `Client.status`."""
        return self.ask(self.request("GET", "/status"), ServiceStatus.from_json)

    def _single(
        self, image: ImageSource, key: str | None, options: Mapping[str, Any], headers: Mapping[str, str], patience_s: float
    ) -> Steps[Request]:
        wanted = known_options(options)
        loaded = yield Load(partial(load, Item(image)))
        return single_request(loaded, self.headers(key, headers), wanted, patience_s=patience_s)

    def _batch(
        self, images: Iterable[ImageSource | Item], key: str | None, options: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Steps[Batch]:
        wanted = known_options(options)
        items = [as_item(image) for image in images]
        loaded = yield Load(lambda: [load(item) for item in items])
        request = batch_request(loaded, self.headers(key, headers), wanted)
        return (yield from self.ask(request, Batch.from_json, max_elapsed_s=wanted.get("deadline_s")))

    def _wait(self, request: Request, read: Callable[[Json], P], timeout_s: float | None) -> Steps[P]:
        """Ask until a task or batch has ended, or the time is over."""
        began = self.retries.now()
        while True:
            asked = self.retries.now()
            left_s = None if timeout_s is None else max(0.0, began + timeout_s - asked)
            wait_s = WAIT_S if left_s is None else min(WAIT_S, left_s)
            poll = replace(request, params={"wait": f"{wait_s:g}"}, patience_s=wait_s)
            found = yield from self.ask(poll, read, max_elapsed_s=left_s)
            waited_s = self.retries.now() - asked
            if found.is_ended or (left_s is not None and waited_s >= left_s):
                return found
            if waited_s < min(_SHORT_WAIT_S, wait_s):
                yield Pause(min(_SHORT_WAIT_S, wait_s) - waited_s)


def task_path(task: Task | str) -> str:
    """Return the path of a task."""
    return f"/tasks/{quote(task if isinstance(task, str) else task.task_id, safe='')}"


def batch_path(batch: BatchProgress | str) -> str:
    """Return the path of a batch."""
    return f"/batches/{quote(batch if isinstance(batch, str) else batch.batch_id, safe='')}"


def read_document(reply: Reply, read: Callable[[Json], T]) -> T:
    """Read the answer to a request that succeeded. Raises ApiError, UnexpectedAnswer."""
    document = reply.document()
    try:
        return read(document)
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedAnswer(f"the answer is not as this client knows it ({error!r}): {str(document)[:200]}") from error


def query_of_tasks(
    *,
    status: str | Collection[str] | None,
    model: str | None,
    request_id: str | None,
    owner: str | None,
    since: datetime | str | float | None = None,
    prediction: bool = False,
    limit: int | None = None,
) -> dict[str, str]:
    """Make the query of a list of tasks. Raises ValueError: the time has no time zone."""
    if isinstance(since, datetime):
        if since.tzinfo is None:
            raise ValueError("since has no time zone: use datetime.now(timezone.utc) and the like")
        since = since.isoformat()
    wanted = {
        "status": status if isinstance(status, str) or status is None else ",".join(status),
        "model": model,
        "request_id": request_id,
        "owner": owner,
        "since": since,
        "prediction": "true" if prediction else None,
        "limit": limit,
    }
    return {name: str(value) for name, value in wanted.items() if value is not None}


def _wait_timeout(detail: str, **ids: str) -> WaitTimeout:
    return WaitTimeout(detail, status=504, code="wait_timeout", raw=ids)
