"""The client that knows every answer would see a wrong one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.answer_check import Sample, distinguishable, is_right
from bench.rounds import TOLERANCE


def answer(values: list[float], request_id: str = "a-1") -> dict[str, Any]:
    return {"request_id": request_id, "response": {"prediction": values}}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (answer([0.25, 0.75]), True),
        (answer([0.25 + TOLERANCE / 2, 0.75]), True),
        (answer([0.25 + 3 * TOLERANCE, 0.75]), False),
        (answer([0.75, 0.25]), False),
        (answer([0.25]), False),
        (answer([0.25, 0.75], request_id="b-1"), False),
    ],
)
def test_an_answer_is_right_when_vector_and_id_are_the_caller_s(document: dict[str, Any], expected: bool) -> None:
    assert is_right(document, "a-1", np.array([0.25, 0.75], np.float32)) is expected


def sample(value: float) -> Sample:
    return Sample(np.zeros(1), np.array([value, 1 - value], np.float32))


def test_images_with_the_same_vector_are_left_out() -> None:
    samples = [sample(0.1), sample(0.1 + TOLERANCE), sample(0.2), sample(0.3)]

    assert distinguishable(samples, 2) == [samples[0], samples[2]]


def test_a_model_that_says_the_same_of_all_cannot_be_checked_with() -> None:
    with pytest.raises(RuntimeError, match="only 1 images"):
        distinguishable([sample(0.5)] * 10, 2)
