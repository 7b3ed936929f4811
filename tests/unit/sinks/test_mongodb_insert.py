"""Documents that do not get into the collection: some are refused, and the others come again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bson
import pytest
from pymongo.errors import AutoReconnect, BulkWriteError, OperationFailure

from inference.sinks.mongodb import insert
from inference.sinks.protocol import SinkUnavailable

#: Says nothing of whose the error is.
UNKNOWN = 99_999
#: Codes of MongoDB that are the server's trouble, not the document's.
PASSING = {
    "a shard without a primary": 133,
    "too many requests": 16_500,
    "over the quota": 8000,
    "write conflict": 112,
    "out of disk space": 14031,
    "not primary": 10107,
    "interrupted": 11601,
    "interrupted by a step-down": 11602,
    "out of time": 50,
    "out of memory": 146,
    "not authorized": 13,
    "reauthenticate": 391,
    "writes are blocked": 371,
}
REFUSED = {"bad value": 2, "fails the validation": 121, "too large": 10334, "dollar field": 52, "key of arrays": 171}


class FakeCollection:
    """A collection of pymongo's, as far as `insert` goes. Write errors are of single documents unless told otherwise."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        #: by id, the code of the error that the document meets
        self.codes: dict[str, int] = {}
        #: how many more documents it takes before each meets `full_code`
        self.room = 10**9
        self.full_code = PASSING["out of disk space"]
        #: the whole command fails because of one document
        self.fails_as_a_whole = False
        self.write_concern_error = False
        self.duplicate_of: dict[str, Any] | None = None
        #: what the sink remembers from one call to the next
        self.suspects: set[str] = set()
        self.calls: list[list[str]] = []
        #: padding of the probes that it took, in bytes
        self.probes: list[int] = []
        self.takes_probes = True
        self.before_call: Callable[[int], None] = lambda _: None

    def insert_many(self, documents: list[dict[str, Any]], *, ordered: bool) -> None:
        assert not ordered
        assert documents, "pymongo refuses an empty list"
        self.before_call(len(self.calls))
        self.calls.append([document["_id"] for document in documents])
        if self.fails_as_a_whole and (bad := [d["_id"] for d in documents if d["_id"] in self.codes]):
            raise OperationFailure(f"cannot take {bad[0]}", self.codes[bad[0]])
        errors = [error for index, document in enumerate(documents) if (error := self._insert(index, document))]
        concern = [{"code": 64, "errmsg": "waiting for replication timed out"}] if self.write_concern_error else []
        if errors or concern:
            raise BulkWriteError({"writeErrors": errors, "writeConcernErrors": concern})

    def replace_one(self, key: dict[str, Any], probe: dict[str, Any], *, upsert: bool) -> None:
        assert upsert
        if self.room <= 0 or not self.takes_probes:
            raise OperationFailure("no probe", self.full_code)
        self.probes.append(len(bson.encode(probe)))
        self.documents["the probe"] = key

    def delete_one(self, key: dict[str, Any]) -> None:
        assert self.documents.pop("the probe") == key

    def _insert(self, index: int, document: dict[str, Any]) -> dict[str, Any] | None:
        task_id = document["_id"]
        if task_id in self.documents:
            pattern = {"keyPattern": self.duplicate_of} if self.duplicate_of else {}
            return {"index": index, "code": 11000, "errmsg": "E11000 duplicate key error"} | pattern
        if task_id in self.codes:
            return {"index": index, "code": self.codes[task_id], "errmsg": f"not {task_id}"}
        if self.room <= 0:
            return {"index": index, "code": self.full_code, "errmsg": "no room"}
        self.room -= 1
        self.documents[task_id] = document
        return None


@pytest.fixture
def collection() -> FakeCollection:
    return FakeCollection()


def write(collection: FakeCollection, *task_ids: str, max_bytes: int = 10**6) -> dict[str, str]:
    """Return the reason for each refusal, by task id."""
    documents = [{"_id": task_id, "task_id": task_id, "prediction": [0.5] * 4} for task_id in task_ids]
    return {
        refusal.task_id: refusal.reason
        for refusal in insert(collection, documents, max_bytes=max_bytes, suspects=collection.suspects)
    }  # type: ignore[arg-type]


