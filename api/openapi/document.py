"""Build of the OpenAPI document from the list of operations."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import orjson
from openapi_pydantic.v3.v3_1 import (
    Components,
    Info,
    License,
    OpenAPI,
    PathItem,
    Reference,
    Response,
    Schema,
    SecurityScheme,
    Server,
    Tag,
)
from openapi_pydantic.v3.v3_1 import Operation as OpenApiOperation
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from api.openapi.answer_schemas import ANSWER_SCHEMAS, Problem
from api.openapi.callbacks import CALLBACK_SCHEMAS, task_callbacks
from api.openapi.dead_letter_operations import DEAD_LETTER_SCHEMAS
from api.openapi.erasure_operations import ERASURE_SCHEMAS
from api.openapi.event_schemas import EVENT_SCHEMAS
from api.openapi.operation import JSON, JSON_LINES, PROBLEM_JSON, Answer, Content, Operation
from api.openapi.operations import OPERATIONS
from api.openapi.parts import HEADERS, LINKS, OF_LIMITS, schema_reference
from api.openapi.request_schemas import REQUEST_SCHEMAS
from api.openapi.service_operations import KEY_SCHEMAS
from api.openapi.upload_operations import UPLOAD_SCHEMAS
from api.openapi.v2_operations import V2_ANSWER_SCHEMAS, V2_REQUEST_SCHEMAS
from api.security.headers import KEY_HEADER
from api.security.needed_role import NeededRole
from api.v2.protocol import V2Error
from inference import __version__
from inference.errors import InferenceError

_DESCRIPTION = """\
Every error is a problem (RFC 9457, `application/problem+json`) with a stable `code`; below /v2, errors are as its protocol has
them. Nothing in a request is ignored: an unknown
parameter or form field is answered with 400. Documents may get more members: ignore those that you do not know. Every answer
has an `X-Request-ID`, the request's own if it sends one. If the service has keys, an operation needs one of the role that its
`security` names, or of the role `admin`; if it names none, any key."""
_TAGS = {
    "predictions": "classify images",
    "tasks": "one image on its way through the service",
    "events": "what happens, as it happens: server-sent events",
    "batches": "the images of one request",
    "commands": "change models while the service runs",
    "service": "its purpose and models, and whether it is ready",
    "v2": "the Open Inference Protocol, for clients of Triton and KServe",
    "console": "the page for browsers",
    "documentation": "this description",
}
_BYTES = {"type": "string", "format": "binary"}
#: Headers of problems, by status; a problem that names a task or a batch has its `Location`.
_PROBLEM_HEADERS = {
    400: ("Location",),
    401: ("WWW-Authenticate",),
    404: ("Location",),
    409: ("Location", "Retry-After"),
    410: ("Location",),
    415: ("Accept-Encoding",),
    429: ("Retry-After", *OF_LIMITS),
    500: ("Location",),
    503: ("Location", "Retry-After"),
    504: ("Location",),
}
#: Places of a key in a request.
_SECURITY_SCHEMES = {
    "bearer": SecurityScheme(type="http", scheme="bearer", description="`Authorization: Bearer KEY`"),
    "api_key": SecurityScheme.model_validate(
        {"type": "apiKey", "name": KEY_HEADER, "in": "header", "description": "the same key"}
    ),
}


class _JsonSchema(GenerateJsonSchema):
    """JSON Schema without a title for each member."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 pydantic's signature
        return False


@cache
def openapi_document() -> bytes:
    """The OpenAPI document as JSON; the first call builds it."""
    document = OpenAPI(
        openapi="3.1.1",
        info=Info(
            title="Image inference",
            version=__version__,
            description=_DESCRIPTION,
            license=License(name="Apache-2.0", identifier="Apache-2.0"),
        ),
        servers=[Server(url=".", description="this service")],  # relative to the document: right behind a proxy with any path
        tags=[Tag(name=name, description=text) for name, text in _TAGS.items()],
        paths=_paths(),
        components=Components(
            schemas=_schemas(),
            responses=_problem_responses(),
            headers=dict(HEADERS),
            links=dict(LINKS),
            securitySchemes=dict(_SECURITY_SCHEMES),
        ),
    )
    return orjson.dumps(document.model_dump(mode="json", by_alias=True, exclude_unset=True))


def _schemas() -> dict[str, Schema]:
    answers = (
        *ANSWER_SCHEMAS,
        *CALLBACK_SCHEMAS,
        *DEAD_LETTER_SCHEMAS,
        *ERASURE_SCHEMAS,
        *EVENT_SCHEMAS,
        *KEY_SCHEMAS,
        *UPLOAD_SCHEMAS,
        *V2_ANSWER_SCHEMAS,
    )
    adapters: list[tuple[str, Any, TypeAdapter[Any]]] = [
        *((schema.__name__, "serialization", TypeAdapter(schema)) for schema in answers),
        *((schema.__name__, "validation", TypeAdapter(schema)) for schema in (*REQUEST_SCHEMAS, *V2_REQUEST_SCHEMAS)),
    ]
    _, described = TypeAdapter.json_schemas(adapters, ref_template="#/components/schemas/{model}", schema_generator=_JsonSchema)
    return {name: Schema.model_validate(schema) for name, schema in described["$defs"].items()}


