"""Requests to the collector: OTLP over HTTP, with one line in the log when it begins to fail and one when it works again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from urllib.parse import unquote

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from inference.settings import TracingSettings, shown_value

logger = logging.getLogger(__name__)

#: The library's logger of these requests, which has a line or more for each that fails.
_LIBRARY = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")


class CollectorExporter(SpanExporter):
    """Sends spans. Spans that the collector does not take in time are lost; it is called on a thread of its own."""

    def __init__(self, settings: TracingSettings) -> None:
        self._url = str(shown_value(settings.url))
        self._exporter = OTLPSpanExporter(endpoint=settings.url, headers=headers_of(settings.headers.get_secret_value()))
        self._is_failing = False
        self._reasons = _Reasons()
        _LIBRARY.addFilter(self._reasons)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._reasons.first = ""
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 a library's bug must not end the thread
            result = SpanExportResult.FAILURE
            self._reasons.first = repr(error)
        has_failed = result is not SpanExportResult.SUCCESS
        if has_failed and not self._is_failing:
            logger.warning("traces: %s does not take spans, which are lost until it does: %s", self._url, self._reasons.first)
        elif self._is_failing and not has_failed:
            logger.info("traces: %s takes spans again", self._url)
        self._is_failing = has_failed
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
        _LIBRARY.removeFilter(self._reasons)


class _Reasons(logging.Filter):
    """Filter that keeps the library's lines out of the log, and the first of them for ours: later ones say that it gives up."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.first = self.first or record.getMessage()
        return False


def headers_of(text: str) -> dict[str, str] | None:
    """Return the headers in NAME=VALUE,NAME=VALUE; None without any: then the variables `OTEL_…` have them."""
    pairs = (header.partition("=") for header in text.split(",") if header)
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs} or None
