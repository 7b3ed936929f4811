"""Result sinks: the protocol, and an adapter for each sink."""

from __future__ import annotations

from inference.settings import Settings
from inference.sinks.protocol import ResultSink


def open_sink(name: str, settings: Settings) -> ResultSink:
    """Open the sink with this name, with its settings."""
    # An adapter and its client library are imported only if the settings choose them.
    match name:
        case "mongodb":
            from inference.sinks.mongodb import MongodbSink  # noqa: PLC0415

            return MongodbSink(settings.mongodb)
        case "kafka":
            from inference.sinks.kafka import KafkaSink  # noqa: PLC0415

            return KafkaSink(settings.kafka)
        case _:
            from inference.sinks.jsonl import JsonlSink  # noqa: PLC0415

            return JsonlSink(settings.jsonl_path)
