"""Results as documents of a MongoDB collection. `_id` is the task id, so each result is stored once even if it is sent again."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import bson
from pymongo import ASCENDING, MongoClient
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure, PyMongoError

from inference.errors import ConfigurationError
from inference.settings import MongodbSettings
from inference.sinks.protocol import NO_CONTEXTS, Refusal, SinkUnavailable, StoredResult

logger = logging.getLogger(__name__)

_SECONDS_A_DAY = 86_400
#: Servers with MongoDB's protocol differ in the names of errors; a duplicate key has this code in all of them.
_DUPLICATE_KEY = 11000
#: Codes of write errors that are the document's own (MongoDB's src/mongo/base/error_codes.yml).
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
#: Codes of errors that are the server's own and pass, even if it accepts other documents meanwhile, as a sharded cluster does. No
#: document is refused for them. An error of any other code may be the document's or the server's.
_PASSING_CODES = {
    6,  # HostUnreachable
    7,  # HostNotFound
    13,  # Unauthorized
    50,  # MaxTimeMSExpired
    64,  # WriteConcernTimeout
    89,  # NetworkTimeout
    91,  # ShutdownInProgress
    112,  # WriteConflict
    133,  # FailedToSatisfyReadPreference
    146,  # ExceededMemoryLimit
    189,  # PrimarySteppedDown
    262,  # ExceededTimeLimit
    371,  # UserWritesBlocked
    391,  # ReauthenticationRequired
    8000,  # AtlasError: over the space quota
    9001,  # SocketException
    10107,  # NotWritablePrimary
    11600,  # InterruptedAtShutdown
    11601,  # Interrupted
    11602,  # InterruptedDueToReplStateChange
    13435,  # NotPrimaryNoSecondaryOk
    13436,  # NotPrimaryOrSecondary
    14031,  # OutOfDiskSpace
    16500,  # TooManyRequests, of Azure Cosmos DB
}
#: `_id` of the document that tests whether the server accepts any; no task id is a document.
_PROBE_ID = {"inference": "probe"}
#: Upper limit of the bytes of a probe without its padding.
_PROBE_OVERHEAD_BYTES = 128

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
        #: task ids of documents that the last `write` did not deliver because of an error of unknown kind
        self._suspects: set[str] = set()

    def write(
        self,
        documents: Sequence[dict[str, Any]],
        contexts: Mapping[str, str] = NO_CONTEXTS,  # noqa: ARG002 documents have none
    ) -> list[Refusal]:
        try:
            collection = self._collection()
            converted = [_to_bson(document) for document in documents]
            return insert(collection, converted, max_bytes=self._max_document_bytes, suspects=self._suspects)
        except PyMongoError as error:
            raise SinkUnavailable(f"MongoDB does not answer: {error}") from error

    def erase(self, results: Sequence[StoredResult]) -> list[bool]:
        try:
            self._collection().delete_many({"_id": {"$in": [result.task_id for result in results]}})
        except PyMongoError as error:
            raise SinkUnavailable(f"MongoDB does not answer: {error}") from error
        return [True] * len(results)

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


def insert(
    collection: Collection[dict[str, Any]], documents: Sequence[dict[str, Any]], *, max_bytes: int, suspects: set[str]
) -> list[Refusal]:
    """Insert documents whose `_id` is their `task_id`; return those that the server will never take.

    Args:
        suspects: task ids of documents that failed in the last call with an error of unknown kind; updated. If they fail again,
            they are refused, provided that the server accepts other documents.

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
    final = _insert_suspects_again(collection, fitting, answers, suspects)
    delivered, errors = [], {}
    for document, answer in zip(fitting, answers, strict=True):
        task_id = document["task_id"]
        error = final.get(task_id, answer)
        if error is None or _is_duplicate_id(error):
            delivered.append(task_id)
        elif _is_refused(error) or (task_id in final and _is_unknown(error)):
            refusals.append(Refusal(task_id, _reason(error)))
        else:
            errors[task_id] = error
    suspects.difference_update(document["task_id"] for document in documents)
    suspects.update(task_id for task_id, error in errors.items() if _is_unknown(error))
    if errors:
        detail = f"MongoDB did not take {len(errors)} of {len(documents)} documents: {next(iter(errors.values())).get('errmsg')}"
        raise SinkUnavailable(detail, delivered=delivered, refusals=refusals)
    return refusals


def _insert_suspects_again(
    collection: Collection[dict[str, Any]], documents: Sequence[dict[str, Any]], answers: Sequence[_Answer], suspects: set[str]
) -> dict[str, _Answer]:
    """Insert suspects that failed again once more, each alone; return the answers by task id.

    Nothing is inserted, and the result is empty, unless the server has accepted another document after them, or accepts a probe.
    """
    last_taken = max((index for index, answer in enumerate(answers) if answer is None), default=-1)
    failed = {
        index: document
        for index, (document, answer) in enumerate(zip(documents, answers, strict=True))
        if answer is not None and document["task_id"] in suspects and _is_unknown(answer)
    }
    if not failed or not (max(failed) < last_taken or _takes_probe(collection, failed.values())):
        return {}
    return {document["task_id"]: _insert_all(collection, [document])[0] for document in failed.values()}


def _takes_probe(collection: Collection[dict[str, Any]], suspects: Iterable[dict[str, Any]]) -> bool:
    """Whether the server accepts a document as large as these that has none of their content; it is removed at once."""
    size_bytes = max(len(bson.encode(document)) for document in suspects)
    padding = os.urandom(max(0, size_bytes - _PROBE_OVERHEAD_BYTES))  # random: on a nearly full disk, compressed bytes might fit
    try:
        collection.replace_one({"_id": _PROBE_ID}, {"padding": padding}, upsert=True)
        collection.delete_one({"_id": _PROBE_ID})
    except PyMongoError:
        return False
    return True


def _insert_all(collection: Collection[dict[str, Any]], documents: Sequence[dict[str, Any]]) -> list[_Answer]:
    """Insert documents; return the server's answer for each, in order.

    A command that fails as a whole says nothing of any one document: its halves are inserted on their own. Its code is left out
    unless the error passes.
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
            code = getattr(error, "code", None)
            return [{"errmsg": str(error)} | ({"code": code} if code in _PASSING_CODES else {})]
        half = len(documents) // 2
        return _insert_all(collection, documents[:half]) + _insert_all(collection, documents[half:])
    return [None] * len(documents)


def _is_refused(error: dict[str, Any]) -> bool:
    return error.get("code") in _REFUSED_CODES


def _is_unknown(error: dict[str, Any]) -> bool:
    """Whether the error may be the document's or the server's."""
    return error.get("code") not in _REFUSED_CODES | _PASSING_CODES


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
    for name in document.keys() & {"labels", "top"}:
        converted[name] = [named | {"confidence": float(named["confidence"])} for named in document[name]]
    return converted | {
        "_id": document["task_id"],
        "confidence_level": float(document["confidence_level"]),
        "prediction": document["prediction"].tolist(),
        "created_at": datetime.fromtimestamp(document["created_at_ms"] / 1000, UTC),
        "finished_at": datetime.fromtimestamp(document["finished_at_ms"] / 1000, UTC),
    }
