"""Results as documents of a MongoDB collection. `_id` is the task id, so each result is stored once even if it is sent again."""

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
#: Servers with MongoDB's protocol differ in the names of errors; a duplicate key has this code in all of them.
_DUPLICATE_KEY = 11000
#: Codes of write errors whose cause is the document (MongoDB's src/mongo/base/error_codes.yml). The cause of all others may be
#: the server: out of disk space, not primary, interrupted, out of memory or time, not authorized.
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
    _DUPLICATE_KEY,  # in a unique index that an operator made
}
#: Times that a document is inserted alone, while the server takes others, before it counts as refused at any error.
_TRIES_ALONE = 3

#: The server's answer for one document: None if the server took it, else the write error.
_Answer = dict[str, Any] | None


class MongodbSink:
    """`ResultSink` that inserts documents. A committed result never changes: an existing document counts as delivered."""

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
                connect=False,  # the first write connects
            )
        if not self._client.write_concern.acknowledged:
            raise ConfigurationError(
                "mongodb.url: w=0 would lose results that MongoDB did not write; remove it", field="mongodb.url"
            )
        #: the server's limit for one document; 0 before it is read
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
            logger.warning("mongodb.ttl_days: this server makes no TTL index, so documents are not deleted: %s", error)


def insert(collection: Collection[dict[str, Any]], documents: Sequence[dict[str, Any]], *, max_bytes: int) -> list[Refusal]:
    """Insert documents whose `_id` is their `task_id`; return the refusals of documents that the server will never take.

    Raises:
        SinkUnavailable: the server answered with errors that may pass.
        PyMongoError: the server does not answer.
    """
    sizes_bytes = [len(bson.encode(document)) for document in documents]
    refusals = [
        Refusal(document["task_id"], f"the document has {size} bytes; this server takes at most {max_bytes}")
        for document, size in zip(documents, sizes_bytes, strict=True)
        if size > max_bytes
    ]
    fitting = [document for document, size in zip(documents, sizes_bytes, strict=True) if size <= max_bytes]
    answers = _insert_all(collection, fitting)
    last_taken = max((index for index, answer in enumerate(answers) if answer is None), default=-1)
    delivered, errors = [], []
    for index, (document, answer) in enumerate(zip(fitting, answers, strict=True)):
        is_suspect = index < last_taken  # a later document was taken, so the server works
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
    """Insert documents; return the server's answer for each, in order.

    If a command fails as a whole, the cause may be any of its documents: its halves are inserted one after the other.
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
            return [{"errmsg": str(error)}]  # without the code, which concerns the command
        half = len(documents) // 2
        return _insert_all(collection, documents[:half]) + _insert_all(collection, documents[half:])
    return [None] * len(documents)


def _insert_alone(collection: Collection[dict[str, Any]], document: dict[str, Any], answer: _Answer) -> _Answer:
    """Insert a document again while `answer`, its last answer, does not tell the cause; return the last answer."""
    for _ in range(_TRIES_ALONE):
        if answer is None or _is_refused(answer):
            break
        (answer,) = _insert_all(collection, [document])
    return answer


def _is_refused(error: dict[str, Any]) -> bool:
    return error.get("code") in _REFUSED_CODES


def _is_duplicate_id(error: dict[str, Any]) -> bool:
    """Return whether the document exists already; a duplicate in another unique index is a refusal."""
    is_duplicate: bool = error.get("code") == _DUPLICATE_KEY
    return is_duplicate and error.get("keyPattern", {"_id": 1}) == {"_id": 1}


def _reason(error: dict[str, Any]) -> str:
    code = f" (code {error['code']})" if "code" in error else ""
    return f"MongoDB refuses it: {error.get('errmsg')}{code}"


@contextmanager
def _wrong_url() -> Iterator[None]:
    """Turn the client's errors and warnings about `mongodb.url`, unknown options included, into a ConfigurationError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            yield
    except (PyMongoError, UserWarning, ValueError, OSError) as error:
        raise ConfigurationError(f"mongodb.url: {_without_secrets(error)}", field="mongodb.url") from error


def _without_secrets(error: Exception) -> str:
    """Return the error's text, without the name of an unknown option, which may be a part of the password."""
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
