"""Document that a sink gets of a task."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.result_documents import a_document, an_ended_task
from support.samples import VECTOR, a_failure, a_success

from inference.sinks.protocol import result_document


def test_a_document_has_the_members_that_rohe_promises_and_more() -> None:
    document = a_document("task")
    np.testing.assert_array_equal(document.pop("prediction"), VECTOR)
    assert document.pop("confidence_level") == VECTOR[4]
    assert document == {
        "task_id": "task",
        "request_id": "größer",
        "pipeline_id": "pipeline",
        "inference_model_id": "tiny",
        "model_version": "1",
        "model_digest": "sha256:00",
        "class": 4,
        "label": "eel",
        "created_at_ms": 1,
        "finished_at_ms": 3,
    }


def test_a_document_of_an_owner_names_it() -> None:
    document = result_document(dataclasses.replace(an_ended_task("task"), owner="alice"), "pipeline")
    assert document["owner"] == "alice"


def test_a_task_without_a_result_makes_no_document() -> None:
    with pytest.raises(ValueError, match="task has no result"):
        result_document(an_ended_task("task", a_failure()), "pipeline")


@pytest.mark.parametrize(("threshold", "confident"), [(1.0, True), (3.402e38, False)])
def test_a_document_of_a_model_with_a_threshold_says_whether_it_is_confident(threshold: float, confident: bool) -> None:
    outcome = a_success()
    assert outcome.result is not None
    result = dataclasses.replace(outcome.result, threshold=threshold)
    task = an_ended_task("task", dataclasses.replace(outcome, result=result))
    assert result_document(task, pipeline_id="pipeline")["confident"] is confident
