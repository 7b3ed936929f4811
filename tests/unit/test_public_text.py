"""What clients get of a library's words."""

from __future__ import annotations

import pytest

from inference.public_text import public_exception, public_reason, with_reason


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
