"""Connections to the service, and the calls of commands that send many images."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from rohe_inference import NO_RETRIES, AsyncClient, Client
from rohe_inference.cli.concurrency import Outage
from rohe_inference.cli.config import Login
from rohe_inference.cli.exits import problem_text, unreachable_text
from rohe_inference.cli.outcomes import Outcome
from rohe_inference.errors import (
    ApiError,
    ConnectionFailed,
    DeadlineExceeded,
    Forbidden,
    NotFound,
    Overloaded,
    ServerFault,
    ServiceUnavailable,
    TaskCanceled,
    Unauthenticated,
    WaitTimeout,
)
from rohe_inference.options import TaskOptions
from rohe_inference.tasks import Task

#: A longer `Retry-After` is no overload that passes, but a quota: the run ends.
_LONGEST_PAUSE_S = 300.0
#: Code of a 504 that no service sends.
_TIMEOUT_OF_PROXY = "gateway_timeout"
#: Problems of one image; the others of a run may do better.
_CODES_OF_IMAGES = frozenset({"invalid_image", "unsupported_image_type", "payload_too_large", "idempotency_conflict"})
_FIELDS_OF_IMAGES = frozenset({"image", "metadata.shape", "metadata.dtype"})


def open_client(login: Login) -> Client:
    """Return a client that sends everything once: a user who waits sees the error at once."""
    return Client(login.url, api_key=login.api_key, retries=NO_RETRIES)


@asynccontextmanager
async def open_async_client(login: Login, concurrency: int) -> AsyncIterator[AsyncClient]:
    """Open a client that sends everything once: `Retries` decides for all calls of a run together."""
    limits = httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with (
        httpx2.AsyncClient(limits=limits) as http,
        AsyncClient(login.url, api_key=login.api_key, retries=NO_RETRIES, http=http) as client,
    ):
        yield client


async def predict_image(client: AsyncClient, data: bytes, options: TaskOptions) -> Outcome:
    """Classify one image, and wait for its result."""
    try:
        prediction = await client.predict(data, **options)
    except WaitTimeout as error:  # the task goes on
        if error.task_id is None:
            raise
        return outcome_of_task(await client.wait(error.task_id))
    except (ApiError, ConnectionFailed) as error:
        raise_outage(error)
        if isinstance(error, ApiError) and is_of_image(error):
            return outcome_of_error(error)
        raise
    return Outcome("succeeded", prediction.task_id, dict(prediction.raw["model"]), dict(prediction.raw["response"]))


async def submit_image(client: AsyncClient, data: bytes, options: TaskOptions) -> Outcome:
    """Submit one image, and do not wait."""
    try:
        task = await client.submit(data, **options)
    except (ApiError, ConnectionFailed) as error:
        raise_outage(error)
        if isinstance(error, ApiError) and is_of_image(error):
            return outcome_of_error(error)
        raise
    return Outcome("queued", task.task_id, dict(task.raw["model"]))


def outcome_of_task(task: Task) -> Outcome:
    """Return status, result and error of a task."""
    raw: dict[str, Any] = dict(task.raw)
    return Outcome(task.status, task.task_id, raw["model"], raw["result"], raw["error"])


def raise_outage(error: ApiError | ConnectionFailed) -> None:
    """Raise Outage if the error is one that goes away."""
    if isinstance(error, ConnectionFailed):
        raise Outage(unreachable_text(error)) from error
    if isinstance(error, ServiceUnavailable) or error.code == _TIMEOUT_OF_PROXY:
        raise Outage(problem_text(error.raw), retry_after_s=error.retry_after_s) from error
    if isinstance(error, Overloaded) and (error.retry_after_s or 0) <= _LONGEST_PAUSE_S:
        raise Outage(problem_text(error.raw), retry_after_s=error.retry_after_s, is_overload=True) from error


def is_of_image(error: ApiError) -> bool:
    """Return whether other images of the same run may succeed."""
    if isinstance(error, (Unauthenticated, Forbidden, NotFound, Overloaded)):
        return False
    is_end_of_task = error.task_id is not None or isinstance(error, (ServerFault, DeadlineExceeded, TaskCanceled))
    return is_end_of_task or error.code in _CODES_OF_IMAGES or error.field in _FIELDS_OF_IMAGES


def outcome_of_error(error: ApiError) -> Outcome:
    """Return the outcome of an image whose task ended otherwise than `succeeded`, or that got no task."""
    if isinstance(error, DeadlineExceeded):
        status = "expired"
    elif isinstance(error, TaskCanceled):
        status = "canceled"
    else:
        status = "refused" if error.task_id is None else "failed"
    return Outcome(status, error.task_id, error=dict(error.raw))
