"""The error tree: one code for each class, one status for each code, and the way across a process."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections import Counter
from collections.abc import Iterator

import orjson
import pytest

import api
import inference
from inference.errors import ERRORS_BY_CODE, InferenceError, InvalidMetadata, shown, shown_name

#: Code to status, as the design and the API's manual have it. A code is never renamed.
STATUS = {
    "internal_error": 500,
    "invalid_request": 400,
    "invalid_metadata": 400,
    "invalid_image": 400,
    "unknown_command": 400,
    "invalid_model": 400,
    "invalid_configuration": 500,
    "cross_origin": 403,
    "task_not_found": 404,
    "batch_not_found": 404,
    "erasure_not_found": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "model_not_found": 404,
    "object_not_found": 404,
    "image_not_found": 404,
    "image_gone": 410,
    "task_not_finished": 409,
    "task_already_finished": 409,
    "task_canceled": 409,
    "idempotency_conflict": 409,
    "change_in_progress": 409,
    "sink_not_configured": 409,
    "request_timeout": 408,
    "payload_too_large": 413,
    "uri_too_long": 414,
    "unsupported_image_type": 415,
    "expectation_failed": 417,
    "unauthenticated": 401,
    "forbidden": 403,
    "misdirected_request": 421,
    "header_fields_too_large": 431,
    "not_implemented": 501,
    "unsupported_content_encoding": 415,
    "overloaded": 429,
    "rate_limited": 429,
    "quota_exceeded": 429,
    "prediction_failed": 500,
    "upload_lost": 500,
    "predictor_died": 500,
    "service_unavailable": 503,
    "storage_full": 503,
    "deadline_exceeded": 504,
    "wait_timeout": 504,
}


def kinds(kind: type[InferenceError] = InferenceError) -> Iterator[type[InferenceError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from kinds(child)


def test_the_table_of_codes_is_the_designs() -> None:
    assert {code: kind.status for code, kind in ERRORS_BY_CODE.items()} == STATUS


def test_every_class_has_a_code_of_its_own_wherever_it_is_defined() -> None:
    for package in (inference, api):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.startswith("inference.models.loading.tensorflow"):  # imports TensorFlow
                importlib.import_module(module.name)
    codes = Counter(kind.code for kind in kinds())
    assert [code for code, count in codes.items() if count > 1] == []
    assert set(codes) == set(ERRORS_BY_CODE)


@pytest.mark.parametrize("kind", ERRORS_BY_CODE.values(), ids=ERRORS_BY_CODE)
def test_an_error_crosses_a_process_as_data(kind: type[InferenceError]) -> None:
    error = kind("größer\nals", field="metadata.shape", expected="HxWxC", retry_after_s=1.5, task_id="t")
    back = InferenceError.from_dict(json.loads(json.dumps(error.to_dict())))
    assert type(back) is kind
    assert vars(back) == vars(error)
    assert str(back) == "größer\nals"
    assert (back.status, back.code, back.title) == (kind.status, kind.code, kind.title)
    assert kind.title


def test_what_is_not_known_is_left_out() -> None:
    assert InvalidMetadata("wrong").to_dict() == {"code": "invalid_metadata", "detail": "wrong"}
    assert vars(InferenceError.from_dict({"code": "invalid_metadata", "detail": "wrong"})) == vars(InvalidMetadata("wrong"))


def test_a_code_of_a_newer_version_is_an_internal_error() -> None:
    error = InferenceError.from_dict({"code": "of_tomorrow", "detail": "something new"})
    assert (type(error), error.status, error.detail) == (InferenceError, 500, "something new")


SHOWN = {
    "text": ("größer", "'größer'"),
    "long text": ("x" * 400_000, "'" + "x" * 79 + "…"),
    "control characters": ("\x00\x1b\r\n\x85", r"'\x00\x1b\r\n\x85'"),
    "directions and separators": ("\u202e\u2066\u2028", r"'\u202e\u2066\u2028'"),
    "lone surrogate": ("\ud800", r"'\ud800'"),
    "bytes": (b"\xff" * 3, r"b'\xff\xff\xff'"),
    "integer": (10**29, "1" + "0" * 29),
    "integer of thousands of digits": (10**5000, "a whole number of 16610 bits"),
    "negative": (-(10**5000), "a whole number of 16610 bits"),
    "nothing": (None, "None"),
    "boolean": (True, "True"),
    "list": ([1, 2], "[1, 2]"),
    "long list": ([1] * 10_000, "[1, 1, 1, 1, 1, ...]"),
    "object": ({"a": "\x1b"}, r"{'a': '\x1b'}"),
}


@pytest.mark.parametrize(("value", "text"), SHOWN.values(), ids=SHOWN)
def test_what_a_caller_sent_is_quoted(value: object, text: str) -> None:
    assert shown(value) == text


def test_quoting_looks_at_no_more_than_it_shows() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, [["x" * 10**6] * 1000] * 1000, {"x" * 10**6: ["\x1b" * 10**6]}):
        assert len(shown(value)) <= 81


@pytest.mark.parametrize(
    ("name", "text"),
    [("model", "model"), ("größe", "größe"), ("", "''"), ("a\x1b", r"'a\x1b'"), ("x" * 81, "'" + "x" * 79 + "…")],
)
def test_names_of_fields(name: str, text: str) -> None:
    assert shown_name(name) == text


@pytest.mark.parametrize("character", ["x", "ü", "😀", "\x00", '"', "\\", "\ud800"])
def test_no_error_is_long(character: str) -> None:
    text = character * 100_000
    workers = {f"{number}{text}": text for number in range(100)}
    error = InvalidMetadata(text, field=text, expected=text, task_id=text, batch_id=text, workers=workers, retry_after_s=1.5)
    data = error.to_dict()
    assert len(orjson.dumps(data)) < 3900
    assert data["detail"].endswith("…")
    assert InferenceError.from_dict(data).to_dict() == data


def test_what_is_short_enough_is_left_as_it_is() -> None:
    for text in ("x" * 1498, "ü" * 749, "größer\nals"):
        assert InvalidMetadata(text).to_dict()["detail"] == text
    workers = {"w1": "it had loaded it", "w2": "Keras cannot read it"}
    assert InvalidMetadata("x", workers=workers).to_dict()["workers"] == workers
