"""Types of the list of operations, and the problems that operations have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from openapi_pydantic.v3.v3_1 import Parameter

from api.security.needed_role import NeededRole
from api.v2.errors import is_v2
from inference.errors import (
    ChangeInProgress,
    CrossOrigin,
    ExpectationFailed,
    Forbidden,
    HeaderFieldsTooLarge,
    IdempotencyConflict,
    InferenceError,
    InvalidImage,
    InvalidMetadata,
    InvalidModel,
    InvalidRequest,
    MisdirectedRequest,
    ModelNotFound,
    NotFound,
    ObjectNotFound,
    Overloaded,
    PayloadTooLarge,
    QuotaExceeded,
    RateLimited,
    RequestTimeout,
    ServiceUnavailable,
    SinkNotConfigured,
    StorageFull,
    TransferCodingNotImplemented,
    Unauthenticated,
    UnknownCommand,
    UnsupportedContentEncoding,
    UnsupportedImageType,
    UriTooLong,
    WaitTimeout,
)

JSON = "application/json"
JSON_LINES = "application/jsonl"
PROBLEM_JSON = "application/problem+json"
MULTIPART = "multipart/form-data"
BINARY = "application/octet-stream"
URLENCODED = "application/x-www-form-urlencoded"

Problems = tuple[type[InferenceError], ...]

#: Problems of every request: of its head and query, or of the server.
_ANY: Problems = (
    InvalidRequest,
    RequestTimeout,
    UriTooLong,
    ExpectationFailed,
    MisdirectedRequest,
    HeaderFieldsTooLarge,
    InferenceError,
    TransferCodingNotImplemented,
    ServiceUnavailable,
)
#: Problems of requests that web pages of other origins may not send.
_WRITING: Problems = (CrossOrigin,)
#: Problems of requests that need a key, and of requests that need a certain role.
_KEYED: Problems = (Unauthenticated, RateLimited)
_OF_ROLES: Problems = (Forbidden,)
#: Problems of requests that have a path with an id: one that has a slash is another path.
OF_PATHS: Problems = (NotFound,)
#: Problems of every body.
OF_BODIES: Problems = (PayloadTooLarge, UnsupportedContentEncoding)
OF_IMAGES: Problems = (
    *OF_BODIES,
    InvalidMetadata,
    InvalidImage,
    UnsupportedImageType,
    UnknownCommand,
    ModelNotFound,
    IdempotencyConflict,
    Overloaded,
    RateLimited,
    QuotaExceeded,
    StorageFull,
    WaitTimeout,
)
OF_COMMANDS: Problems = (
    *OF_BODIES,
    UnknownCommand,
    InvalidModel,
    ModelNotFound,
    ObjectNotFound,
    ChangeInProgress,
    SinkNotConfigured,
)

Method = Literal["get", "post", "put", "delete"]


@dataclass(frozen=True)
class Content:
    """Body of a request in one media type."""

    #: schemas of which it fits one; none: any bytes
    schemas: tuple[Any, ...]
    #: by name, complete bodies that a client can send
    examples: Mapping[str, Any] = field(default_factory=dict)
    #: by part of a form, its media types
    part_types: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """Answer that is not a problem."""

    status: int
    description: str
    #: schemas of which its document fits one; none: not JSON
    schemas: tuple[Any, ...] = ()
    media_type: str | None = JSON  #: None: it has no body
    #: schemas of which each line of JSON Lines, or the data of each event, fits one; none: the answer is not streamed
    item_schemas: tuple[Any, ...] = ()
    #: media types of the same content in another form
    other_media_types: tuple[str, ...] = ()
    #: names among `api.openapi.parts.HEADERS`
    headers: tuple[str, ...] = ()
    #: names among `api.openapi.parts.LINKS`
    links: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operation:
    """Method of a path."""

    operation_id: str
    method: Method
    path: str
    tag: str
    summary: str
    #: the keys with which it may be called, if the service has keys: `api.security.keys` enforces it
    role: NeededRole
    answers: tuple[Answer, ...]
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    #: by media type
    body: Mapping[str, Content] = field(default_factory=dict)
    #: problems in addition to those of every request
    own_problems: Problems = ()
    #: whether the tasks that it accepts may have a webhook
    has_webhook: bool = False

    @property
    def is_v2(self) -> bool:
        """Whether its errors are those of the Open Inference Protocol, without a code."""
        return is_v2(self.path)

    @property
    def problems(self) -> Problems:
        """All problems with which the operation answers."""
        writing = () if self.method == "get" else _WRITING
        keyed = () if self.role is NeededRole.NONE else _KEYED
        of_roles = () if self.role in (NeededRole.NONE, NeededRole.ANY) else _OF_ROLES
        return tuple(dict.fromkeys((*_ANY, *writing, *keyed, *of_roles, *self.own_problems)))
