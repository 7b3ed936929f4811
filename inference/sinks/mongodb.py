"""Results as documents of a MongoDB collection: `_id` is the task id, so that each is there once however often it comes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from pymongo import ASCENDING, MongoClient
from pymongo.collection import Collection
from pymongo.errors import PyMongoError

from inference.errors import ConfigurationError
from inference.settings import MongodbSettings
from inference.sinks import Refusal, SinkUnavailable
from inference.sinks.mongodb_inserting import insert

logger = logging.getLogger(__name__)

_SECONDS_A_DAY = 86_400


class MongodbSink:
    """`ResultSink` that inserts. A committed result never changes: a document that is there already counts as delivered."""

    name = "mongodb"

    def __init__(self, settings: MongodbSettings) -> None:
        self._settings = settings
        timeout_ms = round(settings.timeout_s * 1000)
        with _wrong_url():
            self._client: MongoClient[dict[str, Any]] = MongoClient(
                settings.url.get_secret_value(),
                serverSelectionTimeoutMS=timeout_ms,
                connectTimeoutMS=timeout_ms,
                socketTimeoutMS=timeout_ms,
                connect=False,  # the first write does
            )
        if not self._client.write_concern.acknowledged:
            raise ConfigurationError("mongodb.url: w=0 would count as delivered what MongoDB never wrote", field="mongodb.url")
        #: what the server takes as one document; 0 until it was asked
        self._max_document_bytes = 0

    def write(self, documents: Sequence[dict[str, Any]]) -> list[Refusal]:
        try:
            collection = self._collection()
            return insert(collection, [_to_bson(document) for document in documents], max_bytes=self._max_document_bytes)
        except PyMongoError as error:
            raise SinkUnavailable(f"MongoDB does not answer: {error}") from error

    def close(self) -> None:
        self._client.close()

    def _collection(self) -> Collection[dict[str, Any]]:
        collection = self._client[self._settings.database][self._settings.collection]
        if not self._max_document_bytes:
            collection.create_index([("request_id", ASCENDING)])
            collection.create_index([("created_at", ASCENDING)])
            self._make_ttl_index(collection)
            self._max_document_bytes = self._client.admin.command("hello")["maxBsonObjectSize"]
        return collection

    def _make_ttl_index(self, collection: Collection[dict[str, Any]]) -> None:
        days = self._settings.ttl_days
        if days is None:
            return
        try:
            collection.create_index([("finished_at", ASCENDING)], expireAfterSeconds=days * _SECONDS_A_DAY)
        except PyMongoError as error:
            logger.warning("mongodb.ttl_days: this server makes no TTL index, documents stay: %s", error)


@contextmanager
def _wrong_url() -> Iterator[None]:
    """Turn what the client refuses of `mongodb.url`, also an option that it does not know, into a ConfigurationError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            yield
    except (PyMongoError, UserWarning, ValueError, OSError) as error:
        raise ConfigurationError(f"mongodb.url: {_without_secrets(error)}", field="mongodb.url") from error


def _without_secrets(error: Exception) -> str:
    """The message, but for a name that may be the rest of a password."""
    text = str(error)
    return "it has an option that MongoDB's client does not know" if text.startswith("Unknown option") else text


def _to_bson(document: dict[str, Any]) -> dict[str, Any]:
    converted = {key: value for key, value in document.items() if not key.endswith("_at_ms")}
    return converted | {
        "_id": document["task_id"],
        "confidence_level": float(document["confidence_level"]),
        "prediction": document["prediction"].tolist(),
        "created_at": datetime.fromtimestamp(document["created_at_ms"] / 1000, UTC),
        "finished_at": datetime.fromtimestamp(document["finished_at_ms"] / 1000, UTC),
    }
