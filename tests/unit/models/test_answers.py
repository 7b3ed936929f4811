"""A model's values become a class, the labels over their thresholds, and the top classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.domain import Outcome, PredictionResult, TaskStatus, decode_outcome, encode_outcome
from inference.models.answers import AnswerBuilder
from inference.models.spec import ModelSpec

LABELS = ("ant", "bee", "cat", "dog")
VALUES = np.array([0.2, 0.9, 0.5, 0.7], np.float32)


def builder(**keys: Any) -> AnswerBuilder:
    known = {"name": "net", "file": "net.keras", "input": {"shape": (4, 4, 3)}, "labels": LABELS, "local_files": {}, "digest": ""}
    return AnswerBuilder(ModelSpec.model_validate(known | {"folder": Path()} | keys))


def names(result: PredictionResult) -> list[str | None]:
    assert result.labels is not None
    return [label for _, label in result.labels]


@pytest.mark.parametrize(
    ("threshold", "expected", "confident"),
    [
        (None, ["bee", "dog", "cat"], None),
        (0.7, ["bee", "dog"], True),
        (0.95, [], False),
        ([0.1, 0.95, 0.5, 0.8], ["cat", "ant"], False),
        ({"dog": 0.8, "ant": 0.2}, ["bee", "cat", "ant"], True),
        ({"bee": 0.91}, ["dog", "cat"], False),
    ],
)
def test_each_label_has_its_threshold(threshold: Any, expected: list[str], confident: bool | None) -> None:
    result = builder(task="multi_label", threshold=threshold).build(VALUES)
    assert names(result) == expected
    assert (result.class_index, result.label, result.confident) == (1, "bee", confident)
    assert result.confidence_level == VALUES[1]


def test_a_threshold_is_compared_in_the_precision_of_the_values() -> None:
    assert names(builder(task="multi_label", threshold=0.9).build(VALUES)) == ["bee"]


def test_a_single_label_model_has_no_labels_in_its_answers() -> None:
    result = builder().build(VALUES)
    assert (result.labels, result.top, result.optional_members()) == (None, None, {})


@pytest.mark.parametrize(
    ("described", "asked", "expected"),
    [(None, 2, [1, 3]), (3, None, [1, 3, 2]), (3, 1, [1]), (None, 99, [1, 3, 2, 0]), (99, None, [1, 3, 2, 0])],
)
def test_a_request_chooses_the_number_of_top_classes(described: int | None, asked: int | None, expected: list[int]) -> None:
    result = builder(top_k=described).build(VALUES, asked)
    assert result.optional_members() == {
        "top": [{"class": index, "label": LABELS[index], "confidence": VALUES[index]} for index in expected]
    }


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=30), st.integers(1, 40))
def test_top_begins_with_the_class_of_the_result(values: list[float], count: int) -> None:
    vector = np.array(values, np.float32)
    result = builder(labels=()).build(vector, count)
    assert result.top is not None
    assert result.top[0] == (result.class_index, None)
    found = [float(vector[index]) for index, _ in result.top]
    assert found == sorted(values, reverse=True)[:count]


@pytest.mark.parametrize("custom", [None, b'{"a":[1,null]}'], ids=["no code", "code"])
@pytest.mark.parametrize("keys", [{}, {"top_k": 2}, {"task": "multi_label"}, {"task": "multi_label", "top_k": 3}], ids=str)
def test_a_result_is_the_same_after_its_way_through_redis(keys: dict[str, Any], custom: bytes | None) -> None:
    result = builder(**keys).build(VALUES, custom=custom)
    assert result.custom == (custom and {"a": [1, None]})
    read = decode_outcome(encode_outcome(Outcome(TaskStatus.SUCCEEDED, result))).result
    assert read is not None
    assert read.optional_members() == result.optional_members()
    np.testing.assert_array_equal(read.prediction, VALUES)


NAN, HALVES, TWO, LOGITS = [np.nan, 0.5], [0.5, 0.5], [0.9, 0.8], [3.0, -2.0]


@pytest.mark.parametrize(
    ("keys", "good"),
    [
        ({}, [HALVES]),
        ({"output": {"activation": "softmax"}}, [HALVES]),
        ({"task": "multi_label"}, [HALVES, TWO]),
        ({"output": {"activation": "none"}}, [HALVES, TWO, LOGITS]),
        ({"task": "multi_label", "output": {"activation": "none"}}, [HALVES, TWO, LOGITS]),
    ],
    ids=str,
)
def test_values_are_checked_as_the_description_says(keys: dict[str, Any], good: list[list[float]]) -> None:
    rows = [NAN, HALVES, TWO, LOGITS, [np.inf, 0]]
    assert builder(**keys).are_good(np.array(rows, np.float32)).tolist() == [row in good for row in rows]
