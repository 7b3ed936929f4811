"""Parameters, headers and links that operations share."""

from __future__ import annotations

from typing import Any

from openapi_pydantic.v3.v3_1 import Header, Link, Parameter, Reference

from inference.access import OWNER_PATTERN
from inference.ids import TASK_ID_PATTERN


def schema_reference(schema: Any) -> Reference:
    """Refer to the schema of a `TypedDict`."""
    return Reference.model_validate({"$ref": f"#/components/schemas/{schema.__name__}"})


def header(name: str, description: str, **schema: Any) -> Parameter:
    return Parameter.model_validate({"name": name, "in": "header", "description": description, "schema": schema})


def query(name: str, description: str, *, required: bool = False, **schema: Any) -> Parameter:
    """Describe one query parameter."""
    described = {"name": name, "in": "query", "description": description, "schema": schema}
    return Parameter.model_validate(described | ({"required": True} if required else {}))


def query_fields(schema: Any, description: str) -> Parameter:
    """Describe all members of a schema as query parameters of the same names."""
    described = {"name": "fields", "in": "query", "description": description, "style": "form", "explode": True, "example": {}}
    return Parameter.model_validate(described | {"schema": schema_reference(schema)})


def path_text(name: str, **schema: Any) -> Parameter:
    """Describe one part of a path."""
    return Parameter.model_validate({"name": name, "in": "path", "required": True, "schema": {"type": "string"} | schema})


TASK_ID = path_text("task_id", pattern=f"^{TASK_ID_PATTERN}$")
BATCH_ID = path_text("batch_id", pattern=f"^{TASK_ID_PATTERN}$")
WAIT = query("wait", "seconds to wait for the end; at most `api.max_wait_s`", type="number", minimum=0)
_STATUSES = "(queued|running|succeeded|failed|canceled|expired)"
STATUS = query("status", "one or some, separated by commas", type="string", pattern=f"^{_STATUSES}(,{_STATUSES})*$")
MODEL = query("model", "name of a model", type="string", minLength=1, examples=["digits"])
REQUEST_ID = query("request_id", "the request id", type="string", minLength=1, examples=["photo-17"])
OWNER = query(
    "owner", "whose tasks; keys of the role `predict` may name their own owner alone", type="string", pattern=f"^{OWNER_PATTERN}$"
)
LAST_EVENT_ID = header("Last-Event-ID", "`id` of the last event that the client has had", type="string", pattern="^[!-~]*$")
PREFER = header(
    "Prefer",
    "RFC 7240: `respond-async` is answered at once with 202; `wait=N` after N seconds at the latest, with 202 if there "
    "is no result yet",
    type="string",
)
IDEMPOTENCY_KEY = header(
    "Idempotency-Key",
    "the same key with the same content gives the same task, so that a request can be repeated safely",
    type="string",
    maxLength=255,
)


def _answer_header(description: str, **schema: Any) -> Header:
    return Header.model_validate({"description": description, "schema": {"type": "string"} | schema})


#: Names of the headers of answers that depend on limits of the owner.
OF_LIMITS = ("RateLimit", "RateLimit-Policy")

HEADERS: dict[str, Header] = {
    "Location": _answer_header("path of the task, batch or erasure"),
    "Task-Id": _answer_header("the task"),
    "Batch-Id": _answer_header("the batch"),
    "Server-Timing": _answer_header("duration of each step, milliseconds"),
    "Preference-Applied": _answer_header("the preferences of `Prefer` that were applied"),
    "Idempotent-Replayed": _answer_header("present if the Idempotency-Key was known", enum=["true"]),
    "Link": _answer_header('<URL>; rel="next", relative to the request, if there is another page'),
    "Retry-After": _answer_header("seconds after which a retry makes sense", pattern="^[1-9][0-9]*$"),
    "RateLimit": _answer_header('rest of each limit of the owner, as in `"requests";r=9;t=1, "images";r=90;t=3600`'),
    "RateLimit-Policy": _answer_header('limits of the owner, as in `"requests";q=10;w=1, "images";q=100;qu="images";w=86400`'),
    "WWW-Authenticate": _answer_header('`Bearer`, with `error="invalid_token"` if the request has a key'),
    "Content-Disposition": _answer_header("inline, with a file name"),
    "Array-Shape": _answer_header("of the bytes of an array: height,width,channels", pattern="^[0-9]+(,[0-9]+)+$"),
    "Array-Dtype": _answer_header("of the bytes of an array: numpy's name with the byte order"),
    "Accept-Encoding": _answer_header("for `unsupported_content_encoding`"),
    "Content-Encoding": _answer_header("present if the answer is compressed", enum=["gzip", "deflate"]),
    "Inference-Header-Content-Length": _answer_header("bytes of the JSON object; present if binary data follows it"),
    "X-Request-ID": _answer_header("the request's own, else a new one; the service's log has it"),
}

LINKS: dict[str, Link] = {
    name: Link(operationId=name, parameters={member: f"$response.body#/{member}"}, description=description)
    for name, member, description in (
        ("get_task", "task_id", "the task"),
        ("cancel_task", "task_id", "cancels the task"),
        ("get_batch", "batch_id", "the batch"),
        ("cancel_batch", "batch_id", "cancels the tasks of the batch"),
    )
}
