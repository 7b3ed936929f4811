"""Result sinks: an adapter for each, the outbox of results, and the relay between them."""

from __future__ import annotations

from inference.settings import Settings
from inference.sinks.protocol import ResultSink


def open_sink(name: str, settings: Settings) -> ResultSink:
    """The sink of this name as the settings describe it."""
    # An adapter and its client library are loaded when they are chosen.
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
