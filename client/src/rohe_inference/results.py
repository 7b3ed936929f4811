"""Results of tasks, as the service sends them. Names are those of the API, but for `class`, which Python reserves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: An object of the API's JSON.
Json = Mapping[str, Any]


@dataclass(frozen=True)
class ModelReference:
    """Version of a model."""

    name: str
    version: str
    digest: str

    @classmethod
    def from_json(cls, json: Json) -> ModelReference:
        """Read `{"name": …, "version": …, "digest": …}`."""
        return cls(json["name"], json["version"], json["digest"])


@dataclass(frozen=True)
class ClassConfidence:
    """One class of a result; `confidence` is its value in the vector, 0 to 1."""

    class_id: int
    label: str | None
    confidence: float

    @classmethod
    def from_json(cls, json: Json) -> ClassConfidence:
        """Read `{"class": …, "label": …, "confidence": …}`."""
        return cls(json["class"], json["label"], json["confidence"])


@dataclass(frozen=True)
class Result:
    """Result of a task.

    Attributes:
        class_id: index of the most likely class.
        label: its label; None if the model has none.
        confidence_level: its value in the vector, 0 to 1.
        confident: whether that reaches the model's threshold; None if the model has none.
        labels: labels of a multi-label model that reach their threshold; None for other models.
        top: with `top_k`, the most likely classes, by falling confidence; else None.
        prediction: the vector, in class order; None if the request did not want it, or the answer leaves it out.
        custom: the return value of the model's own code; None without such code.
        raw: the result as JSON.
    """

    class_id: int
    label: str | None
    confidence_level: float
    confident: bool | None
    labels: Sequence[ClassConfidence] | None
    top: Sequence[ClassConfidence] | None
    prediction: Sequence[float] | None = field(repr=False)
    custom: Mapping[str, Any] | None
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, json: Json) -> Result:
        """Read the member `response` of a prediction, or `result` of a task."""
        return cls(
            class_id=json["class"],
            label=json["label"],
            confidence_level=json["confidence_level"],
            confident=json.get("confident"),
            labels=_classes(json.get("labels")),
            top=_classes(json.get("top")),
            prediction=json.get("prediction"),
            custom=json.get("custom"),
            raw=json,
        )


def _classes(json: Sequence[Json] | None) -> Sequence[ClassConfidence] | None:
    return None if json is None else tuple(map(ClassConfidence.from_json, json))