def _paths() -> dict[str, PathItem]:
    items: dict[str, PathItem] = {}
    for operation in OPERATIONS:
        items.setdefault(operation.path, PathItem())
        setattr(items[operation.path], operation.method, _operation(operation))
    return items


def _operation(operation: Operation) -> OpenApiOperation:
    described: dict[str, Any] = {
        "operationId": operation.operation_id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": _responses(operation),
        "security": _security(operation),
    }
    if operation.description:
        described["description"] = operation.description
    if operation.parameters:
        described["parameters"] = list(operation.parameters)
    if operation.body:
        described["requestBody"] = {"content": {kind: _content(content) for kind, content in operation.body.items()}}
    if operation.has_webhook:
        described["callbacks"] = task_callbacks()
    return OpenApiOperation.model_validate(described)


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    """Return one scheme or the other, with the role that the key needs; none for an operation without a key."""
    if operation.role is NeededRole.NONE:
        return []
    roles = [] if operation.role is NeededRole.ANY else [operation.role.value]
    return [{scheme: roles} for scheme in _SECURITY_SCHEMES]


def _content(content: Content) -> dict[str, Any]:
    described: dict[str, Any] = {"schema": _one_of(content.schemas) if content.schemas else _BYTES}
    if content.examples:
        described["examples"] = {name: {"value": value} for name, value in content.examples.items()}
    if content.part_types:
        described["encoding"] = {name: {"contentType": kind} for name, kind in content.part_types.items()}
    return described


def _one_of(schemas: Iterable[Any]) -> Any:
    references = [schema_reference(schema) for schema in schemas]
    return references[0] if len(references) == 1 else {"anyOf": references}


def _responses(operation: Operation) -> dict[str, Any]:
    problems = {str(status): kinds for status, kinds in _by_status(operation).items()}
    is_v2 = operation.is_v2
    found: dict[str, Any] = {status: _reference("responses", _name(kinds, is_v2)) for status, kinds in problems.items()}
    for answer in operation.answers:
        status = str(answer.status)
        found[status] = _response(answer)
        if status in problems:  # either a document of its own or a problem
            problem = _problem_response(problems[status], is_v2)
            found[status] |= {"headers": found[status]["headers"] | problem["headers"]}
            found[status] |= {"content": _merged(found[status]["content"], problem["content"])}
    return dict(sorted(found.items()))


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Merge contents by media type; a media type of both fits either schema."""
    both = {kind: {"schema": {"anyOf": [one[kind]["schema"], other[kind]["schema"]]}} for kind in one.keys() & other.keys()}
    return one | other | both


def _response(answer: Answer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description, "headers": _header_references(answer.headers)}
    if answer.media_type is not None:
        schema = {"schema": _one_of(answer.schemas)} if answer.schemas else {}
        described["content"] = {answer.media_type: schema, **{kind: {} for kind in answer.other_media_types}}
    if answer.item_schemas:  # OpenAPI 3.2 calls it itemSchema
        streamed_type = JSON_LINES if answer.media_type == JSON else answer.media_type
        described["content"][streamed_type] = {"x-item-schema": _one_of(answer.item_schemas)}
    if answer.links:
        described["links"] = {name: _reference("links", name) for name in answer.links}
    return described


def _by_status(operation: Operation) -> dict[int, tuple[type[InferenceError], ...]]:
    found: dict[int, tuple[type[InferenceError], ...]] = {}
    for kind in sorted(operation.problems, key=lambda kind: kind.code):
        found[kind.status] = (*found.get(kind.status, ()), kind)
    return found


def _problem_responses() -> dict[str, Response]:
    groups = {(kinds, operation.is_v2) for operation in OPERATIONS for kinds in _by_status(operation).values()}
    named = {_name(*group): Response.model_validate(_problem_response(*group)) for group in groups}
    return dict(sorted(named.items()))


def _problem_response(kinds: tuple[type[InferenceError], ...], is_v2: bool) -> dict[str, Any]:
    codes = {"type": "object", "properties": {"code": {"enum": [kind.code for kind in kinds]}}}
    problem = {PROBLEM_JSON: {"schema": {"allOf": [schema_reference(Problem), codes]}}}
    return {
        "description": "; ".join(kind.title if is_v2 else f"`{kind.code}`: {kind.title}" for kind in kinds),
        "headers": _header_references(_PROBLEM_HEADERS.get(kinds[0].status, ())),
        "content": {JSON: {"schema": schema_reference(V2Error)}} if is_v2 else problem,
    }


def _name(kinds: tuple[type[InferenceError], ...], is_v2: bool) -> str:
    return "-".join((*(["v2"] if is_v2 else []), *(kind.code for kind in kinds)))


def _header_references(names: Iterable[str]) -> dict[str, Reference]:
    return {name: _reference("headers", name) for name in (*names, "X-Request-ID")}


def _reference(kind: str, name: str) -> Reference:
    return Reference.model_validate({"$ref": f"#/components/{kind}/{name}"})
