"""The part of a library's words that clients get."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from inference.runtime.public_text import public_exception, public_reason, with_reason


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Layer count mismatch", "Layer count mismatch"),
        ("Shapes (3,) and (5,) differ.\nDetected at node\n  File '/srv/x.py'", "Shapes (3,) and (5,) differ"),
        ("unable to open file: name = '/srv/models/net.h5'", ""),
        ("unable to open file: name = 'data/model-files/net.h5'", ""),
        (r"no file C:\models", ""),
        ("no host at http://minio:9000", ""),
        ("", ""),
    ],
)
def test_a_text_that_may_name_a_place_is_left_out(text: str, told: str) -> None:
    assert public_reason(text) == told
    assert with_reason("cannot read net.h5", text) == (f"cannot read net.h5: {told}" if told else "cannot read net.h5")


def test_an_exception_is_at_least_its_type() -> None:
    assert public_exception(ValueError("no")) == "ValueError: no"
    assert public_exception(OSError(2, "No such file", "/srv/x")) == "FileNotFoundError"


#: Errors that clients get because a server or a library failed.
_SERVERS_ERRORS = {"InferenceError", "ObjectNotFound", "PredictionFailed", "ServiceUnavailable", "UploadLost"}


def quotes_a_library(call: ast.Call) -> bool:
    """Whether the error's text has another one's, and clients get it too."""
    quoted = [part.value for part in ast.walk(call.args[0]) if isinstance(part, ast.FormattedValue)] if call.args else []
    is_quoting = any(ast.unparse(value) in {"error", "error.detail", "answer.message"} for value in quoted)
    return is_quoting and "public" not in {keyword.arg for keyword in call.keywords}


def test_no_client_gets_a_librarys_words_of_a_server(repository: Path) -> None:
    files = [file for folder in ("api", "inference", "tasks") for file in (repository / folder).rglob("*.py")]
    calls = [
        (file, node)
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _SERVERS_ERRORS
    ]
    assert len(calls) > 30
    assert [f"{file.relative_to(repository)}:{call.lineno}" for file, call in calls if quotes_a_library(call)] == []
