"""Errors as the protocol has them: `{"error": TEXT}`, from every part of the service."""

from __future__ import annotations

from typing import Any

from inference.errors import InferenceError

_ROOT = "/v2"


def is_v2(path: str) -> bool:
    """Whether a path is one of the protocol, known or not."""
    return path.startswith(f"{_ROOT}/") or path == _ROOT


def error_document(error: InferenceError) -> dict[str, Any]:
    """Write the error as one text, with the valid value if it is known."""
    members = error.to_dict()
    expected = members.get("expected")
    return {"error": f"{members['detail']}; expected: {expected}" if expected else members["detail"]}
