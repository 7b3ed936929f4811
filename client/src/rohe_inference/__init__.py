"""Client of the ROHE image inference service: `Client`, and `AsyncClient` for asyncio."""

from __future__ import annotations

from rohe_inference._version import __version__
from rohe_inference.async_client import AsyncClient
from rohe_inference.batches import Batch, BatchItem, BatchProgress, CompletedImage
from rohe_inference.client import Client
from rohe_inference.errors import (
    ApiError,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    Forbidden,
    InferenceError,
    InvalidRequest,
    NotFound,
    Overloaded,
    ServerFault,
    ServiceUnavailable,
    TaskCanceled,
    Unauthenticated,
    UnexpectedAnswer,
    WaitTimeout,
    WebhookRejected,
)
from rohe_inference.images import ImageSource
from rohe_inference.options import Item, TaskOptions, WebhookOption
from rohe_inference.results import ClassConfidence, ModelReference, Result
from rohe_inference.retries import NO_RETRIES, RetryPolicy
from rohe_inference.service import CallerKey, Erasure, Model, ServiceStatus, StoredImage, TasksChanged
from rohe_inference.tasks import Delivery, Prediction, QueuePosition, Task
from rohe_inference.webhooks import verify_webhook

__all__ = [
    "NO_RETRIES",
    "ApiError",
    "AsyncClient",
    "Batch",
    "BatchItem",
    "BatchProgress",
    "CallerKey",
    "ClassConfidence",
    "Client",
    "CompletedImage",
    "Conflict",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Delivery",
    "Erasure",
    "Forbidden",
    "ImageSource",
    "InferenceError",
    "InvalidRequest",
    "Item",
    "Model",
    "ModelReference",
    "NotFound",
    "Overloaded",
    "Prediction",
    "QueuePosition",
    "Result",
    "RetryPolicy",
    "ServerFault",
    "ServiceStatus",
    "ServiceUnavailable",
    "StoredImage",
    "Task",
    "TaskCanceled",
    "TaskOptions",
    "TasksChanged",
    "Unauthenticated",
    "UnexpectedAnswer",
    "WaitTimeout",
    "WebhookOption",
    "WebhookRejected",
    "__version__",
    "verify_webhook",
]
