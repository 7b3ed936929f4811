"""Results as documents of a MongoDB collection: `_id` is the task id, so that each is there once however often it comes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import bson
from pymongo import ASCENDING, MongoClient
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, PyMongoError

from inference.settings import MongodbSettings
from inference.sinks import Refusal, SinkUnavailable

logger = logging.getLogger(__name__)

#: Servers that speak the protocol differ in how they name it; a duplicate key is 11000 in all of them.
_DUPLICATE_KEY = 11000
#: What MongoDB takes as one document.
_MAX_DOCUMENT_BYTES = 16 * 2**20
_SECONDS_A_DAY = 86_400


class MongodbSink:
    """`ResultSink` that inserts. A committed result never changes: a document that is there already counts as delivered."""

    name = "mongodb"

    def __init__(self, settings: MongodbSettings) -> None:
        self._settings = settings
        timeout_ms = round(settings.timeout_s * 1000)
        self._client: MongoClient[dict[str, Any]] = MongoClient(
            settings.url.get_secret_value(),
            serverSelectionTimeoutMS=timeout_ms,
            connectTimeoutMS=timeout_ms,
            socketTimeoutMS=timeout_ms,
        )
        self._has_indexes = False

    def write(self, documents: Sequence[dict[str, Any]]) -> list[Refusal]:
        refused = []
        wanted = []
        for document in documents:
            converted = _to_bson(document)
            size = len(bson.encode(converted))
            if size > _MAX_DOCUMENT_BYTES:
                refused.append(Refusal(document["task_id"], f"{size} bytes are more than a MongoDB document may have"))
            else:
                wanted.append(converted)
        try:
            collection = self._collection()
            if wanted:
                collection.insert_many(wanted, ordered=False)
        except BulkWriteError as error:
            refused += _refusals(error, wanted)
        except PyMongoError as error:
            raise SinkUnavailable(f"MongoDB does not answer: {error}") from error
        return refused

    def close(self) -> None:
        self._client.close()

    def _collection(self) -> Collection[dict[str, Any]]:
        collection = self._client[self._settings.database][self._settings.collection]
        if not self._has_indexes:
            collection.create_index([("request_id", ASCENDING)])
            collection.create_index([("created_at", ASCENDING)])
            self._make_ttl_index(collection)
            self._has_indexes = True
        return collection

    def _make_ttl_index(self, collection: Collection[dict[str, Any]]) -> None:
        days = self._settings.ttl_days
        if days is None:
            return
        try:
            collection.create_index([("finished_at", ASCENDING)], expireAfterSeconds=days * _SECONDS_A_DAY)
        except PyMongoError as error:
            logger.warning("mongodb.ttl_days: this server makes no TTL index, documents stay: %s", error)


def _to_bson(document: dict[str, Any]) -> dict[str, Any]:
    converted = {key: value for key, value in document.items() if not key.endswith("_at_ms")}
    return converted | {
        "_id": document["task_id"],
        "confidence_level": float(document["confidence_level"]),
        "prediction": document["prediction"].tolist(),
        "created_at": datetime.fromtimestamp(document["created_at_ms"] / 1000, UTC),
        "finished_at": datetime.fromtimestamp(document["finished_at_ms"] / 1000, UTC),
    }


def _refusals(error: BulkWriteError, documents: Sequence[dict[str, Any]]) -> list[Refusal]:
    """What was not inserted for its own fault; anything that may pass later makes all of it come again."""
    details = error.details or {}
    if details.get("writeConcernErrors"):
        raise SinkUnavailable(f"MongoDB: {details['writeConcernErrors'][0].get('errmsg')}") from error
    return [
        Refusal(documents[failed["index"]]["task_id"], f"MongoDB refuses it: {failed.get('errmsg')}")
        for failed in details.get("writeErrors", ())
        if failed.get("code") != _DUPLICATE_KEY
    ]
