"""Client for programs with threads, or without."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from http import HTTPStatus
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

import httpx2
from typing_extensions import Self, Unpack

from rohe_inference.batches import Batch, BatchItem, BatchProgress, CompletedImage
from rohe_inference.calls import Calls, query_of_tasks
from rohe_inference.completion import Chunk, Completion, chunks_of
from rohe_inference.errors import ConnectionFailed, InferenceError
from rohe_inference.images import ImageSource
from rohe_inference.messages import Reply, Request
from rohe_inference.options import Item, TaskOptions
from rohe_inference.retries import Retries, RetryPolicy
from rohe_inference.service import CallerKey, Erasure, Model, ServiceStatus, StoredImage, TasksChanged
from rohe_inference.steps import Pause, Send, Step, Steps
from rohe_inference.subscriptions import Subscription
from rohe_inference.tasks import Prediction, Task
from rohe_inference.transport import (
    EVENT_STREAM,
    JSON_LINES,
    MAX_EVENT_BYTES,
    arguments,
    connection_failed,
    media_type,
    reply_of,
    service_key,
    service_url,
)

__all__ = ["Client"]

E = TypeVar("E")
T = TypeVar("T")


class Client:
    """Client of one service; threads may share it.

    Every method raises ConnectionFailed, UnexpectedAnswer or a kind of ApiError if the call fails; overload, restarts of the
    service and broken connections are waited out as `retries` says. Nothing is classified twice by that: each submission carries
    an Idempotency-Key, which all of its attempts share.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        retries: RetryPolicy | None = None,
        http: httpx2.Client | None = None,
    ) -> None:
        """Describe the service; nothing is sent yet.

        Args:
            url: its address; default: `ROHE_INFERENCE_URL`, else `http://127.0.0.1:30005`.
            api_key: default: `ROHE_INFERENCE_API_KEY`, else none.
            timeout_s: seconds without a byte that end an attempt; time that the service was asked to wait is added.
            retries: default: `RetryPolicy()`, which gives up after two minutes; `NO_RETRIES` sends everything once.
            http: sends the requests, with proxies, certificates and limits of your own; the caller closes it.
        """
        self._url = service_url(url)
        self._timeout_s = timeout_s
        self._owns_http = http is None
        self._http = http or httpx2.Client()
        self._calls = Calls(service_key(api_key), Retries(retries or RetryPolicy()))

    def close(self) -> None:
        """Close the connections."""
        if self._owns_http:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # One image

    def predict(self, image: ImageSource, *, idempotency_key: str | None = None, **options: Unpack[TaskOptions]) -> Prediction:
        """Classify an image and wait for the result.

        Args:
            image: path, `s3://BUCKET/KEY`, bytes of a file, open file, Pillow picture or numpy array.
            idempotency_key: a later call with the same key and image gives the same task; default: a new one.
            **options: see TaskOptions; `deadline_s` bounds the wait too.

        Raises:
            InvalidRequest: the image or an option is wrong; `code`, `field` and `expected` say how.
            DeadlineExceeded: there was no result before the deadline.
        """
        return self._run(self._calls.predict(image, idempotency_key, options))

    def submit(self, image: ImageSource, *, idempotency_key: str | None = None, **options: Unpack[TaskOptions]) -> Task:
        """Accept an image and return its task at once; see `predict`, `wait` and `events`."""
        return self._run(self._calls.submit(image, idempotency_key, options))

    def wait(self, task: Task | str, *, timeout_s: float | None = None) -> Task:
        """Wait until a task has ended, and return it.

        Args:
            task: the task or its id.
            timeout_s: seconds; None waits as long as it takes, which is bounded by the task's deadline.

        Raises:
            WaitTimeout: it has not ended in that time, and goes on.
        """
        return self._run(self._calls.wait(task, timeout_s))

    def task(self, task: Task | str) -> Task:
        """Return a task as it is now."""
        return self._run(self._calls.task(task))

    def events(self, task: Task | str) -> Iterator[Task]:
        """Iterate over the states of a task: the state now, then each change; ends when the task has ended.

        Results are without the vector, which `task` has. A connection that breaks is opened again, also to a service that
        was restarted.
        """
        return self._events(self._calls.task_events(task))

    def cancel(self, task: Task | str) -> Task:
        """Cancel a task. Raises Conflict: it has ended already."""
        return self._run(self._calls.cancel(task))

    def replay(self, task: Task | str, *, idempotency_key: str | None = None) -> Task:
        """Run the image of a task that has ended as a new task. Raises NotFound: the image is not kept any more."""
        return self._run(self._calls.replay(task, idempotency_key))

    def erase(self, task: Task | str) -> Erasure:
        """Remove everything that the service has of a task, and cancel it; stores that are `pending` follow later."""
        return self._run(self._calls.erase(task))

    def erase_request(self, request_id: str) -> list[Erasure]:
        """Erase all tasks with this request id."""
        return self._run(self._calls.erase_request(request_id))

    def erasure(self, erasure: Erasure | str) -> Erasure:
        """Return the progress of an erasure, which the service knows for a day."""
        return self._run(self._calls.erasure(erasure))

    def image(self, task: Task | str) -> StoredImage:
        """Return the image of a task. Raises NotFound: it is not kept any more."""
        return self._run(self._calls.image(task))

    def upload(self, image: ImageSource) -> str:
        """Put an image into the object store, and return the `s3://BUCKET/KEY` that `predict` and the other methods take.

        The bytes of large images do not pass through the API then, and several requests may name one image.
        """
        return self._run(self._calls.upload(image))

    # Many images

    def batch(
        self, images: Iterable[ImageSource | Item], *, idempotency_key: str | None = None, **options: Unpack[TaskOptions]
    ) -> Batch:
        """Classify images in one request and wait for all results; for more than about 100, use `as_completed`.

        Each image is a task of its own, and a bad one fails alone: see each item's `error`.

        Args:
            images: see `predict`; an `Item` has options of its own.
            idempotency_key: stands for all images, in this order; default: a new one.
            **options: of all images.

        Raises:
            InvalidRequest: there are more images, or more bytes, than the service takes in one request.
        """
        return self._run(self._calls.batch(images, idempotency_key, options))

    def submit_batch(
        self, images: Iterable[ImageSource | Item], *, idempotency_key: str | None = None, **options: Unpack[TaskOptions]
    ) -> Batch:
        """Accept images in one request and return the batch at once; see `batch`, `wait_batch` and `batch_events`."""
        return self._run(self._calls.submit_batch(images, idempotency_key, options))

    def wait_batch(self, batch: BatchProgress | str, *, timeout_s: float | None = None) -> Batch:
        """Wait until all tasks of a batch have ended; see `wait`."""
        return self._run(self._calls.wait_batch(batch, timeout_s))

    def get_batch(self, batch: BatchProgress | str) -> Batch:
        """Return a batch as it is now."""
        return self._run(self._calls.get_batch(batch))

    def batch_events(self, batch: BatchProgress | str) -> Iterator[BatchProgress | BatchItem]:
        """Iterate over a batch: each item once it has ended, and the counts as they change; ends with the batch.

        Results are without the vector, which `get_batch` has.
        """
        return self._events(self._calls.batch_events(batch))

    def cancel_batch(self, batch: BatchProgress | str) -> Batch:
        """Cancel the tasks of a batch that have not ended. Raises Conflict: all had ended."""
        return self._run(self._calls.cancel_batch(batch))

    def as_completed(
        self,
        images: Iterable[ImageSource | Item],
        *,
        batch_size: int = 32,
        concurrency: int = 8,
        idempotency_key: str | None = None,
        done: Collection[int] = (),
        **options: Unpack[TaskOptions],
    ) -> Iterator[CompletedImage]:
        """Classify any number of images, and yield each as it ends; an image that fails is yielded with its `error`.

        Images are read and sent in batches, some at a time, as the caller takes the results: thousands need little memory here,
        and do not fill the service's queue. Leaving the loop early sends nothing more.

        To resume a run that was interrupted, give the same images in the same order, the same `idempotency_key` and
        `batch_size`, and the indices of the images that are done: batches that the service knows are not run again.

        Args:
            images: see `batch`; may be a generator.
            batch_size: most images of a request.
            concurrency: requests at a time.
            idempotency_key: begins the keys of all requests; the service knows a key for a day. Default: a new one.
            done: indices that are not wanted; a batch that consists of them is not sent.
            **options: of all images.
        """
        if batch_size < 1 or concurrency < 1:
            raise ValueError("batch_size and concurrency are at least 1")
        completion = Completion(self._calls, options, done)
        chunks = chunks_of(images, batch_size=batch_size, key=idempotency_key, done=done)
        return self._completed(completion, chunks, concurrency)

    # The service

    def tasks(
        self,
        *,
        status: str | Collection[str] | None = None,
        model: str | None = None,
        request_id: str | None = None,
        owner: str | None = None,
        since: datetime | str | float | None = None,
        prediction: bool = False,
        page_size: int = 100,
    ) -> Iterator[Task]:
        """Iterate over tasks, newest first; pages are fetched as they are needed.

        Args:
            status: one or several statuses.
            owner: of the key that sent them; a key of the role `predict` lists those of its own owner alone.
            since: accepted then or later: a time with a time zone, its text as in RFC 3339, or seconds since the epoch.
            prediction: whether results have their `prediction`.
            page_size: tasks of a request, 1 to 500.
        """
        query = query_of_tasks(
            status=status, model=model, request_id=request_id, owner=owner, since=since, prediction=prediction, limit=page_size
        )
        return self._pages(query)

    def all_events(
        self,
        *,
        status: str | Collection[str] | None = None,
        model: str | None = None,
        request_id: str | None = None,
        owner: str | None = None,
    ) -> Iterator[TasksChanged]:
        """Iterate over changes of tasks, without end: first the newest ones, then all that were accepted or changed."""
        return self._events(
            self._calls.service_events(query_of_tasks(status=status, model=model, request_id=request_id, owner=owner))
        )

    def key(self) -> CallerKey:
        """Return owner, role and limits of the API key."""
        return self._run(self._calls.key())

    def models(self) -> list[Model]:
        """Return the configured models."""
        return self._run(self._calls.models())

    def model(self, name: str) -> Model:
        """Return a model with its labels and workers. Raises NotFound."""
        return self._run(self._calls.model(name))

    def status(self) -> ServiceStatus:
        """Return stores, queues, sinks, workers and problems of the service."""
        return self._run(self._calls.status())

    # How calls are carried out

    def _run(self, steps: Steps[T], pause: Callable[[float], None] = time.sleep) -> T:
        """Perform the steps of a call, and return its answer."""
        outcome: Any = None
        failure: Exception | None = None
        while True:
            try:
                step = steps.send(outcome) if failure is None else steps.throw(failure)
            except StopIteration as stop:
                answer: T = stop.value
                return answer
            outcome = failure = None
            try:
                outcome = self._perform(step, pause)
            except Exception as error:  # noqa: BLE001 - the call decides about it
                failure = error

    def _perform(self, step: Step, pause: Callable[[float], None]) -> Any:
        if isinstance(step, Send):
            return self._send(step.request)
        if isinstance(step, Pause):
            return pause(step.seconds)
        return step.function()

    def _send(self, request: Request) -> Reply:
        try:
            with self._http.stream(**arguments(request, self._url, self._timeout_s)) as response:
                if request.receive is None or media_type(response) != JSON_LINES:
                    return reply_of(response, response.read())
                for line in response.iter_lines():
                    request.receive(line)
                return reply_of(response, b"")
        except httpx2.HTTPError as error:
            raise connection_failed(error, self._url) from error

    def _events(self, subscription: Subscription[E]) -> Iterator[E]:
        while True:
            failure: Reply | ConnectionFailed | None = None
            try:
                with self._http.stream(**arguments(subscription.request(), self._url, self._timeout_s)) as response:
                    if response.status_code != HTTPStatus.OK or media_type(response) != EVENT_STREAM:
                        failure = reply_of(response, response.read())
                    else:
                        for event in httpx2.EventSource(response, MAX_EVENT_BYTES):
                            yield from subscription.receive(event.event, event.data, event.id, event.retry)
                            if subscription.is_ended:
                                return
            except httpx2.HTTPError as error:
                failure = connection_failed(error, self._url)
            time.sleep(subscription.pause_after(failure))

    def _pages(self, query: Mapping[str, str]) -> Iterator[Task]:
        cursor: str | None = ""
        while cursor is not None:
            tasks, cursor = self._run(self._calls.page({**query, "cursor": cursor} if cursor else query))
            yield from tasks

    def _completed(self, completion: Completion, chunks: Iterator[Chunk], concurrency: int) -> Iterator[CompletedImage]:
        """Send chunks from threads that end with the program; the caller's thread takes the images from their iterator."""
        outcomes: SimpleQueue[CompletedImage | Exception | None] = SimpleQueue()
        stopped = threading.Event()
        running = 0
        try:
            while True:
                while running < concurrency and (chunk := next(chunks, None)) is not None:
                    steps = completion.complete(chunk, outcomes.put)
                    threading.Thread(target=self._complete, args=(steps, outcomes.put, stopped), daemon=True).start()
                    running += 1
                if not running:
                    return
                outcome = outcomes.get()
                if isinstance(outcome, CompletedImage):
                    yield outcome
                elif outcome is None:
                    running -= 1
                else:
                    raise outcome
        finally:
            stopped.set()

    def _complete(
        self, steps: Steps[None], put: Callable[[CompletedImage | Exception | None], None], stopped: threading.Event
    ) -> None:
        """Carry out the call for one chunk; None after its last outcome."""

        def pause(seconds: float) -> None:
            if stopped.wait(seconds):
                raise InferenceError("the caller left the loop")

        try:
            self._run(steps, pause)
        except Exception as error:  # noqa: BLE001 - raised in the caller's thread
            put(error)
        else:
            put(None)
