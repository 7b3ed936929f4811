"""Results as documents of a MongoDB collection: `_id` is the task id, so that each is there once however often it comes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import bson
from pymongo import ASCENDING, MongoClient
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure, PyMongoError

from inference.errors import ConfigurationError
from inference.settings import MongodbSettings
from inference.sinks.protocol import Refusal, SinkUnavailable

logger = logging.getLogger(__name__)

_SECONDS_A_DAY = 86_400
#: Servers that speak the protocol differ in how they name it; a duplicate key is 11000 in all of them.
_DUPLICATE_KEY = 11000
#: Codes of write errors that are the document's own (MongoDB's src/mongo/base/error_codes.yml). All others may be the server's:
#: out of disk space, not primary, interrupted, out of memory or time, not authorized.
_REFUSED_CODES = {
    2,  # BadValue
    22,  # InvalidBSON
    52,  # DollarPrefixedFieldName
    53,  # InvalidIdField
    56,  # EmptyFieldName
    57,  # DottedFieldName
    116,  # DocTooLargeForCapped
    121,  # DocumentValidationFailure
    171,  # CannotIndexParallelArrays
    201,  # CannotBuildIndexKeys
    378,  # NonConformantBSON
    10334,  # BSONObjectTooLarge
    17280,  # KeyTooLong, up to MongoDB 4.0
    _DUPLICATE_KEY,  # in a unique index that somebody made
}
#: Times that a document is inserted alone, after the server took another one, before it is refused whatever the error is.
_TRIES_ALONE = 3

#: The server's answer for one document: nothing when it took it, else the write error.
_Answer = dict[str, Any] | None


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


def insert(collection: Collection[dict[str, Any]], documents: Sequence[dict[str, Any]], *, max_bytes: int) -> list[Refusal]:
    """Insert documents whose `_id` is their `task_id`; gives those that the server will never take.

    Raises:
        SinkUnavailable: the server answered with errors that may pass.
        PyMongoError: the server does not answer.
    """
    sizes_bytes = [len(bson.encode(document)) for document in documents]
    refusals = [
        Refusal(document["task_id"], f"{size} bytes; this server takes documents of {max_bytes}")
        for document, size in zip(documents, sizes_bytes, strict=True)
        if size > max_bytes
    ]
    fitting = [document for document, size in zip(documents, sizes_bytes, strict=True) if size <= max_bytes]
    answers = _insert_all(collection, fitting)
    last_taken = max((index for index, answer in enumerate(answers) if answer is None), default=-1)
    delivered, errors = [], []
    for index, (document, answer) in enumerate(zip(fitting, answers, strict=True)):
        is_suspect = index < last_taken  # else the server may be in trouble
        final = _insert_alone(collection, document, answer) if is_suspect else answer
        if final is None or _is_duplicate_id(final):
            delivered.append(document["task_id"])
        elif is_suspect or _is_refused(final):
            refusals.append(Refusal(document["task_id"], _reason(final)))
        else:
            errors.append(final)
    if errors:
        detail = f"MongoDB did not take {len(errors)} of {len(documents)} documents: {errors[0].get('errmsg')}"
        raise SinkUnavailable(detail, delivered=delivered, refusals=refusals)
    return refusals


def _insert_all(collection: Collection[dict[str, Any]], documents: Sequence[dict[str, Any]]) -> list[_Answer]:
    """Insert documents in their order; gives the server's answer for each.

    A command that fails as a whole says nothing of any one document: its halves are inserted on their own.
    """
    if not documents:
        return []
    try:
        collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        details = error.details or {}
        if details.get("writeConcernErrors"):
            raise SinkUnavailable(f"MongoDB: {details['writeConcernErrors'][0].get('errmsg')}") from error
        failed = {answer["index"]: answer for answer in details.get("writeErrors", ())}
        return [failed.get(index) for index in range(len(documents))]
    except (OperationFailure, DocumentTooLarge) as error:
        if len(documents) == 1:
            return [{"errmsg": str(error)}]  # without the code, which is the command's
        half = len(documents) // 2
        return _insert_all(collection, documents[:half]) + _insert_all(collection, documents[half:])
    return [None] * len(documents)


def _insert_alone(collection: Collection[dict[str, Any]], document: dict[str, Any], answer: _Answer) -> _Answer:
    """Insert a document again while `answer`, the last one for it, leaves open whether it ever gets in; gives the last answer."""
    for _ in range(_TRIES_ALONE):
        if answer is None or _is_refused(answer):
            break
        (answer,) = _insert_all(collection, [document])
    return answer


def _is_refused(error: dict[str, Any]) -> bool:
    return error.get("code") in _REFUSED_CODES


def _is_duplicate_id(error: dict[str, Any]) -> bool:
    """Whether the document is there already; a duplicate in another unique index keeps it out."""
    is_duplicate: bool = error.get("code") == _DUPLICATE_KEY
    return is_duplicate and error.get("keyPattern", {"_id": 1}) == {"_id": 1}


def _reason(error: dict[str, Any]) -> str:
    code = f" (code {error['code']})" if "code" in error else ""
    return f"MongoDB refuses it: {error.get('errmsg')}{code}"


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
