"""Section of traces: where they are sent, and how many."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import unquote, urlsplit, urlunsplit

from pydantic import AfterValidator, Field, SecretStr

from inference.settings.value_checks import Section, secret_validator

#: Path of a collector for traces: https://opentelemetry.io/docs/specs/otlp/#otlphttp-request
_PATH = "/v1/traces"
#: `NAME=VALUE`, as in OTEL_EXPORTER_OTLP_HEADERS, but a name is a token of HTTP (RFC 9110) and a value has no control character.
_HEADER = re.compile(r"\s*[A-Za-z0-9!#$%&'*+.^_`|~-]+\s*=[\x20-\x2b\x2d-\x7e]*")
#: Value of a header once it is decoded: libraries quote one that is not valid in their errors.
_VALUE = re.compile(r"([\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?)?")


def _check_endpoint(text: str) -> str:
    try:
        parts = urlsplit(text)
        has_address = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        has_address = False
    if not has_address or parts.scheme not in {"http", "https"} or parts.fragment or re.search(r"\s", text):
        raise ValueError("must be a URL of OTLP over HTTP, such as http://collector:4318")
    return text


def _check_headers(text: str) -> str:
    headers = text.split(",") if text else []
    if not all(_HEADER.fullmatch(header) and _VALUE.fullmatch(_decoded_value(header)) for header in headers):
        raise ValueError("must be NAME=VALUE, several with commas between them, such as authorization=Bearer%20TOKEN")
    return text


def _decoded_value(header: str) -> str:
    return unquote(header.partition("=")[2].strip())


class TracingSettings(Section):
    """Traces for OpenTelemetry. Off, unless there is an `endpoint`; needs the extra `tracing`."""

    #: URL of a collector that takes OTLP over HTTP; `/v1/traces` is added if it has no path; none: off
    endpoint: Annotated[str, AfterValidator(_check_endpoint)] | None = None
    #: headers of requests to it: NAME=VALUE, several with commas between them, percent-encoded where needed
    headers: Annotated[SecretStr, secret_validator(_check_headers)] = SecretStr("")
    #: share of the traces that begin here and are kept, 0 to 1; a caller that sends `traceparent` decides for its own trace
    sample_ratio: float = Field(default=1.0, ge=0, le=1, allow_inf_nan=False)
    #: `service.name` of all processes; default: `OTEL_SERVICE_NAME`, else `inference-api`, `inference-worker`, `inference-relay`
    service_name: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    #: further attributes of the resource, such as `deployment.environment.name`
    resource_attributes: dict[str, str] = Field(default_factory=dict)

    @property
    def is_on(self) -> bool:
        return self.endpoint is not None

    @property
    def url(self) -> str:
        """The URL that traces are sent to; empty without an endpoint."""
        parts = urlsplit(self.endpoint or "")
        return urlunsplit(parts._replace(path=_PATH)) if self.endpoint and parts.path in {"", "/"} else self.endpoint or ""
