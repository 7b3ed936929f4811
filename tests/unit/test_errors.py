"""The error tree: one code for each class, one status for each code, and the way across a process."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections import Counter
from collections.abc import Iterator

import pytest

import api
import inference
from inference.errors import ERRORS_BY_CODE, InferenceError, InvalidMetadata

#: Code to status, as the design and the API's manual have it. A code is never renamed.
STATUS = {
    "internal_error": 500,
    "invalid_request": 400,
    "invalid_metadata": 400,
    "invalid_image": 400,
    "unknown_command": 400,
    "invalid_model": 400,
    "invalid_configuration": 500,
    "task_not_found": 404,
    "batch_not_found": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "model_not_found": 404,
    "object_not_found": 404,
    "task_already_finished": 409,
    "task_canceled": 409,
    "idempotency_conflict": 409,
    "change_in_progress": 409,
    "sink_not_configured": 409,
    "payload_too_large": 413,
    "unsupported_image_type": 415,
    "unsupported_content_encoding": 415,
    "overloaded": 429,
    "prediction_failed": 500,
    "upload_lost": 500,
    "predictor_died": 500,
    "service_unavailable": 503,
    "deadline_exceeded": 504,
    "wait_timeout": 504,
}


def kinds(kind: type[InferenceError] = InferenceError) -> Iterator[type[InferenceError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from kinds(child)


def test_the_table_of_codes_is_the_designs() -> None:
    assert {code: kind.status for code, kind in ERRORS_BY_CODE.items()} == STATUS


def test_nothing_is_answered_with_422() -> None:
    assert 422 not in STATUS.values()


def test_every_class_has_a_code_of_its_own_wherever_it_is_defined() -> None:
    for package in (inference, api):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name not in ("inference.models.loading", "inference.models.predictor_process"):  # they load TensorFlow
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
