"""The client has every option and every member of an answer that the API's description has."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from rohe_inference import (
    ApiError,
    Batch,
    BatchItem,
    CallerKey,
    ClassConfidence,
    Delivery,
    Model,
    ModelReference,
    Prediction,
    QueuePosition,
    Result,
    ServiceStatus,
    Task,
    TaskOptions,
)

#: Members that the client leaves to `raw`: paths, and what is told only of one model or of the whole service.
_LEFT_TO_RAW = {
    "Task": {"urls"},
    "Batch": {"urls"},
    "Prediction": {"response"},
    "Model": {"urls"},
    "ServiceStatus": {"dead_letters", "rejected_messages", "unstored_images", "webhooks"},
    "Problem": {"type", "title", "workers"},
}
_OTHER_NAMES = {"class": "class_id"}


@pytest.fixture(scope="module")
def schemas(repository: Path) -> dict[str, Any]:
    document = json.loads((repository / "docs/openapi.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = document["components"]["schemas"]
    return found


@pytest.mark.parametrize(
    "kind",
    [
        *(
            Batch,
            BatchItem,
            CallerKey,
            ClassConfidence,
            Delivery,
            Model,
            ModelReference,
            Prediction,
            QueuePosition,
            Result,
            ServiceStatus,
        ),
        Task,
    ],
    ids=lambda kind: kind.__name__,
)
def test_answers_have_every_member(schemas: dict[str, Any], kind: type) -> None:
    described = {_OTHER_NAMES.get(name, name) for name in schemas[kind.__name__]["properties"]}
    known = {field.name for field in dataclasses.fields(kind)}

    assert described - known == _LEFT_TO_RAW.get(kind.__name__, set()) & described


def test_errors_have_every_member(schemas: dict[str, Any]) -> None:
    known = vars(ApiError("", status=400, code="")).keys()

    assert set(schemas["Problem"]["properties"]) - known == _LEFT_TO_RAW["Problem"]


def test_every_option_is_known(schemas: dict[str, Any]) -> None:
    described = set(schemas["PredictForm"]["properties"]) - {"image", "command", "metadata", "mode"}

    assert described - TaskOptions.__annotations__.keys() == set()
