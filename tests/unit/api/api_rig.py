"""The API on a real record store, and a stand-in for the worker, which answers queued tasks through the store."""

from __future__ import annotations

import base64
import dataclasses
import io
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import orjson
import redis
from flask import Flask
from flask.testing import FlaskClient
from numpy.typing import NDArray
from PIL import Image
from support.waiting import until
from urllib3 import encode_multipart_formdata
from werkzeug.test import TestResponse

from api.acceptance.batch_submission import BatchSubmissions
from api.acceptance.submission import Submissions
from api.components import components_of, install_components
from inference.container import Services
from inference.domain import Outcome, PredictionResult, QueueItem, QueueMessage, TaskStatus
from inference.errors import InferenceError
from inference.imaging import ImageLimits, decode
from inference.task_store.protocol import Commit, LeaseState

QUEUE = "predict.digits"
#: Lists by priority, highest first; messages of the usual priority are on the last.
LISTS = [QUEUE, *(f"{QUEUE}\x06\x16{step}" for step in (3, 6, 9))]
USUAL_LIST = LISTS[-1]
#: Lists of the messages of owners, for the usual priority.
OWNER_LISTS = [f"{USUAL_LIST}\x06\x16of\x06\x16{owner}" for owner in ("alice", "bob", "monitoring", "operations")]
OWNER = "test-worker"
PATIENCE_S = 10.0
RAW_METADATA = {"shape": "8,8,1", "dtype": "float32"}
PROBLEM = "application/problem+json"
#: Makes the application of one API process; settings are given by section.
MakeApp = Callable[..., Flask]


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """The first true answer; the test fails when there is none in time."""
    return until(condition, what, timeout_s=PATIENCE_S)


def services_of(app: Flask) -> Services:
    return components_of(app).services


def accept_with(app: Flask, **parts: Any) -> None:
    """Let `app` accept requests with these parts (see `AcceptanceParts`) in place of its own: slow or faulty ones."""
    components = components_of(app)
    changed = dataclasses.replace(components.submissions.parts, **parts)
    submissions, batch_submissions = Submissions(changed), BatchSubmissions(changed)
    install_components(app, dataclasses.replace(components, submissions=submissions, batch_submissions=batch_submissions))


def raw_image(number: float = 7) -> bytes:
    return np.full((8, 8, 1), number, "<f4").tobytes()


