"""Client for programs with threads, or without."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from types import TracebackType

import httpx2
from typing_extensions import Self, Unpack

from rohe_inference.batches import Batch, BatchItem, BatchProgress, CompletedImage
from rohe_inference.images import ImageSource
from rohe_inference.options import Item, TaskOptions
from rohe_inference.retries import RetryPolicy
from rohe_inference.service import Model, ServiceStatus, StoredImage, TasksChanged
from rohe_inference.tasks import Prediction, Task

__all__ = ["Client"]


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
        raise NotImplementedError

    def close(self) -> None:
        """Close the connections."""
        raise NotImplementedError

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
        raise NotImplementedError

    def submit(self, image: ImageSource, *, idempotency_key: str | None = None, **options: Unpack[TaskOptions]) -> Task:
        """Accept an image and return its task at once; see `predict`, `wait` and `events`."""
        raise NotImplementedError

    def wait(self, task: Task | str, *, timeout_s: float | None = None) -> Task:
        """Wait until a task has ended, and return it.

        Args:
            task: the task or its id.
            timeout_s: seconds; None waits as long as it takes, which is bounded by the task's deadline.

        Raises:
            WaitTimeout: it has not ended in that time, and goes on.
        """
        raise NotImplementedError

    def task(self, task: Task | str) -> Task:
        """Return a task as it is now."""
        raise NotImplementedError

    def events(self, task: Task | str) -> Iterator[Task]:
        """Iterate over the states of a task: the state now, then each change; ends when the task has ended.

        A connection that breaks is opened again, also to a service that was restarted.
        """
        raise NotImplementedError

    def cancel(self, task: Task | str) -> Task:
        """Cancel a task. Raises Conflict: it has ended already."""
        raise NotImplementedError

    def replay(self, task: Task | str, *, idempotency_key: str | None = None) -> Task:
        """Run the image of a task that has ended as a new task. Raises NotFound: the image is not kept any more."""
        raise NotImplementedError

    def erase(self, task: Task | str) -> None:
        """Remove everything that the service has of a task."""
        raise NotImplementedError

    def image(self, task: Task | str) -> StoredImage:
        """Return the image of a task. Raises NotFound: it is not kept any more."""
        raise NotImplementedError

    def upload(self, image: ImageSource) -> str:
        """Store an image in the object store without a task; returns the `s3://BUCKET/KEY` that names it."""
        raise NotImplementedError

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
        raise NotImplementedError

    def submit_batch(
        self, images: Iterable[ImageSource | Item], *, idempotency_key: str | None = None, **options: Unpack[TaskOptions]
    ) -> Batch:
        """Accept images in one request and return the batch at once; see `batch`, `wait_batch` and `batch_events`."""
        raise NotImplementedError

    def wait_batch(self, batch: BatchProgress | str, *, timeout_s: float | None = None) -> Batch:
        """Wait until all tasks of a batch have ended; see `wait`."""
        raise NotImplementedError

    def get_batch(self, batch: BatchProgress | str) -> Batch:
        """Return a batch as it is now."""
        raise NotImplementedError

    def batch_events(self, batch: BatchProgress | str) -> Iterator[BatchProgress | BatchItem]:
        """Iterate over a batch: each item once it has ended, and the counts as they change; ends with the batch."""
        raise NotImplementedError

    def cancel_batch(self, batch: BatchProgress | str) -> Batch:
        """Cancel the tasks of a batch that have not ended. Raises Conflict: all had ended."""
        raise NotImplementedError

    def as_completed(
        self,
        images: Iterable[ImageSource | Item],
        *,
        batch_size: int = 32,
        concurrency: int = 4,
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
        raise NotImplementedError

    # The service

    def tasks(
        self,
        *,
        status: str | Collection[str] | None = None,
        model: str | None = None,
        request_id: str | None = None,
        since: datetime | str | float | None = None,
        vectors: bool = False,
        page_size: int = 100,
    ) -> Iterator[Task]:
        """Iterate over tasks, newest first; pages are fetched as they are needed.

        Args:
            status: one or several statuses.
            since: accepted then or later: a time with a time zone, its text as in RFC 3339, or seconds since the epoch.
            vectors: whether results have their `prediction`.
            page_size: tasks of a request, 1 to 500.
        """
        raise NotImplementedError

    def all_events(
        self, *, status: str | Collection[str] | None = None, model: str | None = None, request_id: str | None = None
    ) -> Iterator[TasksChanged]:
        """Iterate over changes of tasks, without end: first the newest ones, then those that were accepted or changed."""
        raise NotImplementedError

    def models(self) -> list[Model]:
        """Return the configured models."""
        raise NotImplementedError

    def model(self, name: str) -> Model:
        """Return a model with its labels and workers. Raises NotFound."""
        raise NotImplementedError

    def status(self) -> ServiceStatus:
        """Return stores, queues, sinks, workers and problems of the service."""
        raise NotImplementedError