def write_in_vain(collection: FakeCollection, *task_ids: str) -> frozenset[str]:
    """Ids of the documents that are delivered though not everything was, and none refused."""
    with pytest.raises(SinkUnavailable) as raised:
        write(collection, *task_ids)
    assert raised.value.refusals == []
    return raised.value.delivered


def test_nothing_to_insert_asks_nobody(collection: FakeCollection) -> None:
    assert write(collection) == {}
    assert collection.calls == []


@pytest.mark.parametrize("code", REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_with_a_document_refuses_it_at_once_even_alone(collection: FakeCollection, code: int) -> None:
    collection.codes = {"bad": code}
    assert write(collection, "bad") == {"bad": f"MongoDB refuses it: not bad (code {code})"}
    assert write(collection, "1", "bad", "2").keys() == {"bad"}
    assert collection.calls == [["bad"], ["1", "bad", "2"]]
    assert collection.documents.keys() == {"1", "2"}


@pytest.mark.parametrize("code", [*PASSING.values(), UNKNOWN], ids=[*PASSING, "unknown"])
def test_a_server_that_takes_nothing_refuses_nothing(collection: FakeCollection, code: int) -> None:
    collection.room, collection.full_code = 0, code
    assert write_in_vain(collection, "1", "2", "3") == set()
    assert write_in_vain(collection, "1") == set()
    collection.room = 10
    assert write(collection, "1", "2", "3") == {}
    assert collection.documents.keys() == {"1", "2", "3"}


def test_a_disk_that_fills_up_refuses_nothing_and_says_what_it_took(collection: FakeCollection) -> None:
    collection.room = 2
    assert write_in_vain(collection, "1", "2", "3", "4") == {"1", "2"}
    collection.room = 10
    assert write(collection, "3", "4", "5") == {}
    assert sorted(collection.documents) == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("code", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("fails_as_a_whole", [False, True])
def test_an_error_that_passes_refuses_nothing_though_others_get_in(
    collection: FakeCollection, code: int, fails_as_a_whole: bool
) -> None:
    """One shard of a cluster is down, and the others take theirs."""
    collection.codes, collection.fails_as_a_whole = {"a1": code, "a2": code}, fails_as_a_whole
    assert write_in_vain(collection, "a1", "b1", "a2", "b2") == {"b1", "b2"}
    for number in range(5):
        assert write_in_vain(collection, "a1", "a2", f"b{number}") == {f"b{number}"}
    collection.codes = {}
    assert write(collection, "a1", "a2") == {}


def test_an_unknown_error_is_tried_once_more(collection: FakeCollection) -> None:
    collection.codes = {"2": UNKNOWN}
    assert write_in_vain(collection, "1", "2", "3") == {"1", "3"}
    collection.codes = {}
    assert write(collection, "2", "4") == {}
    assert collection.calls == [["1", "2", "3"], ["2", "4"]]
    assert collection.suspects == set()


def test_an_unknown_error_refuses_the_second_time_if_another_one_got_in_after_it(collection: FakeCollection) -> None:
    collection.codes = {"poison": UNKNOWN}
    assert write_in_vain(collection, "1", "poison", "2") == {"1", "2"}
    assert write(collection, "poison", "3") == {"poison": "MongoDB refuses it: not poison (code 99999)"}
    assert collection.documents.keys() == {"1", "2", "3"}
    assert (collection.probes, collection.suspects) == ([], set())


def test_many_that_fail_are_refused_with_one_that_gets_in_after_them(collection: FakeCollection) -> None:
    poison = [f"poison {number}" for number in range(50)]
    collection.codes = dict.fromkeys(poison, UNKNOWN)
    assert write_in_vain(collection, *poison) == set()
    assert write(collection, *poison, "1").keys() == set(poison)
    assert collection.documents.keys() == {"1"}


def test_an_unknown_error_refuses_the_second_time_if_the_server_takes_a_probe(collection: FakeCollection) -> None:
    """No other result comes in a quiet service."""
    collection.codes = {"poison": UNKNOWN}
    assert write_in_vain(collection, "poison") == set()
    assert write(collection, "poison") == {"poison": "MongoDB refuses it: not poison (code 99999)"}
    assert len(collection.probes) == 1
    assert collection.documents == {}


def test_a_probe_is_as_large_as_the_largest_suspect(collection: FakeCollection) -> None:
    """A nearly full disk takes a small document all the same."""
    large = "x" * 100_000
    collection.codes = dict.fromkeys(("1", large), UNKNOWN)
    write_in_vain(collection, "1", large)
    write(collection, "1", large)
    (size_bytes,) = collection.probes
    assert 200_000 <= size_bytes + 200 <= 200_400  # the fake's documents have their id twice


@pytest.mark.parametrize("others", [(), ("1",)])
def test_a_server_that_is_well_again_refuses_nothing(collection: FakeCollection, others: tuple[str, ...]) -> None:
    """It failed twice, but now takes a probe or another document: the suspect is inserted once more."""
    collection.codes = {"suspect": UNKNOWN}
    write_in_vain(collection, "suspect")

    def mend(call: int) -> None:
        collection.codes = {} if call == 2 else collection.codes

    collection.before_call = mend
    assert write(collection, "suspect", *others) == {}
    assert collection.documents.keys() == {"suspect", *others}


def test_a_server_that_takes_no_probe_refuses_nothing(collection: FakeCollection) -> None:
    collection.codes, collection.takes_probes = {"suspect": UNKNOWN}, False
    for _ in range(5):
        assert write_in_vain(collection, "suspect") == set()
    assert write(collection, "suspect", "1").keys() == {"suspect"}


@pytest.mark.parametrize("order", [("poison", "1", "2"), ("1", "poison", "2")])
def test_one_that_fails_the_whole_command_is_found_out(collection: FakeCollection, order: tuple[str, ...]) -> None:
    """FerretDB answers so to some; the code then says nothing of any one document."""
    collection.codes, collection.fails_as_a_whole = {"poison": REFUSED["bad value"]}, True
    assert write_in_vain(collection, *order) == {"1", "2"}
    assert write(collection, "poison", "3") == {"poison": "MongoDB refuses it: cannot take poison"}
    assert collection.documents.keys() == {"1", "2", "3"}


def test_one_that_fails_the_whole_command_keeps_no_other_one_out(collection: FakeCollection) -> None:
    collection.codes, collection.fails_as_a_whole = {"poison": UNKNOWN}, True
    assert write_in_vain(collection, *"12345", "poison") == set("12345")
    assert write(collection, "poison", "6").keys() == {"poison"}


def test_one_is_refused_though_others_come_again(collection: FakeCollection) -> None:
    collection.codes, collection.room = {"bad": REFUSED["too large"]}, 1
    with pytest.raises(SinkUnavailable, match="did not take 1 of 3 documents: no room") as raised:
        write(collection, "1", "bad", "2")
    assert raised.value.delivered == {"1"}
    assert [refusal.task_id for refusal in raised.value.refusals] == ["bad"]


def test_what_is_there_already_is_delivered_and_proves_nothing(collection: FakeCollection) -> None:
    write(collection, "1", "2")
    assert write(collection, "2", "1") == {}
    collection.room = 0
    assert write_in_vain(collection, "0", "1", "2") == {"1", "2"}


def test_a_duplicate_of_another_field_is_refused(collection: FakeCollection) -> None:
    """Somebody made a unique index of their own: the document is not there."""
    write(collection, "1")
    collection.duplicate_of = {"request_id": 1}
    assert write(collection, "1", "2").keys() == {"1"}
    collection.duplicate_of = {"_id": 1}
    assert write(collection, "1") == {}


def test_a_write_concern_that_failed_confirms_nothing(collection: FakeCollection) -> None:
    collection.write_concern_error = True
    assert write_in_vain(collection, "1", "2") == set()
    collection.write_concern_error = False
    assert write(collection, "1", "2") == {}


def test_a_server_that_goes_away_is_the_callers_to_tell(collection: FakeCollection) -> None:
    def go_away(_: int) -> None:
        raise AutoReconnect("connection closed")

    collection.before_call = go_away
    with pytest.raises(AutoReconnect):
        write(collection, "1")


def test_one_over_the_servers_limit_is_refused_unseen(collection: FakeCollection) -> None:
    refused = write(collection, "1", "x" * 1000, "2", max_bytes=500)
    assert ["bytes; this server takes at most 500" in reason for reason in refused.values()] == [True]
    assert collection.calls == [["1", "2"]]