def encoded(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def picture(kind: str, size: int = 8) -> bytes:
    """A square of one colour as a PNG, JPEG or WebP file."""
    return encoded(Image.new("RGB", (size, size), (90, 30, 200)), kind)


def npy_image(number: int = 7) -> bytes:
    file = io.BytesIO()
    np.save(file, np.full((8, 8, 1), number, np.float32))
    return file.getvalue()


def vector(number: int = 7) -> NDArray[np.float32]:
    """Ten classes; the highest is `number`."""
    values = np.linspace(0.001, 0.01, 10, dtype=np.float32)
    values[number % 10] = 0.93
    return values


def form(
    image: bytes | None = None, *, metadata: Any = None, filename: str = "image", content_type: str | None = None, **fields: Any
) -> dict[str, Any]:
    """The form of a predict request; `metadata` as an object becomes JSON."""
    data: dict[str, Any] = dict(fields)
    if metadata is not None:
        data["metadata"] = metadata if isinstance(metadata, str) else orjson.dumps(metadata).decode()
    if image is not None:
        data["image"] = (io.BytesIO(image), filename, content_type) if content_type else (io.BytesIO(image), filename)
    return data


def raw_form(number: int = 7, **fields: Any) -> dict[str, Any]:
    """A raw image of the digits model's own shape."""
    metadata = RAW_METADATA | fields.pop("metadata", {})
    return form(raw_image(number), metadata=metadata, **fields)


def encoded_form(images: Iterable[bytes], fields: Mapping[str, str]) -> dict[str, Any]:
    """Encode a form like other clients: Werkzeug's test client leaves out a line break after an empty file."""
    parts = [*fields.items(), *(("image", ("image", image, "application/octet-stream")) for image in images)]
    data, content_type = encode_multipart_formdata(parts)
    return {"data": data, "content_type": content_type}


def send(client: FlaskClient, path: str, parts: list[tuple[str, Any]], query: Any = None) -> TestResponse:
    """Parts of a multipart form, as browsers and curl write them; a raw image that needs RAW_METADATA is the first."""
    sent = [("image", ("a", raw_image(), "application/octet-stream")), *parts]
    data, content_type = encode_multipart_formdata(sent)
    return client.post(path, data=data, content_type=content_type, query_string=query)


def post_batch(
    client: FlaskClient, images: Iterable[int | bytes], *, metadata: Any = RAW_METADATA, headers: Any = None, **fields: str
) -> TestResponse:
    """A number stands for the raw image of it."""
    contents = [image if isinstance(image, bytes) else raw_image(image) for image in images]
    return client.post("/inference/batch", headers=headers, **encoded_form(contents, form(metadata=metadata, **fields)))


def assert_problem(response: TestResponse, status: int, code: str, **members: Any) -> dict[str, Any]:
    """The answer is the RFC 9457 problem of this code; gives it."""
    document = orjson.loads(response.data)
    assert (response.status_code, document.get("code")) == (status, code), document
    assert response.content_type == PROBLEM
    assert document["type"] == f"urn:problem-type:inference:{code}"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    for name, value in members.items():
        assert document.get(name) == value, document
    return document


class Background:
    """A request on a thread of its own."""

    def __init__(self, call: Callable[[], TestResponse]) -> None:
        self._answers: list[TestResponse] = []
        self._thread = threading.Thread(target=lambda: self._answers.append(call()), daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        return bool(self._answers)

    def response(self) -> TestResponse:
        self._thread.join(PATIENCE_S)
        assert self._answers, "the request has not ended"
        return self._answers[0]


Answer = Callable[[QueueItem, bytes], Outcome]


def succeed(item: QueueItem, data: bytes) -> Outcome:
    """The class is the mean of a raw image's values."""
    number = round(float(np.frombuffer(data, "<f4").mean())) if item.header.format == "raw" else 7
    return success(number, item.top_k)


def success(number: int = 7, top_k: int | None = None) -> Outcome:
    result = PredictionResult.from_vector(vector(number), tuple("0123456789"))
    if top_k is not None:
        result.top = [(index, str(index)) for index in np.argsort(-result.prediction).tolist()[:top_k]]
    return Outcome(
        TaskStatus.SUCCEEDED,
        result=result,
        batch_size=1,
        timings={"queue_ms": 1.25, "fetch_ms": 0.5, "decode_ms": 0.25, "batch_wait_ms": 0.1, "predict_ms": 2.0},
        worker=OWNER,
        predicted_at_ms=1,
    )


def failure(error: InferenceError) -> Outcome:
    return Outcome.of_error(TaskStatus.FAILED, error, worker=OWNER)


class FakeWorker:
    """Plays the worker on a thread of its own: messages of the broker are leased, started and committed.

    Args:
        answer: makes the outcome of an item from its bytes.
    """

    def __init__(self, services: Services, client: redis.Redis) -> None:
        self._services = services
        self._redis = client
        self._spec = services.models.get("digits")
        self.answer: Answer = succeed
        #: items are taken and started, and answered once this is set
        self.gate = threading.Event()
        self.gate.set()
        self.messages: list[QueueMessage] = []
        self.errors: list[Exception] = []
        self._thread: threading.Thread | None = None

    def start(self) -> FakeWorker:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        self.gate.set()
        if self._thread is not None:
            self._redis.rpush(QUEUE, b"")
            self._thread.join(PATIENCE_S)
        assert self.errors == []

    def work_off(self) -> None:
        """Answer everything that is queued now, on the calling thread."""
        for key in (*LISTS, *OWNER_LISTS):
            while payload := self._redis.rpop(key):
                self._handle(payload)

    def _run(self) -> None:
        try:
            while (found := self._redis.brpop([*LISTS, *OWNER_LISTS], timeout=30)) is None or found[1]:
                if found is not None:
                    self._handle(found[1])
        except Exception as error:  # noqa: BLE001 the test that stops the worker looks at it
            self.errors.append(error)

    def _handle(self, payload: bytes) -> None:
        envelope = orjson.loads(payload)
        assert envelope["headers"]["task"] == "tasks.predict"
        _, kwargs, _ = orjson.loads(base64.b64decode(envelope["body"]))
        message = QueueMessage.from_kwargs(kwargs)
        self.messages.append(message)
        store = self._services.store
        for item in message.items:
            (lease,) = store.lease(OWNER, [item.task_id]).leases
            (attempt,) = store.start(OWNER, [item.task_id]) if lease.state is LeaseState.LEASED else (None,)
            if attempt is None:
                continue
            assert self.gate.wait(PATIENCE_S), "nobody opened the gate"
            store.commit(OWNER, [Commit(item.task_id, attempt, self._outcome(item, lease.image))])

    def _outcome(self, item: QueueItem, image: bytes) -> Outcome:
        try:
            data = image or self._services.objects.get(item.object_key)
            decode(data, item.header, self._spec.input, ImageLimits(self._services.settings.limits.max_pixels))
        except InferenceError as error:
            return failure(error)
        return self.answer(item, data)


def post(client: FlaskClient, data: dict[str, Any] | None = None, path: str = "/inference", **options: Any) -> TestResponse:
    return client.post(path, data=raw_form() if data is None else data, **options)


def post_async(client: FlaskClient, data: dict[str, Any] | None = None) -> str:
    """Submit; gives the task's id."""
    response = post(client, data, headers={"Prefer": "respond-async"})
    assert response.status_code == 202, response.data
    task_id: str = response.json["task_id"]
    return task_id
