"""Inserting into a MongoDB collection, and whose fault it is when a document does not get in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bson
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, DocumentTooLarge, OperationFailure

from inference.sinks import Refusal, SinkUnavailable

#: Servers that speak the protocol differ in how they name it; a duplicate key is 11000 in all of them.
_DUPLICATE_KEY = 11000
#: Write errors that say what is wrong with the document itself (MongoDB's src/mongo/base/error_codes.yml). All others may be the
#: server's: out of disk space, not primary, interrupted, out of memory or time, not authorized.
_REFUSED_CODES = frozenset(
    {
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
    }
)

#: What the server says of one document: nothing when it took it, else the write error.
_Answer = dict[str, Any] | None


def insert(collection: Collection[dict[str, Any]], documents: Sequence[dict[str, Any]], *, max_bytes: int) -> list[Refusal]:
    """Insert documents whose `_id` is their `task_id`; gives those that the server will never take.

    Raises:
        SinkUnavailable: something may pass later; its `delivered` are in the collection.
        PyMongoError: the server does not answer.
    """
    refused, fitting = [], []
    for document in documents:
        size_bytes = len(bson.encode(document))
        if size_bytes > max_bytes:
            refused.append(Refusal(document["task_id"], f"{size_bytes} bytes; this server takes documents of {max_bytes}"))
        else:
            fitting.append(document)
    return refused + _Insertion(collection, fitting).run()


class _Insertion:
    """All documents together, then alone those that an error of unknown fault kept out.

    Such a document is at fault when it fails, another one gets in after that, and it fails again: a server in trouble takes no
    others, and a document at fault must not stand in their way.
    """

    def __init__(self, collection: Collection[dict[str, Any]], documents: Sequence[dict[str, Any]]) -> None:
        self._collection = collection
        self._documents = documents
        self._refused: list[Refusal] = []
        #: place of the last document that got in; behind all of them once one did alone
        self._last_inserted = -1

    def run(self) -> list[Refusal]:
        if not self._documents:
            return []
        answers = _insert(self._collection, self._documents)
        self._last_inserted = max((index for index, answer in enumerate(answers) if answer is None), default=-1)
        doubtful = [index for index, answer in enumerate(answers) if not self._settle(index, answer)]
        for _ in range(2):  # the proof for the first may come with the last
            doubtful = [index for index in doubtful if not self._settle_alone(index)]
            if self._last_inserted < 0:
                break
        if doubtful:
            self._raise_unavailable(doubtful, answers[doubtful[0]] or {})
        return self._refused

    def _settle(self, index: int, answer: _Answer) -> bool:
        """Whether it is clear what becomes of the document: it is in the collection, or refused."""
        if answer is None or _is_delivered(answer):
            return True
        is_refused = answer.get("code") in {*_REFUSED_CODES, _DUPLICATE_KEY}
        if is_refused:
            self._refuse(index, answer)
        return is_refused

    def _settle_alone(self, index: int) -> bool:
        (answer,) = _insert(self._collection, [self._documents[index]])
        if answer is None:
            self._last_inserted = len(self._documents)
        if self._settle(index, answer):
            return True
        is_at_fault = self._last_inserted > index
        if is_at_fault:
            self._refuse(index, answer or {})
        return is_at_fault

    def _refuse(self, index: int, answer: dict[str, Any]) -> None:
        code = f" (code {answer['code']})" if "code" in answer else ""
        self._refused.append(Refusal(self._documents[index]["task_id"], f"MongoDB refuses it: {answer.get('errmsg')}{code}"))

    def _raise_unavailable(self, doubtful: Sequence[int], answer: dict[str, Any]) -> None:
        left = {self._documents[index]["task_id"] for index in doubtful} | {refusal.task_id for refusal in self._refused}
        delivered = [document["task_id"] for document in self._documents if document["task_id"] not in left]
        raise SinkUnavailable(
            f"MongoDB did not take {len(doubtful)} of {len(self._documents)} documents: {answer.get('errmsg')}",
            delivered=delivered,
        )


def _insert(collection: Collection[dict[str, Any]], documents: Sequence[dict[str, Any]]) -> list[_Answer]:
    """What the server says of each document."""
    try:
        collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        details = error.details or {}
        if details.get("writeConcernErrors"):
            raise SinkUnavailable(f"MongoDB: {details['writeConcernErrors'][0].get('errmsg')}") from error
        failed = {answer["index"]: answer for answer in details.get("writeErrors", ())}
        return [failed.get(index) for index in range(len(documents))]
    except (OperationFailure, DocumentTooLarge) as error:
        # The whole command failed: that says nothing of any one document.
        return [{"errmsg": str(error)}] * len(documents)
    return [None] * len(documents)


def _is_delivered(answer: dict[str, Any]) -> bool:
    """Whether the document is there already; a duplicate in another unique index, if somebody made one, keeps it out."""
    is_duplicate: bool = answer.get("code") == _DUPLICATE_KEY
    return is_duplicate and answer.get("keyPattern", {"_id": 1}) == {"_id": 1}
